"""`hf-bico check`: what a port would move and cost, and whether it is worth making. Nothing is written."""

from collections import defaultdict
from dataclasses import asdict, replace
from math import prod
from typing import Any

from huggingface_hub import errors as hub_errors

from hf_bico.core.account import Account
from hf_bico.core.errors import PortError, setting
from hf_bico.core.method import Method, Track, untracked
from hf_bico.core.methods import Auto, method_of
from hf_bico.core.notes import listening
from hf_bico.core.pairing import depths_of
from hf_bico.core.transport import part_of
from hf_bico.core.types import Pair, Tensors
from hf_bico.families.beside import groups_of
from hf_bico.families.heads import HeadKind
from hf_bico.io.aside import note_aside
from hf_bico.io.changes.source import fetch, read_change
from hf_bico.io.checkpoints import pick_device
from hf_bico.io.hub import Hub
from hf_bico.io.models import PortModels, RepoModel, repo_models
from hf_bico.io.reference import Pinned, require_new_weights
from hf_bico.reports.estimate import estimate, retimed
from hf_bico.reports.memory import bytes_of
from hf_bico.reports.records import CalibrationRecord, Environment, MatchingRecord, Origin, layer_table, origins
from hf_bico.reports.report import CheckReport
from hf_bico.reports.verdict import Verdict, impossible, judge, unseen
from hf_bico.tasks.columns import SampleKind
from hf_bico.tasks.samples import Draw
from hf_bico.tasks.scores import Score
from hf_bico.workflows.blocks import match_blocks
from hf_bico.workflows.chance import require_learnt
from hf_bico.workflows.config import CheckConfig
from hf_bico.workflows.dry_run import cost, work_of
from hf_bico.workflows.early import require_choices
from hf_bico.workflows.plan import (
    Plan,
    calibration_of,
    make_plan,
    matching_of,
    matching_record,
    paired,
    resolve_models,
)
from hf_bico.workflows.redo import next_command
from hf_bico.workflows.run import Run
from hf_bico.workflows.scoring import evaluator_of, open_source
from hf_bico.workflows.session import Session, hashes_of, open_session
from hf_bico.workflows.trial import Found, explore

SAMPLES = 50
"""How many samples are looked at unless told otherwise."""
FEWEST = 4
"""The fewest samples that can be looked at, a half at a time."""
PORTED = 100
"""Calibration samples of the port whose cost is estimated."""
RIVALS, WITHOUT_LOSS = ("weighted", "naive", "few-shot"), ("theseus", "naive")
"""Methods to compare a doubtful port with; the latter where there are no labels."""


def run(config: CheckConfig, hub: Hub, track: Track = untracked) -> dict[str, Any]:
    """Return all that is found, as plain JSON data.

    Raises:
        PortError: what a user can mend: a repo that is not there, an option, the dataset. That two models do not go
            together is not an error here but the verdict.
    """
    running = Run(hub, track)
    with listening(running.notes.append):
        return _run(config, running)


def _run(config: CheckConfig, running: Run) -> dict[str, Any]:
    """Return all that is found; see `run`."""
    method = method_of(config.method, config.method_options)
    if isinstance(method, Auto):
        raise PortError(
            f"a check tries one method: name it with {setting('method')}; a port tries them all unless it is told one"
        )
    require_choices(config)
    bytes_of(config.memory)
    with running.clock("resolve"):
        pinned = resolve_models(config, running.hub)
    report = CheckReport(lineage=_origins(pinned))
    try:
        models, hashes, report = _move(config, pinned, method, report, running)
    except PortError as error:
        if _elsewhere(error):
            raise
        return _ended(config, report, impossible(str(error)), running).to_json()
    require_new_weights(hashes, pinned[2])
    if not config.dataset:
        work = work_of(models, method, PORTED, config.max_length, config.batch_size)
        work = replace(work, memory=bytes_of(config.memory))
        report = replace(report, estimate=asdict(estimate(work, models.device)))
        return _ended(config, report, unseen(), running).to_json()
    return _with_samples(config, method, report, running).to_json()


def _origins(pinned: tuple[Pinned, Pinned, Pinned]) -> dict[str, Origin]:
    roles = zip(("source", "base", "target"), pinned, strict=True)
    return {role: Origin.of(each) for role, each in roles}


def _move(
    config: CheckConfig, pinned: tuple[Pinned, Pinned, Pinned], method: Method, report: CheckReport, run: Run
) -> tuple[PortModels, dict[str, str], CheckReport]:
    """Return what moves where, the sha256 of the three models' weights, and the report as far as it goes.

    Raises:
        PortError: the models do not go together.
    """
    with run.clock("headers"):
        library, purpose, found = repo_models(pinned, run.hub, config.family)
        note_aside(found, purpose.kind, run.hub)
        head = HeadKind(config.head or HeadKind.TRANSPORT)
        models = paired(
            library, purpose, found, head, matching_of(config), pick_device(config.device), groups_of(config.only)
        )
        method.check(models.pairs)
    with run.clock("download"):
        folders = [fetch(library, each, run.hub) for each in run.track(pinned, "Downloading", 3)]
    with run.clock("task vector"):
        models, change, _ = read_change(models, folders, trusted=config.trust_base)
        change = change.accounted(models)
    hashes = hashes_of(library, pinned, folders)
    return (
        models,
        hashes,
        replace(
            report,
            models=_models(models),
            pairs=layer_table(models.pairs),
            task_vector=shares(change.tau, models, change.account, change.ratio),
        ),
    )


