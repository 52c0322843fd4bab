"""What is known of a port before any weight is read: every input pinned, every choice checked."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from hf_bico.columns import Kind, parse_columns
from hf_bico.core.errors import PortError, listed
from hf_bico.core.methods import Method, method_of
from hf_bico.core.pairing import Matching, by_index, pair_sites, read_matching, subset
from hf_bico.core.search import AUTO
from hf_bico.core.transport import check_scale
from hf_bico.core.types import Pair, Site
from hf_bico.data import EVAL_SPLITS, Task, check_columns, check_draw, choose, classes_of, read_task
from hf_bico.estimate import Estimate, estimate
from hf_bico.families import Contrastive, Family, Library, Purpose, family_of, library_of
from hf_bico.heads import LAST, Chain, chain
from hf_bico.io.checkpoints import Named, Shapes, check_shapes, pick_device, require_weights, shards
from hf_bico.io.hub import Hub
from hf_bico.io.reference import Pinned, about
from hf_bico.io.writer import require_room
from hf_bico.report import REPORT_FILE, Lineage
from hf_bico.splits import HubDataset, Split, lines
from hf_bico.strategies import Calibration

CKA = "cka"


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
    columns: str | None = None
    """As "role=column,…"."""
    streaming: bool = False
    templates: Path | None = None
    max_length: int = 128
    """Tokens of a text."""
    n: int | None = None
    """100 unless given."""
    per_class: int | None = None
    strategy: str | None = None
    seed: int = 0
    family: str | None = None
    """"generic", or found by itself."""
    head: str | None = None
    """transport, ridge, zero-shot or lm; what suits the source unless given."""
    matching: str = "index"
    """index, cka, or a YAML file of pairs."""
    layers: str | None = None
    skip: str | None = None
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
class Anatomy:
    """A model's insides, from its config and the headers of its files."""

    pinned: Pinned
    family: Family
    skeleton: nn.Module
    shapes: Named
    """Of the stored tensors, by their names in the model."""

    def sites(self, *, every: bool = False) -> tuple[Site, ...]:
        return self.family.sites(self.skeleton, every=every)


@dataclass(frozen=True)
class Blueprint:
    """What is known of a port before any weight is read."""

    lineage: Lineage
    calibration: Calibration
    library: Library
    purpose: Purpose
    models: tuple[Anatomy, Anatomy, Anatomy]
    """The source, the base and the target."""
    head: str
    chain: Chain
    pairs: tuple[Pair, ...]
    """Of all towers that can be paired; those of a tower that τ leaves as it is are dropped once τ is read."""
    unpaired: Mapping[str, str]
    """Optional tower → why its layers cannot be paired, which matters only if τ changes it."""
    method: Method
    bank: tuple[str, ...]
    """General texts for gradients without labels; empty where the method takes none."""
    device: str
    dataset: HubDataset
    split: Split
    labels: np.ndarray
    """The class of every row of the split; zeros where the strategy does not ask."""
    task: Task
    max_length: int
    eval_name: str
    eval_split: Split
    licenses: tuple[str, ...]
    """Of the target, then of the source, each once."""
    destination: Destination | None

    @property
    def source_sites(self) -> tuple[Site, ...]:
        """All of the base's, those on top included."""
        base = self.models[1]
        return (*base.sites(every=True), *(pair.source for pair in self.chain.moved))


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
    device, named = pick_device(config.device), parse_columns(config.columns)
    lineage = resolve(config, hub)
    library, purpose, models = anatomies(lineage.models, hub, config.family)
    dataset = HubDataset(hub, lineage.dataset, config.config, streaming=config.streaming)
    split = dataset.split(config.split)
    task = read_task(dataset, split, named, config.templates)
    head = head_of(config.head, purpose, task)
    require_task(purpose, task, lineage, method)
    bank = read_bank(config.bank, {config.method: method}, library, purpose, task)
    labels = classes_of(split, task, calibration)
    check_draw(config.split, labels, task, calibration)
    eval_name = _eval_name(config, dataset)
    eval_split = dataset.split(eval_name)
    check_columns(eval_split, eval_name, task.columns)
    choose(eval_split, eval_name, eval_size(config, eval_split), config.seed)
    if config.output is not None:
        require_room(config.output, 0)
    links = _chain(models, head, purpose)
    check_models(models)
    pairs, unpaired = pair_models(models, matching_of(config))
    pairs = (*pairs, *links.moved)
    method.check(pairs)
    return Blueprint(lineage, calibration, library, purpose, models, head, links, pairs, unpaired, method, bank, device,
                     dataset, split, labels, task, config.max_length, eval_name, eval_split, _licenses(lineage, hub),
                     _destination(config, hub, lineage))


