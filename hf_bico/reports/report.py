"""What a reader needs to judge a port and to do it again; written as `hf_bico.json`."""

import hashlib
import json
import platform
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from hf_bico.core.meter import peak_memory
from hf_bico.core.methods import Method
from hf_bico.core.search import Search
from hf_bico.core.transport import Account, Left, Moved
from hf_bico.core.types import Pair
from hf_bico.io.changes.delta import REPORT_FILE
from hf_bico.tasks.scores import Score, better, recovered

SCHEMA = 3
LIBRARIES = (
    "hf-bico",
    "torch",
    "transformers",
    "open_clip_torch",
    "huggingface_hub",
    "datasets",
    "safetensors",
    "numpy",
)


@dataclass(frozen=True)
class Evaluation:
    """Scores on a split that the calibration did not see."""

    split: str
    source: Score
    zero_shot: Score
    naive: Score
    ported: Score
    comparable: bool = True
    """Whether the source's score is on the same scale."""

    @property
    def regressed(self) -> bool:
        return better(self.zero_shot, self.ported)

    @property
    def recovered(self) -> float | None:
        """Share of the way from the target without the port to the source's score; None where there is no way up."""
        if not self.comparable:
            return None
        return recovered(self.ported.value, self.zero_shot.value, self.source.value, self.ported.metric)


@dataclass
class Clock:
    """Seconds of every stage of a run."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str):
        start = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class Report:
    """A port as data."""

    command: str
    lineage: dict[str, dict[str, Any]]
    method: dict[str, Any]
    calibration: dict[str, Any]
    task_vector: dict[str, Any]
    layers: list[dict[str, Any]]
    matching: dict[str, Any]
    head: dict[str, Any]
    moved: list[Moved]
    left: list[Left]
    evaluation: Evaluation
    environment: dict[str, Any]
    estimate: dict[str, Any]
    """What it was expected to cost, and what it came to."""

    def data(self) -> dict[str, Any]:
        """Plain JSON data."""
        evaluation = asdict(self.evaluation) | {
            "recovered": self.evaluation.recovered,
            "regressed": self.evaluation.regressed,
        }
        return {**stamp(SCHEMA), **asdict(self), "evaluation": evaluation}


def stamp(schema: int) -> dict[str, Any]:
    """What every file of ours begins with."""
    return {"schema": schema, "hf_bico": version("hf-bico"), "created": datetime.now(UTC).isoformat("T", "seconds")}


def method_record(method: Method) -> dict[str, Any]:
    return {
        "name": method.name,
        "citation": method.citation,
        "summary": method.summary,
        "options": asdict(method),
        "signals": sorted(signal.value for signal in method.signals),
    }


def task_vector_record(ratio: float, whole: Account, moved: Sequence[Moved]) -> dict[str, Any]:
    """How large τ is, what share of ‖τ‖² the pairs take, and what of the weights lies inside the span of their maps."""
    taken = sum(entry.norm**2 for entry in moved)
    kept = sum(entry.kept * entry.norm**2 for entry in moved)
    return {"relative_norm": ratio, "moved_share": whole.moved_share, "kept_share": kept / taken if taken else 1.0}


def bank_record(bank: Sequence[str]) -> dict[str, Any]:
    """The general prompts of label-free gradients, by number and hash; nothing where there were none."""
    digest = hashlib.sha256("\n".join(bank).encode()).hexdigest()
    return {"bank": {"prompts": len(bank), "sha256": digest}} if bank else {}


def write_report(folder: Path, data: dict[str, Any]) -> None:
    (folder / REPORT_FILE).write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def layer_table(pairs: tuple[Pair, ...]) -> list[dict[str, Any]]:
    """Which block of the source hands over to which block of the target, with widths; a row a block."""
    rows: dict[Any, dict[str, Any]] = {}
    for a, b in pairs:
        row = rows.setdefault((b.tower, b.depth), {"tower": b.tower, "target": b.depth, "source": a.depth, "sites": []})
        row["sites"].append({"role": b.role, "source": [a.d_out, a.d_in], "target": [b.d_out, b.d_in]})
    return list(rows.values())


def search_record(search: Search | None) -> list[dict[str, float]] | None:
    """A row an α, with the mean calibration loss a sample."""
    return search and [{"alpha": alpha, "loss": loss} for alpha, loss in search]


def environment(device: str, clock: Clock) -> dict[str, Any]:
    """Versions, device, time and peak memory of this process."""
    on_device = peak(device) if device.startswith("cuda") else None
    return {
        "versions": {name: version(name) for name in LIBRARIES},
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "threads": torch.get_num_threads(),
        "seconds": {stage: round(seconds, 2) for stage, seconds in clock.seconds.items()},
        "peak_memory_bytes": peak_memory(),
        "peak_device_memory_bytes": on_device,
    }


def peak(device: str) -> int:
    """The most memory that was in use: the device's on CUDA, else this process's."""
    return torch.cuda.max_memory_allocated(device) if device.startswith("cuda") else peak_memory()
