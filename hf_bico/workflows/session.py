"""From a blueprint to what a method works on: files fetched, τ checked, models live, samples drawn, heads in place."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hf_bico.core.collect import Side
from hf_bico.core.errors import PortError
from hf_bico.core.methods import Job, Track
from hf_bico.core.moments import Statistics
from hf_bico.core.pairing import by_path
from hf_bico.core.similarity import cka_matrix, monotone_path
from hf_bico.core.transport import Account, Difference, account, holding
from hf_bico.core.types import Fit
from hf_bico.families import Loaded, heads
from hf_bico.io.adapter import CONFIG
from hf_bico.io.changes.adapter_source import Adapted, AdapterChange
from hf_bico.io.changes.source import fetch, only_in_source, read_change
from hf_bico.io.checkpoints import Named, shards
from hf_bico.io.hub import Hub
from hf_bico.io.maps.stored import StoredMaps
from hf_bico.io.models import optional_towers, pair_models
from hf_bico.io.reference import Pinned, sha256
from hf_bico.io.workspace import Workspace
from hf_bico.reports.report import Clock
from hf_bico.tasks.asking import objective_of, zero_shot_head
from hf_bico.tasks.batches import Batches, batched
from hf_bico.tasks.evaluation import Evaluator, embedded
from hf_bico.tasks.objectives import Embedding, Objective, ZeroShot, similarity_scores
from hf_bico.tasks.samples import Draw, Sample, choose, draw, samples_of
from hf_bico.tasks.scores import Score
from hf_bico.tasks.strategies import Calibration
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.plan import CKA, Blueprint, Sampled, eval_size, matching_of

Weights = Mapping[str, Tensor]


@dataclass
class Ready:
    """A port of which all but the samples is at hand."""

    plan: Blueprint | Sampled
    folders: list[Path]
    """Of the source, the base and the target."""
    hashes: dict[str, str]
    """sha256 of their weights, by role."""
    tuned: Named | Adapted
    """The source's."""
    tau: Difference | AdapterChange | Mapping[str, Tensor]
    """Empty where there is no fine-tune, and two bases alone are aligned."""
    weights: Named
    """The target's, without a head that is made."""
    own_head: dict[str, Tensor]
    """The source's layers on top that are carried whole."""
    ratio: float
    """‖τ‖/‖θ_A‖"""
    account: Account
    sides: list[Loaded | None]
    """The base and the target; the base is let go once it has done its part."""
    objectives: tuple[Objective, Objective]
    head: dict[str, Tensor] = field(default_factory=dict)
    """The target's, where one was carried."""
    head_fit: Fit | None = None

    @property
    def adapter(self) -> dict[str, Any] | None:
        """What kind of adapter the source is and how it was read; None for a whole model."""
        config = self.plan.models[0].adapter
        return config and {"type": config.kind, "rank": config.data.get("r"), "read": self.tuned.read}

    def job(self, drawn: Draw, size: int, track: Track) -> Job:
        """With no evidence yet; `size` samples a batch."""
        live = [
            Side(side.model, objective.loss, self._label_free(side, objective))
            for side, objective in zip(self.sides, self.objectives, strict=True)
        ]
        return Job(
            self.tau,
            self.plan.pairs,
            *live,
            self.weights,
            self.batches(drawn, size),
            Statistics(self.plan.pairs, ()),
            track,
        )

    def comparable(self, score: Score) -> bool:
        """Whether the source's score and the target's are of one scale: a loss a token is not, of other tokens."""
        if score.metric != "perplexity":
            return True
        vocabularies = [objective.side.tokenizer.get_vocab() for objective in self.objectives]
        return vocabularies[0] == vocabularies[1]

    def batches(self, drawn: Draw, size: int) -> Callable[[], Batches]:
        return partial(Batches, drawn.samples, self.objectives, size)

    def _label_free(self, side: Loaded, objective: Objective):
        """Scores on the general texts, encoded once, however many draws there are; None where no method asks."""
        bank = self.plan.bank
        if not bank:
            return None
        if isinstance(objective, ZeroShot):
            head = zero_shot_head(objective.library, side, bank, ("{}",))
            return replace(objective, head=head, prompts=()).logits
        return similarity_scores(objective, objective.encode([Sample(text, None) for text in bank]), side.model)

    def draw(self, config: PortConfig, calibration: Calibration, track: Track) -> Draw:
        """The calibration samples; features, where they go by distance, are the target's own."""
        plan = self.plan

        def features(indices: Sequence[int]) -> np.ndarray:
            samples = track(samples_of(plan.split, indices, plan.task), "Embedding candidates", len(indices))
            return embedded(self.objectives[1], self.sides[1].model, samples, 4 * config.batch_size).numpy()

        return draw(plan.split, config.split, plan.task, calibration, plan.labels, features)

    def equip(self, drawn: Draw, size: int, track: Track) -> None:
        """Give both bases the head that their loss is taken under: the source's its own, the target's one made of it,
        or each one that is fitted to the samples.
        """
        links, models = self.plan.head_layers, [side.model for side in self.sides]
        heads.place(models[0], self.own_head)
        gains = links.gain(self.own_head, models[1].state_dict())
        heads.place(models[1], gains)
        if links.carried:
            live = [Side(model, objective.loss) for model, objective in zip(models, self.objectives, strict=True)]
            batches = self.batches(drawn, size)()
            self.head, self.head_fit = heads.carried(
                links.carried, self.own_head, *live, track(batches, "Carrying the head", len(batches))
            )
            heads.place(models[1], self.head)
            self.head |= gains
        elif self.plan.head in (heads.RIDGE, heads.PROBE):
            made = [self._fit(number, drawn, size) for number in (0, 1)]
            for model, (tensors, _) in zip(models, made, strict=True):
                heads.place(model, tensors)
            self.head = made[1][0] | gains
            self.objectives = tuple(objective for _, objective in made)

    def _fit(self, number: int, drawn: Draw, size: int) -> tuple[dict[str, Tensor], Objective]:
        """A ridge head for a side's body as it is: tensors of the model, or a probe of its objective."""
        objective, model, classes = self.objectives[number], self.sides[number].model, len(self.plan.task.class_names)
        if isinstance(objective, Embedding):
            return {}, probed(objective, model, drawn, size, classes)
        sites = (self.plan.head_layers.fresh, self.plan.head_layers.made)[number]
        if not sites:
            return {}, objective  # it has its own
        encoded = [objective.encode(some) for some in batched(drawn.samples, size)]
        return heads.fitted(sites, model, objective.loss, encoded, classes), objective

    @contextmanager
    def dressed(self, drawn: Draw, size: int) -> Iterator[tuple[Objective, dict[str, Tensor]]]:
        """The target's objective and head for its body as it is now: those that depend on the body are made anew."""
        objective, model = self.objectives[1], self.sides[1].model
        if self.plan.head in (heads.RIDGE, heads.PROBE):
            tensors, objective = self._fit(1, drawn, size)
            with holding(model, tensors.items()):
                yield objective, self.head | tensors
        elif isinstance(objective, ZeroShot) and objective.prompts:
            task = self.plan.task
            yield (
                replace(
                    objective, head=zero_shot_head(objective.library, self.sides[1], task.class_names, task.templates)
                ),
                {},
            )
        else:
            yield objective, self.head

    def match(self, config: PortConfig, drawn: Draw, size: int, track: Track) -> dict[str, Any] | None:
        """Pair the blocks by how alike they are on the samples, where that was asked for; what was found."""
        if config.matching != CKA:
            return {"rule": self.plan.method.rule} if isinstance(self.plan.method, StoredMaps) else None
        live = [Side(side.model, objective.loss) for side, objective in zip(self.sides, self.objectives, strict=True)]
        _, base, target = self.plan.models
        dropped = optional_towers(self.plan) - {pair.target.tower for pair in self.plan.pairs}
        sites = tuple([site for site in each.sites(every=True) if site.tower not in dropped] for each in (base, target))
        towers = list(dict.fromkeys(site.tower for site in sites[0] if site.depth is not None))
        matrices = {
            tower: cka_matrix(*live, sites, tower, self.batches(drawn, size))
            for tower in track(towers, "Comparing blocks", len(towers))
        }
        paths = {tower: monotone_path(matrix) for tower, matrix in matrices.items()}
        pairs, _ = pair_models(self.plan.models, matching_of(config, by_path(paths | dict.fromkeys(dropped))))
        pairs = tuple(pair for pair in (*pairs, *self.plan.head_layers.moved) if pair.target.tower not in dropped)
        self.plan = replace(self.plan, pairs=pairs)
        self.plan.method.check(pairs)
        if self.tau:
            self.account = account(self.tau, pairs, base.family.left_reason, self.plan.source_sites)
        return {
            "paths": {tower: list(path) for tower, path in paths.items()},
            "cka": {tower: matrix.tolist() for tower, matrix in matrices.items()},
        }


