"""The chain: blueprint → τ → collect → plan and move → evaluate → write → card → push."""

import shlex
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from torch import Tensor

from hf_bico.api import class_loss
from hf_bico.blueprint import Blueprint, PortConfig, check_weights, draft
from hf_bico.card import write_card
from hf_bico.core.collect import Batch, Side, collect
from hf_bico.core.methods import Method, Naive
from hf_bico.core.moments import Evidence
from hf_bico.core.transport import Left, Moved, Transported, account, added, check_fine_tune, holding, transport
from hf_bico.core.types import Tensors
from hf_bico.data import Draw, choose, draw, samples_of
from hf_bico.evaluate import Score, accuracy, batched, stack
from hf_bico.families import Loaded
from hf_bico.io.checkpoints import SafeTensors, pick_device
from hf_bico.io.hub import Hub
from hf_bico.io.reference import Pinned, sha256
from hf_bico.io.writer import require_room, staged, write_model
from hf_bico.report import Clock, Evaluation, Report, environment, layer_table, write_report

Track = Callable[[Iterable, str, int], Iterable]
"""(items, what, how many) → the same items, shown as they pass."""


@dataclass(frozen=True)
class Outcome:
    """A finished port."""

    report: dict[str, Any]
    evaluation: Evaluation
    output: Path | None
    url: str | None
    refusal: str | None
    """Why it was not pushed although a push was asked for."""


def run(config: PortConfig, hub: Hub, track: Track = lambda items, what, total: items) -> Outcome:
    """The whole port.

    Raises:
        PortError: whatever stands in the way; nothing is written or pushed then.
    """
    clock = Clock()
    with clock("resolve"):
        plan = draft(config, hub)
        device = pick_device(config.device)
    with clock("download"):
        folders = _fetch(plan, hub)
    tuned, base, target = (SafeTensors(folder / plan.family.weights_file) for folder in folders)
    with clock("task vector"):
        tau = check_weights(plan, tuned, base, target)
        ratio = check_fine_tune(tau, base, plan.source_sites)
        left = account(tau, plan.pairs, plan.family.left_reason, plan.source_sites)
    room = sum(prod(target[key].shape) * target[key].element_size() for key in target)
    require_room(config.output or Path(tempfile.gettempdir()) / "hf-bico-output", room)
    with clock("load"):
        sides = [plan.family.load(folder, device) for folder in folders[1:]]
        drawn = draw(plan.split, config.split, plan.task, config.n, config.seed)
    with clock("calibrate"):
        evidence = _calibrate(config, plan, sides, drawn, track)
    with clock("move"):
        ported, naive = (_move(plan, tau, method, evidence, target, track) for method in (plan.method, Naive()))
        del evidence
    with clock("evaluate"):
        sides[0] = plan.family.load(folders[0], device)  # the base has done its part: the fine-tune takes its place
        evaluation = _evaluate(config, plan, sides, (ported, naive), track)
    del sides
    report = Report(
        command=redo(config, plan), lineage=plan.lineage.record(_hashes(plan, folders)),
        method={"name": plan.method.name, "citation": plan.method.citation, "options": asdict(plan.method),
                "alpha": config.alpha},
        calibration=drawn.record() | asdict(plan.task) | {"config": plan.dataset.config},
        task_vector=_task_vector_record(ratio, ported.moved, left), layers=layer_table(plan.pairs), moved=ported.moved,
        left=left, evaluation=evaluation, environment=environment(device, clock)).data()
    return _deliver(config, hub, plan, folders[2], ported, report, evaluation)


def _calibrate(config: PortConfig, plan: Blueprint, sides: list[Loaded], drawn: Draw, track: Track) -> Evidence:
    losses = [Side(side.model, class_loss(_head(plan, side))) for side in sides]
    return collect(*losses, plan.pairs, _batches(drawn, sides, config.batch_size, track), plan.method.signals)


def _head(plan: Blueprint, side: Loaded) -> Tensor:
    return plan.family.head(side, plan.task.class_names, plan.task.templates)


def _fetch(plan: Blueprint, hub: Hub) -> list[Path]:
    names = (plan.family.config_file, plan.family.weights_file, *plan.family.extra_files)
    return [hub.fetch(pinned, names) for pinned in (plan.lineage.source, plan.lineage.base, plan.lineage.target)]


