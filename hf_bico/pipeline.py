"""The chain: blueprint → τ → collect → plan and move → evaluate → write → card → push."""

import shlex
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hf_bico import __version__
from hf_bico.api import class_loss, class_scores
from hf_bico.blueprint import Blueprint, Destination, PortConfig, check_weights, draft, eval_size
from hf_bico.card import write_card
from hf_bico.core.collect import Batch, Side, collect
from hf_bico.core.errors import PortError
from hf_bico.core.methods import Job, Naive, Track, untracked
from hf_bico.core.transport import Account, Moved, Transported, account, added, check_fine_tune, holding
from hf_bico.core.types import Tensors
from hf_bico.data import Draw, Sample, choose, draw, samples_of
from hf_bico.evaluate import Score, accuracy, batched, stack
from hf_bico.families import Loaded
from hf_bico.io.checkpoints import SafeTensors, require_finite
from hf_bico.io.hub import Hub
from hf_bico.io.reference import Pinned, about, sha256
from hf_bico.io.workspace import Workspace
from hf_bico.io.writer import require_room, staged, write_model
from hf_bico.report import Clock, Evaluation, Report, environment, layer_table, write_report


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
    with clock("download"):
        folders = _fetch(plan, hub, track)
    tuned, base, target = _open(plan, folders)
    room = sum(tensor.nbytes for tensor in target.values())
    require_room(config.output or Path(tempfile.gettempdir()) / "hf-bico-output", room)
    with clock("task vector"):
        tau = check_weights(plan, tuned, base, target)
        require_finite(plan.lineage.target, target)
        ratio = check_fine_tune(tau, base, plan.source_sites)
        whole = account(tau, plan.pairs, plan.family.left_reason, plan.source_sites)
    with clock("load"):
        hashes = {role: sha256(folder / plan.family.weights_file)
                  for role, folder in zip(("source", "base", "target"), folders, strict=True)}
        sides = [plan.family.load(folder, plan.device) for folder in folders[1:]]
        heads = [_head(plan, side) for side in sides]
        drawn = draw(plan.split, config.split, plan.task, config.n, config.seed)
        workspace = Workspace(_key(config, plan, hashes, folders, drawn))
        job = Job(tau, plan.pairs, *_live(plan, sides, heads), target,
                  partial(_batches, drawn.samples, sides, config.batch_size),
                  workspace.evidence(plan.pairs, plan.method), track)
    with clock("calibrate"):
        _calibrate(config, job, sides, drawn, workspace)
    with clock("move"):
        ported, naive = (method.carry(job) for method in (plan.method, Naive()))
        del job
    with clock("evaluate"):
        sides[0] = None  # the base has done its part: the fine-tune takes its place
        sides[0] = plan.family.load(folders[0], plan.device)
        heads[0] = _head(plan, sides[0])
        evaluation = _evaluate(config, plan, sides, heads, target, (ported, naive), workspace, track)
    del sides
    report = Report(
        command=redo(config, plan), lineage=plan.lineage.record(hashes),
        method={"name": plan.method.name, "citation": plan.method.citation, "summary": plan.method.summary,
                "options": asdict(plan.method), "alpha": config.alpha,
                "signals": sorted(signal.value for signal in plan.method.signals)},
        calibration=drawn.record() | asdict(plan.task) | {"config": plan.dataset.config},
        task_vector=_task_vector_record(ratio, whole, ported.moved), layers=layer_table(plan.pairs),
        moved=ported.moved, left=whole.left, evaluation=evaluation, environment=environment(plan.device, clock)).data()
    outcome = _deliver(config, hub, plan, folders[2], ported, report, evaluation, track)
    workspace.clear()
    return outcome


def _open(plan: Blueprint, folders: list[Path]) -> list[SafeTensors]:
    opened = []
    for pinned, folder in zip(plan.lineage.models, folders, strict=True):
        with about(pinned):
            opened.append(SafeTensors(folder / plan.family.weights_file))
    return opened


def _key(config: PortConfig, plan: Blueprint, hashes: dict[str, str], folders: list[Path],
         drawn: Draw) -> dict[str, Any]:
    """All that moments and scores depend on, but for rounding."""
    models = [hashes, *((folder / plan.family.config_file).read_text() for folder in folders)]
    method = [plan.method.name, asdict(plan.method), config.alpha, config.batch_size]
    evaluation = [str(plan.lineage.dataset), plan.dataset.config, plan.eval_name, config.eval_n, config.seed]
    return {"hf_bico": __version__, "models": models, "method": method, "evaluation": evaluation,
            "calibration": [drawn.sha256, asdict(plan.task), plan.bank]}


def _live(plan: Blueprint, sides: list[Loaded], heads: list[Tensor]) -> Iterator[Side]:
    for side, head in zip(sides, heads, strict=True):
        bank = plan.family.head(side, plan.bank, ("{}",)) if plan.bank else None
        yield Side(side.model, class_loss(head), None if bank is None else class_scores(bank))


