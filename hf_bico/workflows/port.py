"""The chain: blueprint → τ → collect → plan and move → evaluate → write → card → push."""

import shlex
import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from hf_bico import __version__
from hf_bico.core.collect import collect
from hf_bico.core.errors import PortError
from hf_bico.core.methods import Job, Method, Naive, Track, untracked
from hf_bico.core.search import AUTO, Search, best_of, refined_search
from hf_bico.core.transport import Transported, added, holding
from hf_bico.io.changes import forms
from hf_bico.io.changes.delta import SECTION, OpenedBase
from hf_bico.io.changes.peft import write_delta
from hf_bico.io.hub import Hub
from hf_bico.io.maps.stored import StoredMaps
from hf_bico.io.workspace import Workspace
from hf_bico.io.writer import require_room, staged, write_model
from hf_bico.reports.card import write_card
from hf_bico.reports.estimate import measured
from hf_bico.reports.figures import draw_report
from hf_bico.reports.report import (
    Clock,
    Evaluation,
    Report,
    bank_record,
    environment,
    layer_table,
    method_record,
    peak,
    search_record,
    task_vector_record,
    write_report,
)
from hf_bico.tasks.samples import Draw
from hf_bico.tasks.scores import Score
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.destination import Destination
from hf_bico.workflows.plan import Blueprint, cost, draft, matching_record
from hf_bico.workflows.redo import drawing_words, given_words, method_words, ref
from hf_bico.workflows.session import Ready, evaluation_key, exam, models_key, prepare, score_source, within_memory


@dataclass(frozen=True)
class Outcome:
    """A finished port."""

    report: dict[str, Any]
    evaluation: Evaluation
    output: Path | None
    url: str | None
    refusal: str | None
    """Why it was not pushed although a push was asked for."""


def run(config: PortConfig, hub: Hub, track: Track = untracked) -> Outcome:
    """The whole port.

    Raises:
        PortError: whatever stands in the way; nothing is written or pushed then.
    """
    clock = Clock()
    with clock("resolve"):
        plan = draft(config, hub)
        expected = cost(config, plan)
    ready = prepare(plan, hub, track, clock)
    room = sum(tensor.nbytes for tensor in ready.weights.values())
    require_room(config.output or Path(tempfile.gettempdir()) / "hf-bico-output", room)
    with clock("draw"):
        drawn = ready.draw(config, plan.calibration, track)
        matched = ready.match(config, drawn, config.batch_size, track)
        workspace = Workspace(_key(config, ready, drawn))
        ready.equip(drawn, config.batch_size, track)
        plan = ready.plan
        job = replace(
            ready.job(drawn, config.batch_size, track), statistics=workspace.statistics(plan.pairs, plan.method)
        )
    with clock("calibrate"):
        calibrate(job, workspace)
    with clock("move"):
        ported, naive = (method.carry(job) for method in (plan.method, Naive()))
    ported, search, shaped = _shaped(config, job, ported, len(drawn.samples), workspace, clock)
    alpha = best_of(search) if search else config.alpha
    del job
    with clock("evaluate"):
        evaluation = _evaluate(config, ready, drawn, shaped, forms.Shaped(naive.delta, alpha), workspace, track)
    report = Report(
        command=redo(config, plan, alpha),
        lineage=plan.lineage.record(ready.hashes),
        method=_method_record(plan.method, alpha, search),
        calibration=drawn.record() | asdict(plan.task) | {"config": plan.dataset.config} | bank_record(plan.bank),
        task_vector=task_vector_record(ready.ratio, ready.account, ported.moved)
        | {"adapter": ready.adapter, "written": shaped.record(config.form)},
        layers=layer_table(plan.pairs),
        matching=matching_record(config, matched),
        head=_head_record(ready),
        moved=ported.moved,
        left=ready.account.left,
        evaluation=evaluation,
        environment=environment(plan.device, clock),
        estimate=measured(expected, clock.seconds, peak(plan.device)),
    ).data()
    outcome = _deliver(config, hub, ready, drawn, shaped, report, evaluation, track)
    workspace.clear()
    return outcome


