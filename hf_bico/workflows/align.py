"""The maps between two bases alone, made once and kept: every fine-tune of the first can be ported over them."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from hf_bico import __version__
from hf_bico.core.errors import PortError
from hf_bico.core.methods import Method, Track, untracked
from hf_bico.core.moments import Statistics
from hf_bico.core.pairing import Blocks, by_index, matched, read_matching
from hf_bico.core.transport import Account
from hf_bico.core.types import Pair, Signal
from hf_bico.families.heads import fresh
from hf_bico.io.changes.source import fetch, open_model
from hf_bico.io.checkpoints import SafeTensors, require_finite
from hf_bico.io.fingerprint import Fingerprint, fingerprint
from hf_bico.io.hub import Hub
from hf_bico.io.maps.files import SCHEMA, SHARD_NAME, Shards, write_record
from hf_bico.io.models import optional_towers
from hf_bico.io.workspace import Workspace
from hf_bico.io.writer import require_room, staged
from hf_bico.reports.maps_card import write_maps_card
from hf_bico.reports.report import Clock, bank_record, environment, method_record, stamp
from hf_bico.tasks.samples import Draw
from hf_bico.workflows.bases import Plan, draft
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.plan import CKA, Sampled, matching_record
from hf_bico.workflows.port import calibrate
from hf_bico.workflows.redo import drawing_words, given_words, method_words, ref
from hf_bico.workflows.session import Ready, asked_of, models_key


@dataclass(frozen=True)
class Aligned:
    """Maps that were made."""

    record: dict[str, Any]
    output: Path
    url: str | None


def run(config: PortConfig, hub: Hub, track: Track = untracked) -> Aligned:
    """The maps from one base, the config's `source`, to another, its `target`, in the config's `output`.

    Raises:
        PortError: whatever stands in the way; nothing is written or pushed then.
    """
    clock = Clock()
    with clock("resolve"):
        plan = draft(config, hub)
    require_room(config.output, size_of(plan.sampled.method, plan.sampled.pairs))
    ready, prints = opened(plan.sampled, hub, track, clock)
    with clock("draw"):
        drawn = ready.draw(config, plan.sampled.calibration, track)
        found = ready.match(config, drawn, config.batch_size, track)
    left = dict(plan.left)
    with staged(config.output) as stage:
        stage.mkdir()
        shards = Shards(stage)
        for part in parts_of(ready):
            left |= _keep(part, config, drawn, prints, shards, track, clock)
        data = record(config, ready, drawn, prints, shards, left, found, environment(ready.plan.device, clock))
        write_record(stage, data)
        write_maps_card(stage, data, plan.destination and plan.destination.repo, hub.api.endpoint)
    return Aligned(data, config.output, _push(config, hub, plan, track))


def size_of(method: Method, pairs: Sequence[Pair]) -> int:
    """Bytes of the factors in float32; pairs that read one input share its factor."""
    left, right = method.sides
    inputs = {pair.streams(Signal.INPUT): pair for pair in pairs}
    return 4 * (
        sum(a.d_out * b.d_out for a, b in pairs if left) + sum(a.d_in * b.d_in for a, b in inputs.values() if right)
    )


def opened(plan: Sampled, hub: Hub, track: Track, clock: Clock) -> tuple[Ready, tuple[Fingerprint, Fingerprint]]:
    """Both bases live, and what their files hold.

    Raises:
        PortError: weights that do not fit or are broken.
    """
    pinned, models = plan.lineage.models[1:], plan.models[1:]
    with clock("download"):
        folders = [fetch(plan, each, hub) for each in track(pinned, "Downloading", 2)]
    with clock("load"):
        prints = tuple(
            fingerprint(SafeTensors.of(plan.library, *each), full=True) for each in zip(pinned, folders, strict=True)
        )
        tensors = [open_model(plan.library, *each) for each in zip(models, folders, strict=True)]
        for each, read in zip(pinned, tensors, strict=True):
            require_finite(each, read)
        sides = [plan.library.load(folder, plan.device, plan.purpose) for folder in folders]
        objectives = tuple(asked_of(plan, side) for side in sides)
        gains = _gains(plan, tensors[0])
    return Ready(
        plan,
        [folders[0], *folders],
        {},
        tensors[0],
        {},
        tensors[1].without(plan.head_layers.target_keys),
        gains,
        0.0,
        Account(0.0, []),
        sides,
        objectives,
    ), prints


def _gains(plan: Sampled, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the base's gains in a head that either base lacks: its own if its files have them, else a fresh norm's."""
    state = plan.models[1].skeleton.state_dict()
    return {a: tensors[a] if a in tensors else fresh(a, state[a].shape) for a, _ in plan.head_layers.gains}


def parts_of(ready: Ready) -> Iterator[Ready]:
    """What runs in any case, and then the towers that need not: their loss is another, with a prompt a sample, and a
    port of a fine-tune that left them alone has not that one."""
    plan, optional = ready.plan, optional_towers(ready.plan)
    for wanted in (False, True):
        pairs = tuple(pair for pair in plan.pairs if (pair.target.tower in optional) is wanted)
        if pairs:
            part = replace(plan, pairs=pairs)
            yield replace(ready, plan=part, objectives=tuple(asked_of(part, side) for side in ready.sides))