def _calibrate(config: PortConfig, job: Job, sides: list[Loaded], drawn: Draw, workspace: Workspace) -> None:
    """Collect what the method needs of the samples that are not in the workspace yet."""
    samples = drawn.samples[workspace.batches * config.batch_size:]
    batches = _batches(samples, sides, config.batch_size)
    batches = job.track(batches, "Calibrating", -(-len(samples) // config.batch_size))
    try:
        collect(job.source, job.target, job.pairs, batches, job.evidence, workspace.after_batch)
    except torch.OutOfMemoryError as error:
        raise PortError("the device is out of memory; a smaller --batch-size needs less") from error


def _head(plan: Blueprint, side: Loaded) -> Tensor:
    return plan.family.head(side, plan.task.class_names, plan.task.templates)


def _fetch(plan: Blueprint, hub: Hub, track: Track) -> list[Path]:
    names = (plan.family.config_file, plan.family.weights_file, *plan.family.extra_files)
    return [hub.fetch(pinned, names) for pinned in track(plan.lineage.models, "Downloading", 3)]


def _batches(samples: Sequence[Sample], sides: list[Loaded], size: int) -> Iterator[Batch]:
    for some in batched(samples, size):
        yield Batch(*(stack(side, some) for side in sides))


def _evaluate(config: PortConfig, plan: Blueprint, sides: list[Loaded], heads: list[Tensor], weights: Tensors,
              moved: tuple[Transported, Transported], workspace: Workspace, track: Track) -> Evaluation:
    """Scores of what would be written: the sums are made in the target's own dtype."""
    split = plan.dataset.split(plan.eval_name, whole=config.eval_n is None)
    n = eval_size(config, split)
    indices = choose(split, plan.eval_name, n, config.seed)
    source, target = sides

    def score(what: str, side: Loaded, head: Tensor) -> Score:
        samples = track(samples_of(split, indices, plan.task), f"Evaluating {what}", n)
        return Score(**workspace.once(what, lambda: asdict(
            accuracy(plan.family, side, head, samples, 4 * config.batch_size))))

    def with_delta(what: str, delta: Tensors) -> Score:
        with holding(target.model, added(weights, delta, config.alpha)):
            return score(what, target, heads[1])

    ported, naive = moved
    return Evaluation(plan.eval_name, score("the source", source, heads[0]), score("the target", target, heads[1]),
                      with_delta("the naive copy", naive.delta), with_delta("the port", ported.delta))


def _task_vector_record(ratio: float, whole: Account, moved: list[Moved]) -> dict[str, Any]:
    """How large τ is, what share of ‖τ‖² the pairs take, and what of the weights lies inside the span of their maps."""
    taken = sum(entry.norm**2 for entry in moved)
    kept = sum(entry.kept * entry.norm**2 for entry in moved)
    return {"relative_norm": ratio, "moved_share": whole.moved_share, "kept_share": kept / taken if taken else 1.0}


def redo(config: PortConfig, plan: Blueprint) -> str:
    """The command that does this port again, with every input pinned."""
    def ref(pinned: Pinned) -> str:
        return f"{pinned.name}@{pinned.commit}" if pinned.commit else f"./{pinned.name}"

    lineage = plan.lineage
    words = ["hf-bico", "port", ref(lineage.source), "--base", ref(lineage.base), "--to", ref(lineage.target),
             "--dataset", ref(lineage.dataset), "--split", config.split, "--eval-split", plan.eval_name,
             "-n", str(config.n), "--seed", str(config.seed), "--method", config.method, "--alpha", repr(config.alpha)]
    for option in config.method_options:
        words += ["--set", option]
    optional = {"--config": config.config, "--eval-n": config.eval_n, "--image-column": config.image_column,
                "--label-column": config.label_column, "--templates": config.templates and config.templates.name,
                "--bank": config.bank and config.bank.name}
    for option, value in optional.items():
        words += [option, str(value)] if value is not None else []
    return shlex.join([*words, "--output", "ported"])


def _deliver(config: PortConfig, hub: Hub, plan: Blueprint, target: Path, ported: Transported,
             report: dict[str, Any], evaluation: Evaluation, track: Track) -> Outcome:
    """Write the folder, with its card and report, and push it."""
    url = refusal = None
    if plan.destination and evaluation.regressed and not config.allow_regression:
        refusal = (f"not pushed: the port scores {evaluation.ported.accuracy:.1%}, below the target's zero-shot "
                   f"{evaluation.zero_shot.accuracy:.1%}; --allow-regression pushes it all the same")
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
            write_model(stage, plan.family, target, plan.lineage.target.files, ported.delta, config.alpha)
            write_report(stage, report)
            write_card(stage, report, plan.family, destination and destination.repo, plan.licenses)
        try:
            for to in track([destination] if destination else [], "Pushing", 1):
                url = _push(config, hub, plan, to, place)
        except PortError as error:
            stack.pop_all()  # it took long to make
            raise PortError(f"{error} (the port is kept in {place})") from error
    return Outcome(report, evaluation, config.output, url, refusal)


def _push(config: PortConfig, hub: Hub, plan: Blueprint, destination: Destination, place: Path) -> str:
    message = config.commit_message or f"Port {plan.lineage.source.name} to {plan.lineage.target.name}"
    return hub.push(place, destination.repo, parent=destination.parent, message=message, private=config.private,
                    create_pr=config.create_pr)
