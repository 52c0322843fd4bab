"""From a blueprint to what a method works on: files fetched, τ checked, models live, samples drawn."""

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_bico.api import class_loss, class_scores
from hf_bico.blueprint import Blueprint, PortConfig, check_weights, eval_size
from hf_bico.core.collect import Scores, Side
from hf_bico.core.errors import PortError
from hf_bico.core.methods import Job, Track
from hf_bico.core.moments import Evidence
from hf_bico.core.transport import Account, Difference, account, check_fine_tune
from hf_bico.data import Draw, choose, draw, samples_of
from hf_bico.evaluate import Batches, Exam, embedded
from hf_bico.families import Loaded
from hf_bico.io.checkpoints import SafeTensors, require_finite
from hf_bico.io.hub import Hub
from hf_bico.io.reference import Pinned, about, sha256
from hf_bico.report import Clock
from hf_bico.strategies import Calibration


@dataclass
class Ready:
    """A port of which all but the samples is at hand."""

    plan: Blueprint
    folders: list[Path]
    """Of the source, the base and the target."""
    hashes: dict[str, str]
    """sha256 of their weights, by role."""
    tau: Difference
    weights: SafeTensors
    """The target's."""
    ratio: float
    """‖τ‖/‖θ_A‖"""
    account: Account
    sides: list[Loaded]
    """The base and the target."""
    heads: list[Tensor]

    @cached_property
    def scores(self) -> list[Scores | None]:
        """Either base's, of the general prompts; they are encoded once, however many draws there are."""
        bank = self.plan.bank
        return [class_scores(self.plan.family.head(side, bank, ("{}",))) if bank else None for side in self.sides]

    def job(self, drawn: Draw, size: int, track: Track) -> Job:
        """With no evidence yet; `size` samples a batch."""
        live = [Side(side.model, class_loss(head), scores)
                for side, head, scores in zip(self.sides, self.heads, self.scores, strict=True)]
        batches = partial(Batches, drawn.samples, tuple(self.sides), size)
        return Job(self.tau, self.plan.pairs, *live, self.weights, batches, Evidence(self.plan.pairs, ()), track)

    def draw(self, config: PortConfig, calibration: Calibration, track: Track) -> Draw:
        """The calibration samples; features, where they go by distance, are the target's own."""
        plan = self.plan

        def features(indices: Sequence[int]) -> np.ndarray:
            samples = track(samples_of(plan.split, indices, plan.task), "Embedding candidates", len(indices))
            return embedded(plan.family, self.sides[1], samples, 4 * config.batch_size)

        return draw(plan.split, config.split, plan.task, calibration, plan.labels, features)


def prepare(plan: Blueprint, hub: Hub, track: Track, clock: Clock) -> Ready:
    """
    Raises:
        PortError: weights that do not fit, are broken, or cannot be a fine-tune and its base.
    """
    with clock("download"):
        folders = [fetch(plan, pinned, hub) for pinned in track(plan.lineage.models, "Downloading", 3)]
    tuned, base, target = (_open(plan, *each) for each in zip(plan.lineage.models, folders, strict=True))
    with clock("task vector"):
        tau = check_weights(plan, tuned, base, target)
        require_finite(plan.lineage.target, target)
        ratio = check_fine_tune(tau, base, plan.source_sites)
        whole = account(tau, plan.pairs, plan.family.left_reason, plan.source_sites)
    with clock("load"):
        hashes = {role: sha256(folder / plan.family.weights_file)
                  for role, folder in zip(("source", "base", "target"), folders, strict=True)}
        sides, heads = zip(*(load(plan, folder) for folder in folders[1:]), strict=True)
    return Ready(plan, folders, hashes, tau, target, ratio, whole, list(sides), list(heads))


def fetch(plan: Blueprint, pinned: Pinned, hub: Hub) -> Path:
    """The folder of a model, with all that opens it."""
    return hub.fetch(pinned, (plan.family.config_file, plan.family.weights_file, *plan.family.extra_files))


def _open(plan: Blueprint, pinned: Pinned, folder: Path) -> SafeTensors:
    with about(pinned):
        return SafeTensors(folder / plan.family.weights_file)


def load(plan: Blueprint, folder: Path) -> tuple[Loaded, Tensor]:
    """A live model and its zero-shot head."""
    side = plan.family.load(folder, plan.device)
    return side, plan.family.head(side, plan.task.class_names, plan.task.templates)


@contextmanager
def within_memory():
    """An error that says what to do when the device is out of memory."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise PortError("the device is out of memory; a smaller --batch-size needs less") from error


def models_key(ready: Ready) -> list[Any]:
    """What tells these three models from all others."""
    configs = [(folder / ready.plan.family.config_file).read_text() for folder in ready.folders]
    return [ready.hashes, *configs]


def evaluation_key(config: PortConfig, plan: Blueprint) -> list[Any]:
    """What tells these evaluation samples from all others."""
    return [_dataset_key(plan.lineage.dataset), plan.dataset.config, plan.eval_name, config.eval_n, config.seed]


def _dataset_key(pinned: Pinned) -> list[Any]:
    """What tells this dataset from all others; a folder has no commit, its files' sizes and dates stand for it."""
    if pinned.folder is None:
        return [str(pinned)]
    stats = [(name, (pinned.folder / name).stat()) for name in sorted(pinned.files)]
    return [str(pinned.folder), *([name, stat.st_size, stat.st_mtime_ns] for name, stat in stats)]


def exam(config: PortConfig, plan: Blueprint, track: Track) -> Exam:
    """The evaluation split, or a draw of it by the seed."""
    split = plan.dataset.split(plan.eval_name, whole=config.eval_n is None)
    indices = choose(split, plan.eval_name, eval_size(config, split), config.seed)
    return Exam(plan.family, plan.task, plan.eval_name, split, indices, 4 * config.batch_size, track)