def _key(config: PortConfig, ready: Ready, drawn: Draw) -> dict[str, Any]:
    """All that moments and scores depend on, but for rounding."""
    plan = ready.plan
    method = [
        plan.method.name,
        asdict(plan.method),
        config.alpha,
        config.batch_size,
        plan.head,
        [[a.name, b.name] for a, b in plan.pairs],
        config.form,
        config.rank,
        config.energy,
        config.dtype,
    ]
    return {
        "hf_bico": __version__,
        "models": models_key(ready),
        "method": method,
        "evaluation": evaluation_key(config, plan),
        "calibration": [drawn.sha256, asdict(plan.task), plan.bank],
    }


def calibrate(job: Job, workspace: Workspace) -> None:
    """Collect what the method needs of the batches that are not in the workspace yet."""
    every = job.batches()
    batches = islice(every, workspace.batches, None)
    batches = job.track(batches, "Calibrating", len(every) - workspace.batches)
    with within_memory():
        collect(job.source, job.target, job.pairs, batches, job.statistics, workspace.after_batch)


def _shaped(
    config: PortConfig, job: Job, ported: Transported, n: int, workspace: Workspace, clock: Clock
) -> tuple[Transported, Search | None, forms.Shaped]:
    """The change as it will be written, so that what is scored is what is written; and the search for its α."""
    cuts: list[forms.Cut] = []
    if config.form == forms.LORA:
        with clock("cut"):
            delta, cuts = forms.as_products(ported.delta, config.rank, config.energy)
            ported = replace(ported, delta=delta)
    with clock("search"):
        search = _search(config, job, ported, n, workspace)
        alpha = best_of(search) if search else config.alpha
    if config.form == forms.MODEL:
        return ported, search, forms.Shaped(ported.delta, alpha)
    with clock("cut"):
        dtype = "float32" if config.form == forms.LORA else config.dtype
        return ported, search, forms.stored(ported.delta, alpha, dtype, cuts)


def _search(config: PortConfig, job: Job, ported: Transported, n: int, workspace: Workspace) -> Search | None:
    if config.alpha != AUTO:
        return None
    return workspace.once(
        "the search", lambda: refined_search(job.target, job.batches, n, job.weights, ported.delta, job.track)
    )


def _evaluate(
    config: PortConfig,
    ready: Ready,
    drawn: Draw,
    ported: forms.Shaped,
    naive: forms.Shaped,
    workspace: Workspace,
    track: Track,
) -> Evaluation:
    """Scores of what would be written: the sums are made in the target's own dtype."""
    examine = exam(config, ready.plan, track)
    ready.sides[0] = None  # the base has done its part: the fine-tune takes its place
    model, size = ready.sides[1].model, config.batch_size

    def score(what: str) -> Score:
        def compute() -> dict[str, Any]:
            with ready.dressed(drawn, size) as (objective, _):
                return asdict(examine(what, objective, model))

        return Score(**workspace.once(what, compute))

    def with_delta(what: str, change: forms.Shaped) -> Score:
        with holding(model, added(ready.weights, change.delta, change.alpha)):
            return score(what)

    source = score_source(ready, drawn, size, examine, workspace)
    return Evaluation(
        examine.name,
        source,
        score("the target"),
        with_delta("the naive copy", naive),
        with_delta("the port", ported),
        ready.comparable(source),
    )


