"""What is known of a port before any weight is read: every input pinned, every choice checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from hf_bico.core.errors import PortError, listed
from hf_bico.core.methods import Method, method_of
from hf_bico.core.pairing import pair_sites
from hf_bico.core.search import AUTO
from hf_bico.core.transport import Difference, check_scale
from hf_bico.core.types import Pair, Site, Tensors
from hf_bico.data import EVAL_SPLITS, Task, check_columns, check_draw, choose, classes_of, read_task
from hf_bico.estimate import Estimate, estimate
from hf_bico.families import FAMILIES, Family
from hf_bico.io.checkpoints import Shapes, check_shapes, pick_device, require_family
from hf_bico.io.hub import Hub
from hf_bico.io.reference import Pinned, about
from hf_bico.io.writer import require_room
from hf_bico.report import REPORT_FILE, Lineage
from hf_bico.splits import HubDataset, Split, lines
from hf_bico.strategies import Calibration


@dataclass(frozen=True)
class PortConfig:
    """Every choice of a port; the CLI's options, one to one."""

    source: str
    target: str
    dataset: str
    base: str | None = None
    config: str | None = None
    split: str = "train"
    eval_split: str | None = None
    eval_n: int | None = None
    image_column: str | None = None
    label_column: str | None = None
    templates: Path | None = None
    n: int | None = None
    """100 unless given."""
    per_class: int | None = None
    strategy: str | None = None
    seed: int = 0
    method: str = "bico"
    method_options: tuple[str, ...] = ()
    """Each as "name=value"."""
    bank: Path | None = None
    alpha: float | str = 1.0
    """A number, or "auto" for a line search."""
    batch_size: int = 8
    device: str | None = None
    output: Path | None = None
    push: bool = False
    push_to: str | None = None
    private: bool | None = None
    create_pr: bool = False
    commit_message: str | None = None
    allow_regression: bool = False


@dataclass(frozen=True)
class Destination:
    """Where a port will be pushed, and the commit that was that repo's head when the work began."""

    repo: str
    parent: str | None


@dataclass(frozen=True)
class Blueprint:
    """What is known of a port before any weight is read."""

    lineage: Lineage
    calibration: Calibration
    family: Family
    skeletons: tuple[nn.Module, nn.Module]
    source_sites: tuple[Site, ...]
    pairs: tuple[Pair, ...]
    method: Method
    bank: tuple[str, ...]
    """General prompts for gradients without labels; empty where the method takes none."""
    device: str
    dataset: HubDataset
    split: Split
    labels: np.ndarray
    """The class of every row of the split; zeros where the strategy does not ask."""
    task: Task
    eval_name: str
    eval_split: Split
    licenses: tuple[str, ...]
    """Of the target, then of the source, each once."""
    destination: Destination | None


def resolve(config: PortConfig, hub: Hub) -> Lineage:
    """Source, base, target and dataset as commits. The base is the one named, else that of the source's card.

    Raises:
        PortError: any of them is not to be had, or no base is known.
    """
    source = hub.resolve(config.source)
    return Lineage(source, hub.resolve(config.base or base_of(source, hub)), hub.resolve(config.target),
                   hub.resolve(config.dataset, "dataset"))


def base_of(source: Pinned, hub: Hub) -> str:
    """The base that the source's card names.

    Raises:
        PortError: it names none, or several.
    """
    named = hub.card(source).base_model
    names = [name for name in (named if isinstance(named, list) else [named]) if isinstance(name, str)]
    if len(names) != 1:
        what = "names no base_model" if not names else f"names several base models ({', '.join(names)})"
        raise PortError(f"the card of {source} {what}: say which model it was fine-tuned from with --base")
    return f"hf://{names[0]}"


def draft(config: PortConfig, hub: Hub) -> Blueprint:
    """Everything that can be checked without weights: families, pairs, shapes, data, destination.

    Raises:
        PortError: whatever is wrong, before any heavy work.
    """
    method = method_of(config.method, config.method_options)
    check_alpha(config.alpha)
    calibration = Calibration(config.n, config.per_class, config.strategy, config.seed)
    device = pick_device(config.device)
    lineage = resolve(config, hub)
    family = FAMILIES[0]
    for pinned in lineage.models:
        require_family(pinned, family)
    bank = read_bank(config.bank, {config.method: method}, family)
    configs = [hub.fetch(pinned, (family.config_file,)) for pinned in lineage.models]
    skeletons = []
    for pinned, folder in zip(lineage.models[1:], configs[1:], strict=True):
        with about(pinned):
            skeletons.append(family.skeleton(folder))
    sites = [family.sites(model) for model in skeletons]
    dataset = HubDataset(hub, lineage.dataset, config.config)
    split = dataset.split(config.split)
    columns = {"image": config.image_column, "label": config.label_column}
    task = read_task(dataset, split, columns, config.templates)
    labels = classes_of(split, task, calibration)
    check_draw(config.split, labels, task, calibration)
    eval_name = _eval_name(config, dataset)
    eval_split = dataset.split(eval_name)
    check_columns(eval_split, eval_name, task.columns)
    choose(eval_split, eval_name, eval_size(config, eval_split), config.seed)
    if config.output is not None:
        require_room(config.output, 0)
    pairs = pair_sites(*sites)
    method.check(pairs)
    return Blueprint(lineage, calibration, family, tuple(skeletons), sites[0], pairs, method, bank, device, dataset,
                     split, labels, task, eval_name, eval_split, _licenses(lineage, hub),
                     _destination(config, hub, lineage))


