"""The maps between two bases alone, made once and kept: every fine-tune of the first can be ported over them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from hf_bico import __version__
from hf_bico.core.chain import gather
from hf_bico.core.device import held
from hf_bico.core.errors import PortError
from hf_bico.core.method import Method, Track, untracked
from hf_bico.core.methods.two_sided import TwoSided
from hf_bico.core.pairing import Blocks, by_index, matched, read_matching
from hf_bico.core.types import Pair, Signal
from hf_bico.families.heads import fresh
from hf_bico.io.changes.source import fetch, open_model
from hf_bico.io.checkpoints import SafeTensors, require_finite
from hf_bico.io.fingerprint import Fingerprint, fingerprint
from hf_bico.io.hub import Hub
from hf_bico.io.maps.files import SCHEMA, SHARD_NAME, write_maps_record
from hf_bico.io.maps.shards import DTYPES, Shards
from hf_bico.io.workspace import Workspace
from hf_bico.reports.card import write_maps_card
from hf_bico.reports.memory import bytes_of
from hf_bico.reports.plain import to_plain
from hf_bico.reports.records import BankRecord, Environment, MethodRecord
from hf_bico.reports.report import MapsReport
from hf_bico.tasks.heads import Placed, make_head
from hf_bico.tasks.samples import Draw
from hf_bico.workflows.bases import make_bases_plan
from hf_bico.workflows.blocks import match_blocks
from hf_bico.workflows.choices import CKA, INDEX
from hf_bico.workflows.config import AlignConfig
from hf_bico.workflows.deliver import Delivery
from hf_bico.workflows.dry_run import groups_within
from hf_bico.workflows.plan import Plan, matching_record
from hf_bico.workflows.redo import redo_align
from hf_bico.workflows.run import Run
from hf_bico.workflows.session import Session, asked_of, models_key, open_asked


@dataclass(frozen=True)
class Aligned:
    """Maps that were made, and where they are."""

    record: dict[str, Any]
    output: Path
    url: str | None


@dataclass(frozen=True)
class Kept:
    """What the folder of maps holds."""

    files: dict[str, dict[str, Any]]
    maps: list[dict[str, Any]]
    left: dict[str, str]
    """Tower → why there are no maps of it."""
    paths: dict[str, Blocks]
    """Tower → the base's block for every block of the target, also for those that have no maps."""


def run(config: AlignConfig, hub: Hub, track: Track = untracked) -> Aligned:
    """Make the maps from one base to another, in the config's `output`.

    Raises:
        PortError: whatever stands in the way; nothing is written or pushed then.
    """
    running = Run(hub, track)
    with running.clock("resolve"):
        plan = make_bases_plan(config, hub)
        memory, before = bytes_of(config.memory), held(plan.models.device)
        groups_within(plan, memory, before)
    delivery = Delivery("maps are", config.output, plan.destination, SHARD_NAME, config.overwrite)
    delivery.require_room(DTYPES[config.map_dtype].itemsize * numbers_of(plan.method, plan.models.pairs))
    session, prints = open_bases(plan, running)
    with running.clock("draw"):
        drawn = session.draw(track)
        session, found = match_blocks(session, config, drawn, track)
    told: list[MapsReport] = []

    def fill(stage: Path, repo: str | None) -> None:
        stage.mkdir()
        shards, left = Shards(stage, DTYPES[config.map_dtype]), dict(plan.left)
        for part in parts_of(session):
            left |= _keep(part, drawn, prints, shards, running, groups_within(part.plan, memory, before))
        kept = Kept(shards.files, shards.rows, left, _paths(config, session, left, found))
        told.append(_report(config, session, drawn, prints, kept, found, running))
        write_maps_record(stage, told[0].to_json())
        write_maps_card(stage, told[0], repo, hub.api.endpoint)

    url = delivery.send(fill, hub, track)
    return Aligned(told[0].to_json(), config.output, url)


def numbers_of(method: Method, pairs: Sequence[Pair]) -> int:
    """Return the most numbers that the factors have; pairs that read one input share its factor."""
    assert isinstance(method, TwoSided)  # as all are whose maps can be kept
    left, right = method.sides
    inputs = {pair.streams(Signal.INPUT): pair for pair in pairs}
    outputs = sum(a.d_out * b.d_out for a, b in pairs if left)
    return outputs + sum(a.d_in * b.d_in for a, b in inputs.values() if right)


def open_bases(plan: Plan, run: Run) -> tuple[Session, tuple[Fingerprint, Fingerprint]]:
    """Return the session of both bases, live, and their fingerprints.

    Raises:
        PortError: weights that do not fit or are broken.
    """
    models, pinned = plan.models, plan.lineage.models[1:]
    with run.clock("download"):
        folders = [fetch(models.library, each, run.hub) for each in run.track(pinned, "Downloading", 2)]
    with run.clock("load"):
        own, theirs = (
            fingerprint(SafeTensors.of(models.library, *each), full=True) for each in zip(pinned, folders, strict=True)
        )
        sides = (models.base, models.target)
        tensors = [open_model(models.library, *each) for each in zip(sides, folders, strict=True)]
        for each, read in zip(pinned, tensors, strict=True):
            require_finite(each, read)
        base, target = (open_asked(plan, *each) for each in zip(sides, folders, strict=True))
        placed = Placed(base, target)
    head = make_head(models.head, plan.samples.task, plan.samples.size, models.layers, _gains(plan, tensors[0]))
    weights = tensors[1].without(models.layers.target_keys)
    places = (folders[0], folders[0], folders[1])
    return Session(plan, places, {}, None, weights, head, placed), (own, theirs)


