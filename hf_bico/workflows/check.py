"""`hf-bico check`: what a port would move and cost, and whether it is worth its while. Nothing is written."""

import shlex
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import Any

from huggingface_hub import errors as hub_errors

from hf_bico import __version__
from hf_bico.core.errors import PortError
from hf_bico.core.methods import Track, method_of, untracked
from hf_bico.core.pairing import depths_of
from hf_bico.core.transport import Account, part_of
from hf_bico.core.types import Pair, Tensors
from hf_bico.io.changes.source import fetch, read_change
from hf_bico.io.hub import Hub
from hf_bico.io.models import Outline, RepoModel, base_of, repo_models
from hf_bico.reports.estimate import estimate, retimed
from hf_bico.reports.report import SCHEMA, Clock, environment, layer_table
from hf_bico.reports.verdict import Grade, Verdict, impossible, judge, unseen
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.plan import (
    Blueprint,
    draft,
    eval_size,
    matching_of,
    matching_record,
    outline_of,
    work_of,
)
from hf_bico.workflows.session import prepare, within_memory
from hf_bico.workflows.trial import Found, explore

SAMPLES = 50
"""That are looked at unless told otherwise."""
FEWEST = 4
PORTED = 100
"""Samples of the port whose cost is told."""
RIVALS, WITHOUT_LOSS = ("best", "naive", "few-shot"), ("theseus", "naive")
"""What a port that may not be worth its while is compared with; the latter where there are no labels."""


@dataclass(frozen=True)
class CheckConfig:
    """Every choice of a check."""

    port: PortConfig
    """With an empty `dataset` for models alone. Its N is what is looked at."""

    @property
    def n(self) -> int:
        return self.port.n or SAMPLES


def run(config: CheckConfig, hub: Hub, track: Track = untracked) -> dict[str, Any]:
    """All that is found, as plain data.

    Raises:
        PortError: what a user can mend: a repo that is not there, an option, the dataset. That two models do not go
            together is no error here but the verdict.
    """
    clock, port = Clock(), config.port
    method = method_of(port.method, port.method_options)
    matching_of(port)
    with clock("resolve"):
        source = hub.resolve(port.source)
        pinned = (source, hub.resolve(port.base or base_of(source, hub)), hub.resolve(port.target))
    data = {
        "schema": SCHEMA,
        "hf_bico": __version__,
        "lineage": {
            role: {"name": each.name, "commit": each.commit, "local": each.folder is not None}
            for role, each in zip(("source", "base", "target"), pinned, strict=True)
        },
    }
    try:
        with clock("headers"):
            library, purpose, models = repo_models(pinned, hub, port.family)
            plan = outline_of(port, library, purpose, models, port.head or "transport", method)
        data |= {"models": _models(plan), "pairs": layer_table(plan.pairs)}
        with clock("download"):
            folders = [fetch(plan, each, hub) for each in track(pinned, "Downloading", 3)]
        with clock("task vector"):
            weighed = read_change(plan, folders)
        plan = weighed.plan
    except PortError as error:
        if _elsewhere(error):
            raise
        return data | _end(config, impossible(str(error)), clock)
    data |= {
        "pairs": layer_table(plan.pairs),
        "task_vector": shares(weighed.tau, plan.pairs, weighed.account, weighed.ratio),
    }
    if not port.dataset:
        cost = estimate(work_of(port, plan, PORTED, 0), plan.device)
        return data | {"estimate": asdict(cost)} | _end(config, unseen(), clock)
    return data | _with_samples(config, hub, track, clock)


def _with_samples(config: CheckConfig, hub: Hub, track: Track, clock: Clock) -> dict[str, Any]:
    """What the samples show."""
    port = replace(config.port, n=None if config.port.per_class else config.n)
    with clock("resolve"):
        plan = draft(port, hub)
    if plan.calibration.size(len(plan.task.class_names)) < FEWEST:
        raise PortError(
            f"a check makes a port of one half of its samples and tries it on the other: give -n {FEWEST} or more"
        )
    ready = prepare(plan, hub, track, clock)
    with clock("draw"):
        drawn = ready.draw(port, plan.calibration, track)
        matched = ready.match(port, drawn, port.batch_size, track)
        ready.equip(drawn, port.batch_size, track)
    with clock("samples"), within_memory():
        found = explore(ready, drawn, port.batch_size, track, matched)
    plan, n = ready.plan, len(drawn.samples)
    cost = estimate(work_of(port, plan, PORTED, eval_size(port, plan.eval_split)), plan.device)
    cost = retimed(cost, _stages(found, n, eval_size(port, plan.eval_split)))
    verdict = judge(found.signs, found.trial, n)
    return {
        "lineage": plan.lineage.record(ready.hashes),
        "estimate": asdict(cost),
        "matching": matching_record(port, matched),
        "samples": drawn.record(),
        "signs": asdict(found.signs),
        "trial": found.trial and asdict(found.trial),
        "scores": {name: score and asdict(score) for name, score in found.scores.items()},
        "cka": {tower: matrix.tolist() for tower, matrix in found.cka.items()},
        "blocks": found.blocks,
    } | _end(config, verdict, clock, plan)