def prepare(plan: Blueprint, hub: Hub, track: Track, clock: Clock) -> Ready:
    """
    Raises:
        PortError: weights that do not fit, are broken, or cannot be a fine-tune and its base.
    """
    with clock("download"):
        folders = [fetch(plan, pinned, hub) for pinned in track(plan.lineage.models, "Downloading", 3)]
    if isinstance(plan.method, StoredMaps):
        with clock("maps"):
            plan.method.require_bases(plan.library, plan.lineage.models[1:], folders[1:])
    with clock("task vector"):
        plan, tuned, target, tau, ratio, ledger = read_change(plan, folders)
    if isinstance(plan.method, StoredMaps):
        with clock("maps"):
            plan.method.open(hub, plan.pairs, plan.device)
    with clock("load"):
        hashes = hashes_of(plan, folders)
        sides = [plan.library.load(folder, plan.device, plan.purpose) for folder in folders[1:]]
        objectives = tuple(asked_of(plan, side) for side in sides)
    own_head = {key: tuned[key] for key in only_in_source(plan) | plan.head_layers.source_keys if key in tuned}
    return Ready(
        plan,
        folders,
        hashes,
        tuned,
        tau,
        target.without(plan.head_layers.target_keys),
        own_head,
        ratio,
        ledger,
        sides,
        objectives,
    )