def check_alpha(alpha: float | str) -> None:
    """Refuse an α that is neither a finite number nor "auto"."""
    if isinstance(alpha, str) and alpha != AUTO:
        raise PortError(f"--alpha is a number or {AUTO}, not {alpha!r}")
    if alpha != AUTO:
        check_scale(alpha)


def _licenses(lineage: Lineage, hub: Hub) -> tuple[str, ...]:
    found = [hub.card(pinned).license for pinned in (lineage.target, lineage.source)]
    each = [str(name) for entry in found for name in (entry if isinstance(entry, list) else [entry]) if name]
    return tuple(dict.fromkeys(each))


def eval_size(config: PortConfig, split: Split) -> int:
    return split.num_rows if config.eval_n is None else config.eval_n


def read_bank(path: Path | None, methods: Mapping[str, Method], family: Family) -> tuple[str, ...]:
    """General prompts, a line each; none where no method takes gradients without labels."""
    if not any(method.draws for method in methods.values()):
        if path is not None:
            raise PortError(f"--bank is for gradients without labels, which {listed(list(methods))} does not take")
        return ()
    if path is None:
        return family.general_prompts()
    prompts = tuple(lines(path))
    if len(prompts) < 2:
        raise PortError(f"--bank {path} needs at least two prompts, a line each")
    return prompts


def _eval_name(config: PortConfig, dataset: HubDataset) -> str:
    found = [config.eval_split] if config.eval_split else [name for name in EVAL_SPLITS if name in dataset.splits]
    found = [name for name in found if name != config.split]
    if not found or found[0] not in dataset.splits:
        raise PortError(f"no split to evaluate on beside {config.split!r}: name one with --eval-split; "
                        f"{dataset.pinned} has {', '.join(dataset.splits)}")
    return found[0]


def _destination(config: PortConfig, hub: Hub, lineage: Lineage) -> Destination | None:
    """Where to push, if a push was asked for.

    Raises:
        PortError: no token, or the repo holds something that is not an earlier push of this same port.
    """
    if not config.push and config.push_to is None:
        if config.private or config.create_pr or config.commit_message is not None:
            raise PortError("--private, --create-pr and --commit-message are about a push: add --push or --push-to")
        return None
    if config.push_to == "":
        raise PortError("--push-to needs the name of a repo")
    user, namespaces = hub.writer()
    names = [pinned.name.split("/")[-1] for pinned in (lineage.source, lineage.target)]
    repo = config.push_to or f"{user}/{names[0]}-on-{names[1]}"
    head = hub.existing(repo)
    if repo.split("/")[0] not in namespaces and not (head and config.create_pr):
        raise PortError(f"{user} may not write to {repo}: name a repo of yours with --push-to")
    if head is not None and config.private and not hub.is_private(repo):
        raise PortError(f"{repo} exists and is public, so --private cannot hold: name another with --push-to")
    if head is not None and not config.create_pr and set(head.files) - {".gitattributes", "README.md"}:
        report = hub.json(head, REPORT_FILE).get("lineage", {})
        if any(report.get(role, {}).get("name") != getattr(lineage, role).name for role in ("source", "target")):
            raise PortError(f"{repo} holds something that is not a port of {lineage.source.name} to "
                            f"{lineage.target.name}: name another with --push-to, or propose it with --create-pr")
    return Destination(repo, head and head.commit)


def dry_run(config: PortConfig, hub: Hub) -> tuple[Blueprint, Estimate]:
    """The blueprint and what the port would cost; reads the headers of the weights, not the weights."""
    plan = draft(config, hub)
    shapes = [Shapes(hub, pinned, plan.family.weights_file) for pinned in plan.lineage.models]
    check_weights(plan, *shapes)
    n = plan.calibration.size(len(plan.task.class_names))
    return plan, estimate(plan.pairs, plan.source_sites, plan.method, n, shapes[1:], plan.device)


def check_weights(plan: Blueprint, tuned: Tensors, base: Tensors, target: Tensors) -> Difference:
    check_shapes(plan.lineage.base, base, plan.skeletons[0], plan.family.tower)
    check_shapes(plan.lineage.target, target, plan.skeletons[1], plan.family.tower)
    return Difference(tuned, base)
