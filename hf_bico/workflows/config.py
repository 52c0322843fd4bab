"""The choices of a port."""

from dataclasses import dataclass
from pathlib import Path

from hf_bico.io.changes.forms import MODEL


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
    max_length: int = 256
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
    maps: str | None = None
    """A folder or repo that `hf-bico align` made: its maps are moved through, and none are estimated."""
    alpha: float | str = 1.0
    """A number, or "auto" for a line search."""
    batch_size: int = 8
    device: str | None = None
    form: str = MODEL
    """model, or delta or lora of the target."""
    dtype: str | None = None
    """That a delta's matrices are stored in: bfloat16 unless given, or float32 where that would be measurable."""
    rank: int | None = None
    energy: float | None = None
    """Of a layer's ‖τ_B‖², in (0, 1]; with `rank`, how much of a change that is no LoRA's a LoRA keeps."""
    output: Path | None = None
    push: bool = False
    push_to: str | None = None
    private: bool | None = None
    create_pr: bool = False
    commit_message: str | None = None
    allow_regression: bool = False