def _with_samples(config: CheckConfig, method: Method, report: CheckReport, run: Run) -> CheckReport:
    """Return the report with what the samples show."""
    n = None if config.per_class else config.n or SAMPLES
    with run.clock("resolve"):
        calibration = calibration_of(replace(config, n=n))
        plan = make_plan(config, run.hub, {config.method: method}, calibration, bank=config.bank)
        method.check(plan.models.pairs)
    if plan.samples.n < FEWEST:
        raise PortError(
            f"a check makes a port from one half of its samples and tries it on the other: give {setting('n')} "
            f"{FEWEST} or more"
        )
    session = open_session(plan, run)
    with run.clock("draw"):
        drawn = session.draw(run.track)
        session, matched = match_blocks(session, config, drawn, run.track)
        session = session.with_head(drawn, run.track)
    try:
        if not config.allow_regression:
            require_learnt(session, drawn, lambda: _own_score(session, drawn, run))
    except PortError as error:
        return _ended(config, report, impossible(str(error)), run, plan)
    hashes, plan, n = session.hashes, session.plan, len(drawn.samples)
    with run.clock("samples"):
        found = explore(session, drawn, run.track, matched)
    expected = retimed(cost(plan, n=PORTED, memory=bytes_of(config.memory)), _stages(found, n, plan.scored.size))
    report = replace(
        report,
        lineage=origins(plan.lineage, hashes),
        estimate=asdict(expected),
        matching=MatchingRecord(**matching_record(config, matched)),
        samples=CalibrationRecord(**drawn.record()),
        signs=asdict(found.signs),
        trial=asdict(found.trial) if found.trial else None,
        scores=found.scores,
        cka={tower: matrix.tolist() for tower, matrix in found.cka.items()},
        blocks=found.blocks,
    )
    texts = plan.samples.task.columns.kind is not SampleKind.IMAGE
    return _ended(config, report, judge(found.signs, found.trial, n, texts=texts), run, plan)


def _own_score(session: Session, drawn: Draw, run: Run) -> Score:
    """Return the fine-tune's own score on the evaluation split."""
    return evaluator_of(session, [drawn], run.track).score("the source", open_source(session, drawn))


def _stages(found: Found, n: int, scored: int) -> dict[str, float]:
    """Return the seconds of a port of `PORTED` samples, scored on so many, by what n samples took."""
    took = found.seconds
    return {
        "calibrate": took["collect"] * PORTED / n,
        "move": took["move"],
        "evaluate": (3 * took["score target"] + took["score source"]) * scored / n,
    }


def _ended(
    config: CheckConfig, report: CheckReport, verdict: Verdict, run: Run, plan: Plan | None = None
) -> CheckReport:
    """Return the report with its verdict and the command to run next."""
    device, rows = (plan.models.device, plan.samples.split.num_rows) if plan else ("cpu", PORTED)
    rivals = WITHOUT_LOSS if plan and plan.models.head is HeadKind.NONE else RIVALS
    command = next_command(config, verdict, min(PORTED, rows), rivals)
    return replace(
        report,
        verdict=asdict(verdict) | {"next": command},
        environment=Environment.of(device, run.clock.seconds),
        notes=tuple(run.notes) or None,
    )


def _elsewhere(error: BaseException | None) -> bool:
    """Return whether the network or the Hub is to blame, and not the models."""
    outer = (
        hub_errors.HTTPError,
        hub_errors.HfHubHTTPError,
        hub_errors.LocalEntryNotFoundError,
        hub_errors.OfflineModeIsEnabled,
    )
    while error is not None:
        if isinstance(error, outer):
            return True
        error = error.__cause__
    return False


def _models(models: PortModels) -> dict[str, dict[str, Any]]:
    def record(each: RepoModel) -> dict[str, Any]:
        sites = each.sites()
        widths = sorted({(s.d_out, s.d_in) for s in sites})
        return {
            "family": each.family.name,
            "purpose": models.purpose.kind,
            "blocks": depths_of(sites),
            "linear_maps": len(sites),
            "width": min(min(pair) for pair in widths),
            "parameters": sum(prod(each.shapes[key].shape) for key in each.shapes),
        }

    return {role: record(each) for role, each in zip(("source", "base", "target"), models.each, strict=True)}


def shares(tau: Tensors, models: PortModels, ledger: Account, ratio: float) -> dict[str, Any]:
    """Return where τ lies, in shares of ‖τ‖²: what moves, by role and by block of the source, and what stays, by
    reason.
    """
    moving: dict[Any, Pair] = {}
    for pair in models.pairs:
        moving.update((s, pair) for s in pair.moving)
    total = ledger.moved_norm**2 + sum(entry.norm**2 for entry in ledger.left) or 1.0
    roles, blocks = defaultdict[str, float](float), defaultdict[str, float](float)
    for where, (site, _) in moving.items():
        part = float(part_of(tau, where).norm()) ** 2 / total
        roles[site.role] += part
        blocks[_block(site.tower, site.depth)] += part
    for rider in dict.fromkeys(ride.base for ride in models.beside().rides):
        part = float(tau[rider.key].norm()) ** 2 / total if rider.key in tau else 0.0
        if part:
            roles[rider.role] += part
            blocks[_block(rider.tower, rider.depth)] += part
    reasons: dict[str, list[float]] = defaultdict(list)
    for entry in ledger.left:
        reasons[entry.reason].append(entry.norm**2 / total)
    return {
        "relative_norm": ratio,
        "moved_share": ledger.moved_share,
        "by_role": dict(roles),
        "by_block": dict(blocks),
        "left": [{"reason": why, "tensors": len(parts), "share": sum(parts)} for why, parts in reasons.items()],
    }


def _block(tower: str, depth: int | None) -> str:
    """Return what tables call a block."""
    return " ".join(filter(None, (tower, "outside the blocks" if depth is None else f"block {depth}")))