def anatomies(pinned: Iterable[Pinned], hub: Hub, family: str | None
              ) -> tuple[Library, Purpose, tuple[Anatomy, ...]]:
    """The models' insides; what the first is for is what all of them are opened as.

    Raises:
        PortError: a repo that nothing opens, of another library than the others, or without safe weights; an
            architecture that no family knows; weights that are not its config's.
    """
    pinned = list(pinned)
    libraries = [library_of(each.files) for each in pinned]
    for each, library in zip(pinned, libraries, strict=True):
        if library is None:
            raise PortError(f"{each} is no model that can be opened: it has neither open_clip_config.json nor "
                            "config.json")
        if library is not libraries[0]:
            raise PortError(f"{each} is of {library.name}, {pinned[0]} of {libraries[0].name}: a port is between models "
                            "of one library")
        require_weights(each, library)
    library = libraries[0]
    folders = [hub.fetch(each, (library.config_file,)) for each in pinned]
    with about(pinned[0]):
        purpose = library.purpose(folders[0])
    return library, purpose, tuple(_anatomy(*each, hub, library, purpose, family)
                                   for each in zip(pinned, folders, strict=True))


def _anatomy(pinned: Pinned, folder: Path, hub: Hub, library: Library, purpose: Purpose, family: str | None) -> Anatomy:
    with about(pinned):
        skeleton = library.skeleton(folder, purpose)
        known = family_of(skeleton, family)
        stored = Shapes(hub, pinned, shards(library, pinned))
        return Anatomy(pinned, known, skeleton, Named(stored, library.names(skeleton, stored)))


def _chain(models: tuple[Anatomy, ...], head: str, purpose: Purpose) -> Chain:
    """What becomes of the layers on top: a model of features has no classes, and its pooler moves or stays."""
    _, base, target = models
    tops = [each.family.head_sites(each.skeleton) for each in (base, target)]
    if not purpose.kind.endswith("classification"):
        by_role = {site.role: site for site in tops[0] if site.weight.key in base.shapes and site.role != LAST}
        return Chain(tuple(Pair(by_role[site.role], site) for site in tops[1]
                           if site.role in by_role and site.weight.key in target.shapes))
    return chain(*tops, base.shapes, target.shapes, head)


def check_models(models: tuple[Anatomy, ...]) -> None:
    """Refuse weights that are not those of their config; the layers on top need be in the source alone, the first."""
    source = models[0]
    for each in models:
        top = {s.key for site in each.family.head_sites(each.skeleton) for s in site.slices} if each is not source else ()
        check_shapes(each.pinned, each.shapes.without(top), each.skeleton, top)
    lost = [key for key in source.shapes.stored if key not in set(source.shapes.names.values())
            and not source.family.left_reason(key)]
    if lost:
        raise PortError(f"the weights of {source.pinned} do not fit its config: {listed(lost)} is unknown")


def pair_models(models: tuple[Anatomy, ...], matching: Matching) -> tuple[tuple[Pair, ...], dict[str, str]]:
    """Pairs of the base's and the target's layers; of towers that need not move, why they could not."""
    _, base, target = models
    pairs = list(pair_sites(base.sites(), target.sites(), matching))
    main = {site.tower for site in base.sites()}
    unpaired: dict[str, str] = {}
    sides = [[site for site in each.sites(every=True) if site.tower not in main] for each in (base, target)]
    for tower in dict.fromkeys(site.tower for site in sides[0]):
        try:
            pairs += pair_sites(*([site for site in side if site.tower == tower] for side in sides), matching)
        except PortError as error:
            unpaired[tower] = str(error)
    return tuple(pairs), unpaired


