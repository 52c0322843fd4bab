"""The parts of a report, and how they are made from what a workflow knows."""

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch

from hf_bico.core.account import Account
from hf_bico.core.choice import Choice
from hf_bico.core.device import is_accelerator, peak, peak_memory, title
from hf_bico.core.method import Method
from hf_bico.core.methods.polished import Polish
from hf_bico.core.search import Search
from hf_bico.core.transport import Moved, Taught
from hf_bico.core.types import Fit, Pair
from hf_bico.families.heads import HeadKind
from hf_bico.io.changes.forms import Cut, Form, Shaped
from hf_bico.io.reference import Lineage, Pinned
from hf_bico.reports.plain import maybe
from hf_bico.tasks.columns import SampleKind

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
class Origin:
    """A model or a dataset, pinned."""

    name: str
    commit: str | None
    local: bool
    """Whether it is a folder or a model in memory, which has no commit."""
    sha256: str | None = maybe()
    """Hash of a model's weights."""

    @classmethod
    def of(cls, pinned: Pinned, sha256: str | None = None) -> "Origin":
        """Return what a report says of a repo or a folder."""
        return cls(pinned.name, pinned.commit, pinned.folder is not None, sha256)


@dataclass(frozen=True)
class Tried:
    """An α that was tried."""

    alpha: float
    loss: float
    """Mean calibration loss per sample."""


@dataclass(frozen=True)
class MethodRecord:
    """Which method, with which options, at which α."""

    name: str
    citation: str
    summary: str
    options: dict[str, Any]
    signals: tuple[str, ...]
    """What it collects."""
    maps: dict[str, Any] | None = maybe()
    """Where its maps come from, if they were made before."""
    alpha: float | None = maybe()
    search: tuple[Tried, ...] | None = None
    """Every α that was tried, where α was searched."""
    choice: Choice | None = maybe()
    """What was tried on held-out samples, where the method chose among others."""

    @classmethod
    def of(
        cls, method: Method, alpha: float | None = None, search: Search | None = None, choice: Choice | None = None
    ) -> "MethodRecord":
        """Return the record of a method."""
        tried = None if search is None else tuple(Tried(*each) for each in search)
        return cls(**method.record(), alpha=alpha, search=tried, choice=choice)


@dataclass(frozen=True)
class TriedRate:
    """A rate that was tried."""

    rate: float
    loss: float
    """Of the held-out samples, summed."""


@dataclass(frozen=True)
class TaughtRecord:
    """How a port was trained, or trained further."""

    steps: int
    rate: float
    tried: tuple[TriedRate, ...]
    """Empty where the rate was not chosen on held-out samples."""
    learnt: str
    """The answers that it was trained towards."""
    what: str
    """What was trained."""
    views: bool
    """Whether every step was on other views of the samples."""
    losses: tuple[float, ...]
    """What was minimised, in the first step and in the last, summed over the samples."""
    seconds: float

    @classmethod
    def of(cls, taught: Taught | None, polish: Polish) -> "TaughtRecord | None":
        """Return the record of a training; None if there was none."""
        if taught is None:
            return None
        what = "the weights"
        if polish.rank is not None:
            what = f"a LoRA of rank {polish.rank} beside the port"
        elif polish.scales is not None:
            what = f"coefficients of the first {polish.scales} singular directions of every matrix's change"
        return cls(
            taught.steps,
            taught.rate,
            tuple(TriedRate(*each) for each in taught.tried),
            "the fine-tune's own answers" if taught.soft else "the labels",
            what,
            taught.views,
            tuple(taught.losses),
            taught.seconds,
        )


@dataclass(frozen=True)
class ColumnsRecord:
    """Which columns of the dataset were what."""

    kind: SampleKind
    names: dict[str, str]


@dataclass(frozen=True)
class BankRecord:
    """The general prompts of label-free gradients."""

    prompts: int
    sha256: str

    @classmethod
    def of(cls, bank: Sequence[str]) -> "BankRecord | None":
        """Return the record of a bank, by number and hash; None where there was none."""
        return cls(len(bank), hashlib.sha256("\n".join(bank).encode()).hexdigest()) if bank else None


@dataclass(frozen=True, kw_only=True)
class CalibrationRecord:
    """Which samples the maps were made from."""

    n: int
    content_sha256: str
    batches: int | None = maybe()
    """How many batches a live port was given."""
    split: str | None = maybe()
    strategy: str | None = maybe()
    per_class: int | None = None
    seed: int | None = maybe()
    rows: int | None = maybe()
    """How many rows the split has, that samples were drawn from."""
    window: int | None = maybe()
    """How many first rows of a streamed split were drawn from."""
    indices: tuple[int, ...] | None = maybe()
    columns: ColumnsRecord | None = maybe()
    class_names: tuple[str, ...] | None = maybe()
    answer: str | None = maybe()
    """What a sample is answered with; None without labels."""
    templates: tuple[str, ...] | None = maybe()
    config: str | None = None
    """The dataset's configuration."""
    bank: BankRecord | None = maybe()


@dataclass(frozen=True)
class UnlabelledRecord:
    """Which samples without labels were taken beside them."""

    dataset: Origin
    samples: CalibrationRecord


