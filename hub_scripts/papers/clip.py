"""Pictures: CLIP's vision tower, fine-tuned under its frozen zero-shot head; comparisons are `hf-bico compare`'s."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from open_clip.factory import load_state_dict
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader

from hf_bico.families.open_clip import OpenClip
from hf_bico.io.checkpoints import open_repo
from hf_bico.io.reference import Pinned
from hf_bico.io.writer import staged, write_model
from hf_bico.tasks.asked import Asked, zero_shot_head
from hf_bico.tasks.evaluation import Evaluator
from hf_bico.tasks.objectives import ZeroShot
from hf_bico.tasks.samples import Task, read_task, samples_of
from hf_bico.tasks.splits import ArrowSplit, HubDataset
from hf_bico.workflows import compare as comparison
from hf_bico.workflows.config import CompareConfig
from hf_bico.workflows.live import class_loss
from hub_scripts.papers.ledger import REFERENCE, SOURCE, ZERO, Ledger, name_of
from hub_scripts.papers.plan import Cell, FineTune, Unit, key_of
from hub_scripts.papers.spec import Dataset, Model, Spec
from hub_scripts.papers.tune import Run, card, endless, learn, parted, whole_split

LIBRARY = OpenClip()
TOWER = "visual."
"""What the names of the vision tower's tensors start with."""


class Pictures(torch.utils.data.Dataset):
    """Rows of a split in a model's own preprocessing, with their labels."""

    def __init__(self, split: ArrowSplit, task: Task, rows: Sequence[int], preprocess) -> None:
        self.split, self.task, self.rows, self.preprocess = split, task, rows, preprocess

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        sample = next(samples_of(self.split, [self.rows[place]], self.task))
        return self.preprocess(sample.inputs), sample.label


def ready(spec: Spec, name: str, run: Run) -> str:
    """The ref that hf_bico takes: the model's own, or the folder of its converted weights."""
    model = spec.models[name]
    pinned = run.hub.resolve(model.ref)
    if model.pickled is None or LIBRARY.weights_file in pinned.files:
        return model.ref
    place = run.output / "models" / f"{name}-{(pinned.commit or 'local')[:12]}"
    if not place.is_dir():
        _convert(model, pinned, place, run)
    return str(place)


def _convert(model: Model, pinned: Pinned, place: Path, run: Run) -> None:
    """The same repo with safetensors. torch reads the pickle with `weights_only`, which runs no code of it."""
    names = (LIBRARY.config_file, *LIBRARY.extra_files)
    folder = run.hub.fetch(pinned, (*names, model.pickled))
    with staged(place) as stage:
        stage.mkdir()
        for name in names:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, stage / name)
        tensors = {
            key: tensor.clone().contiguous() for key, tensor in load_state_dict(str(folder / model.pickled)).items()
        }
        save_file(tensors, stage / LIBRARY.weights_file, metadata={"format": "pt"})


def fine_tune(spec: Spec, tune: FineTune, run: Run) -> None:
    """A model's vision tower after the protocol's steps; text tower, logit scale and head are frozen."""
    entry, protocol = spec.datasets[tune.dataset], spec.protocols["open_clip"]
    pinned = run.hub.resolve(ready(spec, tune.model, run))
    folder = run.hub.fetch(pinned, (LIBRARY.config_file, LIBRARY.weights_file, *LIBRARY.extra_files))
    loaded = LIBRARY.load(folder, run.device)
    data = HubDataset(run.hub, run.hub.resolve(entry.ref, "dataset"), entry.config)
    split = ArrowSplit(whole_split(data, entry.split))
    task = read_task(data, split, columns_of(entry), entry.templates)
    rows, kept = parted(split.num_rows, protocol)
    head = zero_shot_head(LIBRARY, loaded, task.class_names, task.templates)
    tower = {key: p for key, p in loaded.model.named_parameters() if key.startswith(TOWER)}
    before = {key: p.detach().clone() for key, p in tower.items()}
    loaded.model.requires_grad_(False)
    for parameter in tower.values():
        parameter.requires_grad_(True)
    loader = DataLoader(
        Pictures(split, task, rows, loaded.preprocess),
        protocol.batch,
        shuffle=True,
        generator=torch.Generator().manual_seed(protocol.seed),
        num_workers=run.workers,
    )
    loss = class_loss(head)
    learn(
        list(tower.values()),
        lambda batch: loss(loaded.model, batch),
        endless(loader),
        protocol,
        run.size,
        run.track,
        f"Fine-tuning {tune}",
    )
    delta = {key: (p.detach() - before[key]).cpu() for key, p in tower.items()}
    examine = Evaluator(task, "validation", split, tuple(kept), run.size, run.track)
    score = examine.score(str(tune), Asked(loaded, ZeroShot(LIBRARY, loaded, head))).value if kept else None
    base = open_repo(run.hub, pinned, LIBRARY, LIBRARY.purpose(folder), model=loaded.model)
    with staged(run.place(spec, tune)) as stage:
        write_model(stage, base, delta, 1.0, {})
        (stage / "README.md").write_text(card(spec, tune, LIBRARY.name, score), encoding="utf-8")


def compare(spec: Spec, unit: Unit, tuned: dict[str, str], run: Run, ledger: Ledger) -> None:
    """All cells of a comparison into the ledger.

    Args:
        tuned: the fine-tune's ref or folder, by the model's name.
    """
    key, config = key_of(spec, unit), config_of(spec.datasets[unit.dataset], unit, tuned, spec, run)
    data = comparison.run(config, run.hub, run.track)
    starts = {(draw["per_class"], draw["n"], draw["seed"]): draw["start"] for draw in data["calibration"]}
    for row in data["rows"]:
        size, start = row["per_class"] or row["n"], starts[row["per_class"], row["n"], row["seed"]]
        fixed = {ZERO: start, SOURCE: data["evaluation"]["source"], REFERENCE: data["reference"]}
        for what, score in fixed.items():
            ledger.once(key, size, row["seed"], what, lambda score=score: score["value"])
        cell = Cell(size, row["seed"], row["method"], row["alpha"])
        ledger.once(key, size, row["seed"], name_of(cell), lambda row=row: row)


def columns_of(entry: Dataset) -> dict[str, str]:
    """Those that the file names, by what they hold."""
    return {role: column for role, column in (("image", entry.image), ("label", entry.label)) if column is not None}


def config_of(entry: Dataset, unit: Unit, tuned: dict[str, str], spec: Spec, run: Run) -> CompareConfig:
    """The comparison as `hf-bico compare` takes it."""
    columns = ",".join(f"{role}={column}" for role, column in columns_of(entry).items())
    shared: dict[str, Any] = {
        "config": entry.config,
        "split": entry.split,
        "eval_split": entry.eval_split,
        "eval_n": entry.eval_n,
        "columns": columns or None,
        "templates": entry.templates,
    }
    return replace(
        unit.config(tuned[unit.target]),
        source=tuned[unit.source],
        target=ready(spec, unit.target, run),
        dataset=entry.ref,
        base=ready(spec, unit.source, run),
        **shared,
        batch_size=run.size,
        device=run.device,
        only="linear",  # as in the papers
        allow_regression=True,  # a table has a row for every fine-tune, however short
    )