def hashes_of(plan: Sampled, folders: Sequence[Path]) -> dict[str, str]:
    """sha256 of the three models' weights, by role; of several shards, of their hashes in order."""
    return {
        role: sha256(*(folder / name for name in shards(plan.library, pinned)))
        for role, pinned, folder in zip(("source", "base", "target"), plan.lineage.models, folders, strict=True)
    }


def asked_of(plan: Sampled, side: Loaded) -> Objective:
    """Return what a model of a plan is asked."""
    text_moves = any(pair.target.tower for pair in plan.pairs)
    return objective_of(side, plan.library, plan.purpose, plan.task, plan.max_length, text_moves=text_moves)


def own_side(
    ready: Ready, folder: Path, drawn: Draw, size: int, change: Weights | None = None
) -> tuple[nn.Module, Objective]:
    """A fine-tune live, with its own head; a model of features gets a probe of its own.

    Args:
        folder: the fine-tune's, or its base's, and then
        change: tensors that are not the base's.
    """
    plan = ready.plan
    side = plan.library.load(folder, plan.device, plan.purpose)
    heads.place(side.model, change or {})
    objective = asked_of(plan, side)
    if plan.head == heads.PROBE:
        objective = probed(objective, side.model, drawn, size, len(plan.task.class_names))
    return side.model, objective


def probed(objective: Embedding, model: nn.Module, drawn: Draw, size: int, classes: int) -> Embedding:
    """With a linear probe of the samples, in closed form, on the body as it is."""
    with torch.no_grad():
        parts = [
            (objective.raw(model, batch).float().cpu(), batch.labels)
            for batch in map(objective.encode, batched(drawn.samples, size))
        ]
    x, labels = (torch.cat(each) for each in zip(*parts, strict=True))
    return replace(objective, probe=heads.ridge(x, labels, classes))


def score_source(ready: Ready, drawn: Draw, size: int, examine: Evaluator, workspace: Workspace) -> Score:
    """The fine-tune's own score; where there are no labels, its marks are what the others are scored against."""
    if ready.plan.head != "none" and workspace.has("the source"):
        return Score(**workspace.once("the source", dict))
    adapted = isinstance(ready.tuned, Adapted)
    model, objective = own_side(ready, ready.folders[adapted], drawn, size, ready.tuned.own if adapted else None)
    per_sample = examine.per_sample("the source", objective, model)
    if ready.plan.head == "none":
        examine.reference = per_sample
    return Score(**workspace.once("the source", lambda: asdict(objective.score(per_sample, examine.reference))))


@contextmanager
def within_memory():
    """An error that says what to do when the device is out of memory."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise PortError("the device is out of memory; a smaller --batch-size needs less") from error


def models_key(ready: Ready) -> list[Any]:
    """What tells these three models from all others."""
    files = [CONFIG if model.adapter else ready.plan.library.config_file for model in ready.plan.models]
    configs = [(folder / name).read_text() for folder, name in zip(ready.folders, files, strict=True)]
    return [ready.hashes, *configs]


def evaluation_key(config: PortConfig, plan: Blueprint) -> list[Any]:
    """What tells these evaluation samples from all others."""
    return [
        _dataset_key(plan.lineage.dataset),
        plan.dataset.config,
        plan.eval_name,
        config.eval_n,
        config.seed,
        config.max_length,
        config.columns,
        config.streaming,
    ]


def _dataset_key(pinned: Pinned) -> list[Any]:
    """What tells this dataset from all others; a folder has no commit, its files' sizes and dates stand for it."""
    if pinned.folder is None:
        return [str(pinned)]
    stats = [(name, (pinned.folder / name).stat()) for name in sorted(pinned.files)]
    return [str(pinned.folder), *([name, stat.st_size, stat.st_mtime_ns] for name, stat in stats)]


def exam(config: PortConfig, plan: Blueprint, track: Track) -> Evaluator:
    """The evaluation split, or a draw of it by the seed."""
    split = plan.dataset.split(plan.eval_name, whole=config.eval_n is None)
    indices = choose(split, plan.eval_name, eval_size(config, split), config.seed)
    return Evaluator(plan.task, plan.eval_name, split, indices, 4 * config.batch_size, track)