def _keep(
    part: Ready,
    config: PortConfig,
    drawn: Draw,
    prints: Sequence[Fingerprint],
    shards: Shards,
    track: Track,
    clock: Clock,
) -> dict[str, str]:
    """Make a part's maps and write them; of towers that need not run, why there are none, if there are none.

    Raises:
        PortError: as `collect` and the method's plan, of what must run.
    """
    pairs, before = part.plan.pairs, len(shards.rows)
    try:
        statistics, workspace = _gather(part, config, drawn, prints, track, clock)
        with clock("move"):
            for pair, map_ in track(part.plan.method.plan(pairs, statistics), "Writing maps", len(pairs)):
                shards.add(pair, map_)
            shards.flush()
    except PortError as error:
        if not before:
            raise
        shards.cut(before)
        return dict.fromkeys((pair.target.tower for pair in pairs), str(error))
    workspace.clear()
    return {}


def _gather(
    part: Ready, config: PortConfig, drawn: Draw, prints: Sequence[Fingerprint], track: Track, clock: Clock
) -> tuple[Statistics, Workspace]:
    """What the samples show of a part's pairs; an interrupted collection goes on where it was."""
    plan, size = part.plan, config.batch_size
    with clock("draw"):
        part.equip(drawn, size, track)
    workspace = Workspace(
        {
            "hf_bico": __version__,
            "maps": [each.full for each in prints],
            "models": models_key(part),
            "head": plan.head,
            "method": [plan.method.name, asdict(plan.method), size, [[a.name, b.name] for a, b in plan.pairs]],
            "calibration": [drawn.sha256, asdict(plan.task), plan.bank, config.max_length],
        }
    )
    statistics = workspace.statistics(plan.pairs, plan.method)
    with clock("calibrate"):
        calibrate(replace(part.job(drawn, size, track), statistics=statistics), workspace)
    return statistics, workspace


def record(
    config: PortConfig,
    ready: Ready,
    drawn: Draw,
    prints: Sequence[Fingerprint],
    shards: Shards,
    left: dict[str, str],
    found: dict[str, Any] | None,
    made_in: dict[str, Any],
) -> dict[str, Any]:
    """All that a port needs to know of the maps, and a reader to judge them."""
    plan = ready.plan
    models = {
        role: {"name": each.name, "commit": each.commit, "local": each.folder is not None, "fingerprint": mark.record()}
        for role, each, mark in zip(("source", "target"), plan.lineage.models[1:], prints, strict=True)
    }
    dataset = plan.lineage.dataset
    calibration = {
        "dataset": dataset.name,
        "commit": dataset.commit,
        "local": dataset.folder is not None,
        "config": plan.dataset.config,
        "head": plan.head,
        "purpose": plan.purpose.kind,
        **drawn.record(),
        **asdict(plan.task),
        **bank_record(plan.bank),
    }
    matching = matching_record(config, found) | {"paths": paths_of(config, ready, left, found)}
    return {
        **stamp(SCHEMA),
        "command": redo(config, plan),
        **models,
        "method": method_record(plan.method),
        "calibration": calibration,
        "matching": matching,
        "left": left,
        "files": shards.files,
        "maps": shards.rows,
        "environment": made_in,
    }


def paths_of(config: PortConfig, ready: Ready, left: dict[str, str], found: dict[str, Any] | None) -> dict[str, Blocks]:
    """What the rule says of every tower that has maps, whatever --layers and --skip leave out."""
    if config.matching == CKA:
        paths = {tower: list(path) for tower, path in found["paths"].items()}
    else:
        rule = by_index if config.matching == "index" else read_matching(Path(config.matching))
        towers = optional_towers(ready.plan) & left.keys()
        sides = (
            [site for site in model.sites(every=True) if site.tower not in towers] for model in ready.plan.models[1:]
        )
        paths = {tower: list(path) for tower, path in matched(*sides, rule).items()}
    return {tower: path for tower, path in paths.items() if tower not in left}


def redo(config: PortConfig, plan: Sampled) -> str:
    """The command that makes these maps again, with every input pinned."""
    lineage = plan.lineage
    words = [
        "hf-bico",
        "align",
        ref(lineage.base),
        ref(lineage.target),
        "--dataset",
        ref(lineage.dataset),
        "--split",
        config.split,
        *drawing_words(config, plan),
        *method_words(config),
        *given_words({"--head": config.head}),
    ]
    return shlex.join([*words, "--output", "maps"])


def _push(config: PortConfig, hub: Hub, plan: Plan, track: Track) -> str | None:
    """
    Raises:
        PortError: the push failed; the maps are kept.
    """
    url, lineage = None, plan.sampled.lineage
    message = config.commit_message or f"Maps from {lineage.base.name} to {lineage.target.name}"
    for to in track([plan.destination] if plan.destination else [], "Pushing", 1):
        try:
            stale = () if config.create_pr else [name for name in to.files if SHARD_NAME.fullmatch(name)]
            url = hub.push(
                config.output,
                to.repo,
                parent=to.parent,
                message=message,
                private=config.private,
                create_pr=config.create_pr,
                stale=stale,
            )
        except PortError as error:
            raise PortError(f"{error} (the maps are kept in {config.output})") from error
    return url