@dataclass(frozen=True)
class Written:
    """The form in which a change was written, and what that lost."""

    form: Form
    dtype: str | None
    """Dtype of a delta's matrices; None in the other forms."""
    mean_error: float
    """‖what is not stored‖ / ‖τ_B‖, averaged over the layers."""
    layers: tuple[Cut, ...]

    @classmethod
    def of(cls, shaped: Shaped, form: Form) -> "Written":
        """Return the record of a change as it is written."""
        mean = sum(cut.error for cut in shaped.cuts) / len(shaped.cuts) if shaped.cuts else 0.0
        return cls(form, shaped.dtype, mean, shaped.cuts)


@dataclass(frozen=True, kw_only=True)
class TaskVectorRecord:
    """How large τ is, and how much of it moved."""

    relative_norm: float
    """‖τ‖/‖θ_A‖"""
    moved_share: float
    """Share of ‖τ‖² that the pairs take."""
    kept_share: float
    """Share of what moved that lies inside the span of the maps."""
    adapter: dict[str, Any] | None = None
    """What kind of adapter the source is, and how it was read."""
    written: Written | None = maybe()

    @property
    def whole(self) -> bool:
        """Whether it was written into a whole model."""
        return self.written is not None and self.written.form is Form.MODEL

    @classmethod
    def of(
        cls, ratio: float, whole: Account, moved: Sequence[Moved], adapter: dict[str, Any] | None = None
    ) -> "TaskVectorRecord":
        """Return the record of a task vector.

        Args:
            ratio: ‖τ‖/‖θ_A‖
        """
        taken = sum(entry.norm**2 for entry in moved)
        kept = sum(entry.kept * entry.norm**2 for entry in moved)
        share = kept / taken if taken else 1.0
        return cls(relative_norm=ratio, moved_share=whole.moved_share, kept_share=share, adapter=adapter)


@dataclass(frozen=True)
class SiteRow:
    """A linear map that moves, with its shapes (d_out, d_in)."""

    role: str
    source: tuple[int, int]
    target: tuple[int, int]


@dataclass(frozen=True)
class LayerRow:
    """Which block of the base hands over to a block of the target."""

    tower: str
    target: int | None
    """Depth of the block; None outside the blocks."""
    source: int | None
    """Depth of the base's block; None outside the blocks."""
    sites: tuple[SiteRow, ...]


@dataclass(frozen=True)
class MatchingRecord:
    """The rule by which blocks were matched, and what it found."""

    rule: str
    layers: str | None = None
    skip: str | None = None
    paths: dict[str, list[int | None]] | None = maybe()
    """Tower → the base's block for every block of the target."""
    cka: dict[str, list[list[float]]] | None = maybe()
    """Tower → (L_B, L_A) CKA of the blocks' inputs."""


@dataclass(frozen=True)
class HeadRecord:
    """Which head the target has, and how well the map of its input fits, where it was carried."""

    kind: HeadKind
    carried: tuple[str, ...]
    """Names of the target's layers that were carried."""
    input: Fit | None
    labels: tuple[str, ...] | None = maybe()
    """Names of the classes of a live fine-tune."""
    tried: dict[str, float] | None = maybe()
    """Kind of head → its loss on held-out samples, summed, where one was chosen."""
    behind: str | None = maybe()
    """What sentence-transformers put behind the model, in words."""


@dataclass(frozen=True)
class Measured:
    """A score of a live port, as its author measured it."""

    metric: str
    value: float
    alpha: float | None = None
    """α of the port that was scored; None for the target without it, or where nobody said."""
    without_port: bool = False
    """Whether the target was scored as it was."""

    @property
    def label(self) -> str:
        """What the card calls it."""
        if self.without_port:
            return f"{self.metric} of the new base without the port"
        return self.metric if self.alpha is None else f"{self.metric} with the port (α = {self.alpha:g})"


@dataclass(frozen=True)
class Environment:
    """Versions, device, time and peak memory of the process."""

    versions: dict[str, str]
    python: str
    device: str
    threads: int
    seconds: dict[str, float]
    """Stage → seconds."""
    peak_memory_bytes: int
    peak_device_memory_bytes: int | None
    energy_kwh: float | None = maybe()
    """As CodeCarbon measured it, where that is installed."""

    @classmethod
    def of(cls, device: str, seconds: Mapping[str, float], energy_kwh: float | None = None) -> "Environment":
        """Return the record of this process."""
        return cls(
            {name: version(name) for name in LIBRARIES},
            platform.python_version(),
            title(device),
            torch.get_num_threads(),
            {stage: round(taken, 2) for stage, taken in seconds.items()},
            peak_memory(),
            peak(device) if is_accelerator(device) else None,
            energy_kwh,
        )


def origins(lineage: Lineage, hashes: Mapping[str, str]) -> dict[str, Origin]:
    """Return where everything came from, by role.

    Args:
        hashes: sha256 of the models' weights, by role; a local folder has no commit, and they stand for it.
    """
    return {role: Origin.of(pinned, hashes.get(role)) for role, pinned in vars(lineage).items()}


def layer_table(pairs: Sequence[Pair]) -> tuple[LayerRow, ...]:
    """Return which block of the base hands over to which block of the target, with widths: one row per block."""
    rows: dict[tuple[str, int | None], LayerRow] = {}
    for a, b in pairs:
        row = rows.get((b.tower, b.depth)) or LayerRow(b.tower, b.depth, a.depth, ())
        site = SiteRow(b.role, (a.d_out, a.d_in), (b.d_out, b.d_in))
        rows[b.tower, b.depth] = LayerRow(row.tower, row.target, row.source, (*row.sites, site))
    return tuple(rows.values())