def _stages(found: Found, n: int, scored: int) -> dict[str, float]:
    """Seconds of a port of `PORTED` samples, scored on so many, from what n took."""
    took = found.seconds
    return {
        "calibrate": took["collect"] * PORTED / n,
        "move": took["move"],
        "evaluate": (3 * took["score target"] + took["score source"]) * scored / n,
    }


def _end(config: CheckConfig, verdict: Verdict, clock: Clock, plan: Blueprint | None = None) -> dict[str, Any]:
    device, rows = (plan.device, plan.split.num_rows) if plan else ("cpu", PORTED)
    rivals = RIVALS if plan is None or plan.head != "none" else WITHOUT_LOSS
    return {
        "verdict": asdict(verdict) | {"next": next_command(config.port, verdict.grade, min(PORTED, rows), rivals)},
        "environment": environment(device, clock),
    }


def next_command(port: PortConfig, grade: Grade, n: int, rivals: Sequence[str] = ()) -> str:
    """What to do about a verdict, with n samples; `rivals` are what a doubtful port is compared with."""
    plain = PortConfig("", "", "")
    named = (
        "base",
        "config",
        "split",
        "eval_split",
        "columns",
        "templates",
        "max_length",
        "head",
        "family",
        "matching",
        "layers",
        "skip",
    )
    words = [
        "--to",
        port.target,
        *(["--dataset", port.dataset] if port.dataset else []),
        *(
            str(word)
            for name in named
            if getattr(port, name) != getattr(plain, name)
            for word in (f"--{name.replace('_', '-')}", getattr(port, name))
        ),
        *(["--streaming"] if port.streaming else []),
    ]
    if grade is Grade.IMPOSSIBLE:
        return ""
    if not port.dataset:
        return shlex.join(["hf-bico", "check", port.source, *words]) + " --dataset DATASET"
    if grade is Grade.GOOD:
        method = ["--method", port.method] if port.method != plain.method else []
        method += [word for option in port.method_options for word in ("--set", option)]
        return shlex.join(["hf-bico", "port", port.source, *words, *method, "-n", str(n), "--output", "ported"])
    methods = dict.fromkeys((port.method, *rivals))
    return shlex.join(
        [
            "hf-bico",
            "compare",
            port.source,
            *words,
            "-n",
            str(n),
            *(word for name in methods for word in ("--method", name)),
        ]
    )


def _elsewhere(error: BaseException | None) -> bool:
    """Whether the network or the Hub is to blame, and not the models."""
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


def _models(plan: Outline) -> dict[str, dict[str, Any]]:
    def record(each: RepoModel) -> dict[str, Any]:
        sites = each.sites()
        widths = sorted({(s.d_out, s.d_in) for s in sites})
        return {
            "family": each.family.name,
            "purpose": plan.purpose.kind,
            "blocks": depths_of(sites),
            "linear_maps": len(sites),
            "width": min(min(pair) for pair in widths),
            "parameters": sum(prod(each.shapes[key].shape) for key in each.shapes),
        }

    return {role: record(each) for role, each in zip(("source", "base", "target"), plan.models, strict=True)}


def shares(tau: Tensors, pairs: Iterable[Pair], ledger: Account, ratio: float) -> dict[str, Any]:
    """Where τ lies, in shares of ‖τ‖²: what moves, by role and by block of the source, and what stays, by reason."""
    moving: dict[Any, Pair] = {}
    for pair in pairs:
        moving.update((s, pair) for s in pair.moving)
    total = ledger.moved_norm**2 + sum(entry.norm**2 for entry in ledger.left) or 1.0
    roles, blocks = defaultdict(float), defaultdict(float)
    for where, (site, _) in moving.items():
        part = float(part_of(tau, where).norm()) ** 2 / total
        roles[site.role] += part
        blocks[_block(site.tower, site.depth)] += part
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
    """How a block is called in tables."""
    return " ".join(filter(None, (tower, "outside the blocks" if depth is None else f"block {depth}")))