def _batches(drawn: Draw, sides: list[Loaded], size: int, track: Track) -> Iterator[Batch]:
    total = -(-len(drawn.samples) // size)
    for samples in track(batched(drawn.samples, size), "Calibrating", total):
        yield Batch(*(stack(side, samples) for side in sides))


def _move(plan: Blueprint, tau: Tensors, method: Method, evidence: Evidence, target: Tensors,
          track: Track) -> Transported:
    maps = track(method.plan(plan.pairs, evidence), f"Moving τ ({method.name})", len(plan.pairs))
    return transport(tau, maps, target)


def _evaluate(config: PortConfig, plan: Blueprint, sides: list[Loaded], moved: tuple[Transported, Transported],
              track: Track) -> Evaluation:
    split = plan.dataset.split(plan.eval_split)
    n = split.num_rows if config.eval_n is None else config.eval_n
    indices = choose(split, plan.eval_split, n, config.seed)
    source, target = sides
    heads = [_head(plan, side) for side in sides]

    def score(what: str, side: Loaded, head: Tensor) -> Score:
        samples = track(samples_of(split, indices, plan.task), f"Evaluating {what}", n)
        return accuracy(plan.family, side, head, samples, 4 * config.batch_size)

    def with_delta(what: str, delta: Tensors) -> Score:
        with holding(target.model, added(target.model.state_dict(), delta, config.alpha)):
            return score(what, target, heads[1])

    ported, naive = moved
    return Evaluation(plan.eval_split, score("the source", source, heads[0]), score("the target", target, heads[1]),
                      with_delta("the naive copy", naive.delta), with_delta("the port", ported.delta))


def _task_vector_record(ratio: float, moved: list[Moved], left: list[Left]) -> dict[str, Any]:
    """Shares of ‖τ‖²: what the pairs take, and what of that lies inside the span of their maps."""
    taken = sum(entry.norm**2 for entry in moved)
    kept = sum(entry.kept * entry.norm**2 for entry in moved)
    rest = sum(entry.norm**2 for entry in left)
    return {"relative_norm": ratio, "moved_share": taken / (taken + rest), "kept_share": kept / taken if taken else 1.0}


def _hashes(plan: Blueprint, folders: list[Path]) -> dict[str, str]:
    return {role: sha256(folder / plan.family.weights_file)
            for role, folder in zip(("source", "base", "target"), folders, strict=True)}


def redo(config: PortConfig, plan: Blueprint) -> str:
    """The command that does this port again, with every input pinned."""
    def ref(pinned: Pinned) -> str:
        return f"{pinned.name}@{pinned.commit}" if pinned.commit else f"./{pinned.name}"

    lineage = plan.lineage
    words = ["hf-bico", "port", ref(lineage.source), "--base", ref(lineage.base), "--to", ref(lineage.target),
             "--dataset", ref(lineage.dataset), "--split", config.split, "--eval-split", plan.eval_split,
             "-n", str(config.n), "--seed", str(config.seed), "--method", config.method, "--alpha", f"{config.alpha:g}"]
    optional = {"--config": config.config, "--eval-n": config.eval_n, "--image-column": config.image_column,
                "--label-column": config.label_column, "--templates": config.templates and config.templates.name}
    for option, value in optional.items():
        words += [option, str(value)] if value is not None else []
    return shlex.join([*words, "--output", "ported"])


def _deliver(config: PortConfig, hub: Hub, plan: Blueprint, target: Path, ported: Transported,
             report: dict[str, Any], evaluation: Evaluation) -> Outcome:
    """Write the folder, with its card and report, and push it."""
    url = refusal = None
    if plan.destination and evaluation.regressed and not config.allow_regression:
        refusal = (f"not pushed: the port scores {evaluation.ported.accuracy:.1%}, below the target's zero-shot "
                   f"{evaluation.zero_shot.accuracy:.1%}; --allow-regression pushes it all the same")
    with ExitStack() as stack:
        place = config.output
        if place is None:
            if plan.destination is None or refusal:
                return Outcome(report, evaluation, None, None, refusal)
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hf-bico-"))) / "model"
        with staged(place) as stage:
            write_model(stage, plan.family, target, plan.lineage.target.files, ported.delta, config.alpha)
            write_report(stage, report)
            write_card(stage, report, plan.family, plan.destination and plan.destination.repo, _licenses(plan, hub))
        if plan.destination and not refusal:
            message = config.commit_message or f"Port {plan.lineage.source.name} to {plan.lineage.target.name}"
            url = hub.push(place, plan.destination.repo, parent=plan.destination.parent, message=message,
                           private=config.private, create_pr=config.create_pr)
    return Outcome(report, evaluation, config.output, url, refusal)


def _licenses(plan: Blueprint, hub: Hub) -> list[str]:
    """Licences of the target and the source, the target's first."""
    found = [hub.card(pinned).license for pinned in (plan.lineage.target, plan.lineage.source)]
    return [name for name in dict.fromkeys(found) if name]