def matching_of(config: PortConfig, found: Matching | None = None) -> Matching:
    """Which block takes from which: by the rule, the file, or what CKA found; less what is skipped."""
    rule = found or (by_index if config.matching in ("index", CKA) else read_matching(Path(config.matching)))
    return subset(rule, config.layers, config.skip)


def head_of(named: str | None, purpose: Purpose, task: Task) -> str:
    """The head that a port uses.

    Raises:
        PortError: it is not one for this model.
    """
    fit = {"zero-shot": ("zero-shot",), "causal-lm": ("lm",), "seq2seq": ("lm",), "features": ("ridge", "none")}
    choices = fit.get(purpose.kind, ("transport", "ridge"))
    if purpose.kind == "features":
        choices = ("ridge",) if task.class_names else ("none",)
    if named is not None and named not in choices:
        raise PortError(f"--head {named} is not for a model of {purpose.kind}; there it is {' or '.join(choices)}")
    return named or choices[0]


TAKES = {"zero-shot": {Kind.IMAGE}, "image-classification": {Kind.IMAGE}, "text-classification": {Kind.TEXT, Kind.PAIR},
         "causal-lm": {Kind.PLAIN, Kind.CHAT, Kind.COMPLETION, Kind.TEXT, Kind.PAIR},
         "seq2seq": {Kind.COMPLETION, Kind.TEXT, Kind.PAIR},
         "features": {Kind.TEXT, Kind.PAIR, Kind.PLAIN, Kind.IMAGE}}
"""What a model is for → the kinds of data that it can be calibrated on."""


def require_task(purpose: Purpose, task: Task, lineage: Lineage, method: Method) -> None:
    """Refuse data that the source cannot be asked about.

    Raises:
        PortError: another kind of data, no labels where there must be, other classes than the source's; a model of
            features without labels and a method that needs a loss.
    """
    kind, takes = task.columns.kind, TAKES[purpose.kind]
    if kind not in takes:
        raise PortError(f"{lineage.source} is for {purpose.kind}, and {lineage.dataset} has samples of the kind {kind}; "
                        f"it takes {', '.join(sorted(takes))}: name its columns with --columns, or another --dataset")
    if not task.class_names and purpose.kind in ("zero-shot", "image-classification", "text-classification"):
        raise PortError(f"{lineage.dataset} has no labels, which a port of {purpose.kind} needs: name their column with "
                        "--columns label=…")
    if purpose.labels and len(purpose.labels) != len(task.class_names):
        raise PortError(f"{lineage.source} has {len(purpose.labels)} classes, {lineage.dataset} has "
                        f"{len(task.class_names)}: name the dataset that it was fine-tuned on")
    if purpose.kind == "features" and not task.class_names and method.needs_loss:
        raise PortError(f"a model of features has no loss without labels, which {method.name} needs: take gradients "
                        "without labels (--set label_free=1), or --method theseus")


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


def read_bank(path: Path | None, methods: Mapping[str, Method], library: Library, purpose: Purpose, task: Task
              ) -> tuple[str, ...]:
    """General texts, a line each; none where no method takes gradients without labels."""
    if not any(method.draws for method in methods.values()):
        if path is not None:
            raise PortError(f"--bank is for gradients without labels, which {listed(list(methods))} does not take")
        return ()
    if path is None:
        contrastive: Contrastive = library
        if task.columns.kind is Kind.IMAGE and purpose.kind != "zero-shot":
            raise PortError("gradients without labels need scores on something general, which a classifier of images "
                            "has not: only CLIP-like models and models of texts have")
        return contrastive.general_prompts()
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
    n = plan.calibration.size(len(plan.task.class_names))
    main = [pair for pair in plan.pairs if pair.target.tower not in optional_towers(plan)]
    shapes = [each.shapes for each in plan.models]
    return plan, estimate(main, plan.source_sites, plan.method, n, shapes[1:], plan.device)


def optional_towers(plan: Blueprint) -> set[str]:
    """Towers that move only if τ changes them."""
    base = plan.models[1]
    return {site.tower for site in base.sites(every=True)} - {site.tower for site in base.sites()}