def redo(config: PortConfig, plan: Blueprint, alpha: float) -> str:
    """The command that does this port again, with every input pinned; a search is not done again, its α is named."""
    lineage = plan.lineage
    words = [
        "hf-bico",
        "port",
        ref(lineage.source),
        "--base",
        ref(lineage.base),
        "--to",
        ref(lineage.target),
        "--dataset",
        ref(lineage.dataset),
        "--split",
        config.split,
        "--eval-split",
        plan.eval_name,
        "--alpha",
        repr(alpha),
        "--head",
        plan.head,
        *drawing_words(config, plan),
    ]
    words += ["--maps", plan.method.pinned_name] if isinstance(plan.method, StoredMaps) else method_words(config)
    optional = {
        "--eval-n": config.eval_n,
        "--as": None if config.form == forms.MODEL else config.form,
        "--rank": config.rank,
        "--energy": config.energy,
        "--dtype": config.dtype,
    }
    return shlex.join([*words, *given_words(optional), "--output", "ported"])


def _method_record(method: Method, alpha: float, search: Search | None) -> dict[str, Any]:
    kept = {"maps": method.about_maps()} if isinstance(method, StoredMaps) else {}
    return method_record(method) | kept | {"alpha": alpha, "search": search_record(search)}


def _head_record(ready: Ready) -> dict[str, Any]:
    """Which head the target has, and how well the map of its input fits, where it was carried."""
    links = ready.plan.head_layers
    return {
        "kind": ready.plan.head,
        "carried": [pair.target.name for pair in links.carried],
        "input": ready.head_fit and asdict(ready.head_fit),
    }


def _deliver(
    config: PortConfig,
    hub: Hub,
    ready: Ready,
    drawn: Draw,
    shaped: forms.Shaped,
    report: dict[str, Any],
    evaluation: Evaluation,
    track: Track,
) -> Outcome:
    """Write the folder, with its card and report, and push it."""
    plan = ready.plan
    url = refusal = None
    if plan.destination and evaluation.regressed and not config.allow_regression:
        refusal = (
            f"not pushed: the port scores {evaluation.ported}, worse than the target without it "
            f"({evaluation.zero_shot}); --allow-regression pushes it all the same"
        )
    destination = None if refusal else plan.destination
    if config.output is None and destination is None:
        return Outcome(report, evaluation, None, None, refusal)
    with ExitStack() as stack:
        place = config.output
        if place is None:
            folder = Path(tempfile.mkdtemp(prefix="hf-bico-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            place = folder / "ported"
        with staged(place) as stage:
            report[SECTION] = _write(stage, config, ready, drawn, shaped)
            write_report(stage, report)
            draw_report(stage, report)
            write_card(stage, report, plan.library, plan.purpose, destination and destination.repo, plan.licenses)
        try:
            for to in track([destination] if destination else [], "Pushing", 1):
                url = _push(config, hub, plan, to, place)
        except PortError as error:
            stack.pop_all()  # it took long to make
            raise PortError(f"{error} (the port is kept in {place})") from error
    return Outcome(report, evaluation, config.output, url, refusal)


def _write(stage: Path, config: PortConfig, ready: Ready, drawn: Draw, shaped: forms.Shaped) -> dict[str, Any] | None:
    """The whole model with its head, or a delta or LoRA with it; what opens that, for the report."""
    plan, model, size = ready.plan, ready.sides[1].model, config.batch_size
    with holding(model, added(ready.weights, shaped.delta, shaped.alpha)), ready.dressed(drawn, size) as (_, head):
        head = {key: tensor.clone() for key, tensor in head.items()}
    target = plan.lineage.target
    if config.form == forms.MODEL:
        write_model(
            stage, plan.library, model, ready.folders[2], target.files, ready.weights, shaped.delta, shaped.alpha, head
        )
        return None
    base = OpenedBase(target, plan.library, plan.purpose, ready.folders[2], ready.weights)
    return write_delta(stage, base, shaped, head, [b.weight.key for _, b in plan.pairs if b.weight.transposed])


def _push(config: PortConfig, hub: Hub, plan: Blueprint, destination: Destination, place: Path) -> str:
    message = config.commit_message or f"Port {plan.lineage.source.name} to {plan.lineage.target.name}"
    return hub.push(
        place,
        destination.repo,
        parent=destination.parent,
        message=message,
        private=config.private,
        create_pr=config.create_pr,
        stale=() if config.create_pr else destination.left_over,
    )