def _gains(plan: Plan, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the base's gains in a head that either base lacks: its own if its files have them, else a fresh norm's."""
    state = plan.models.base.skeleton.state_dict()
    return {a: tensors[a] if a in tensors else fresh(a, state[a].shape) for a, _ in plan.models.layers.gains}


def parts_of(session: Session) -> Iterator[Session]:
    """Yield a session of what always runs, and then one of the towers that need not.

    The second has another loss, with a prompt for every sample; a port whose fine-tune left these towers alone does not
    take that loss.
    """
    models = session.plan.models
    towers = {pair.target.tower for pair in models.pairs}
    for dropped in (models.optional_towers, towers - models.optional_towers):
        part = replace(session.plan, models=models.without(dropped))
        if part.models.pairs:
            base, target = (asked_of(part, each.loaded) for each in (session.base, session.target))
            yield replace(session, plan=part, placed=Placed(base, target))


def _keep(
    part: Session,
    drawn: Draw,
    prints: Sequence[Fingerprint],
    shards: Shards,
    run: Run,
    groups: Sequence[slice] | None,
) -> dict[str, str]:
    """Make a part's maps and write them; return, by tower, why there are none of one that need not run.

    Args:
        groups: of layers whose maps are made one after the other; None: all at once.

    Raises:
        PortError: what `gather` and the method's plan refuse, for the part that must run.
    """
    pairs, method, before = part.plan.models.pairs, part.plan.method, len(shards.rows)
    try:
        with run.clock("draw"):
            part = part.with_head(drawn, run.track)
        workspace, job = Workspace(_key(part, drawn, prints)), part.job(drawn)
        for group in groups or (slice(0, len(pairs)),):
            with run.clock("calibrate"):
                own = workspace if groups is None else workspace.group(f"{group.start}-{group.stop}")
                seen = gather(job, method.wanted, group=group, resume=own, track=run.track)
            with run.clock("move"):
                maps = method.share(pairs, seen, group)
                for pair, map_ in run.track(maps, "Writing maps", len(pairs[group])):
                    shards.add(pair, map_)
        shards.flush()
    except PortError as error:
        if not before:
            raise
        shards.forget_after(before)
        return dict.fromkeys((pair.target.tower for pair in pairs), str(error))
    workspace.clear()
    return {}


def _key(part: Session, drawn: Draw, prints: Sequence[Fingerprint]) -> dict[str, Any]:
    """Return all that a part's statistics depend on."""
    plan, samples = part.plan, part.plan.samples
    pairs = [[a.name, b.name] for a, b in plan.models.pairs]
    return {
        "hf_bico": __version__,
        "maps": [each.full for each in prints],
        "models": models_key(part),
        "head": plan.models.head,
        "method": [plan.method.name, plan.method.options, samples.size, pairs],
        "calibration": [drawn.sha256, asdict(samples.task), samples.bank, samples.max_length],
    }


def _report(
    config: AlignConfig,
    session: Session,
    drawn: Draw,
    prints: Sequence[Fingerprint],
    kept: Kept,
    found: dict[str, Any] | None,
    run: Run,
) -> MapsReport:
    """Return the report of maps: all that a port needs to know of them, and a reader to judge them."""
    plan, samples, dataset = session.plan, session.plan.samples, session.plan.lineage.dataset
    source, target = (
        {
            "name": each.name,
            "commit": each.commit,
            "local": each.folder is not None,
            "fingerprint": mark.record(),
        }
        for each, mark in zip(plan.lineage.models[1:], prints, strict=True)
    )
    bank = BankRecord.of(samples.bank)
    calibration = {
        "dataset": dataset.name,
        "commit": dataset.commit,
        "local": dataset.folder is not None,
        "config": samples.dataset.config,
        "head": plan.models.head,
        "purpose": plan.models.purpose.kind,
        **drawn.record(),
        **samples.task.record(),
        **({"bank": to_plain(bank)} if bank else {}),
    }
    return MapsReport(
        schema=SCHEMA,
        command=redo_align(config, plan).command,
        source=source,
        target=target,
        method=MethodRecord.of(plan.method),
        calibration=calibration,
        matching=matching_record(config, found) | {"paths": kept.paths},
        left=kept.left,
        files=kept.files,
        maps=kept.maps,
        environment=Environment.of(plan.models.device, run.clock.seconds),
    )


def _paths(
    config: AlignConfig, session: Session, left: Mapping[str, str], found: dict[str, Any] | None
) -> dict[str, Blocks]:
    """Return the layer matching of every tower that has maps, whatever `layers` and `skip` leave out."""
    if config.matching == CKA and found:
        paths = {tower: list(path) for tower, path in found["paths"].items()}
    else:
        models = session.plan.models
        rule = by_index if config.matching == INDEX else read_matching(Path(config.matching))
        towers = models.optional_towers & left.keys()
        own, theirs = (
            [site for site in model.sites(every=True) if site.tower not in towers]
            for model in (models.base, models.target)
        )
        paths = {tower: list(path) for tower, path in matched(own, theirs, rule).items()}
    return {tower: path for tower, path in paths.items() if tower not in left}
