"""PEFT adapters on disk: what adapter_config.json says, and which tensors of a base the file changes. No PEFT needed.

A LoRA changes W by s B A (s = α/r; rank-stabilised: α/√r). Read here too are its biases, whole tensors (`bias`,
`modules_to_save`), and DoRA, W ← m (W + s B A)/‖W + s B A‖ row by row, which is dense. Everything else is left to
PEFT, which merges it into the live base.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from hf_bico.core.errors import PortError, listed, setting
from hf_bico.core.low_rank import LowRank
from hf_bico.core.notes import note
from hf_bico.io.nested import flattened
from hf_bico.io.outside import at, kind_of, read_object
from hf_bico.io.reference import Pinned

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
SOURCE_KINDS = ("model", "adapter")
"""What a source is taken for."""
KINDS: dict[str, tuple[type, str]] = {
    **dict.fromkeys(("base_model_name_or_path", "revision", "task_type"), (str, "a text")),
    **dict.fromkeys(("use_dora", "use_rslora", "lora_bias", "fan_in_fan_out"), (bool, "true or false")),
    **dict.fromkeys(("rank_pattern", "alpha_pattern"), (dict, "an object")),
}
"""Settings that are read here → what they are, if they are not null."""
PLAIN_INIT = (True, False, None, "gaussian", "eva", "orthogonal")
"""Initialisations of a LoRA that leave the base as it is."""
SPECIAL = (
    "layer_replication",
    "use_qalora",
    "alora_invocation_tokens",
    "trainable_token_indices",
    "target_parameters",
    "arrow_config",
    "use_bdlora",
    "monteclora_config",
    "kasa_config",
    "velora_config",
)
"""Settings that make a LoRA more than s B A."""
MERGEABLE = (
    "LORA",
    "ADALORA",
    "LOHA",
    "LOKR",
    "OFT",
    "BOFT",
    "IA3",
    "VERA",
    "FOURIERFT",
    "HRA",
    "LN_TUNING",
    "VBLORA",
    "MISS",
    "RANDLORA",
    "SHIRA",
    "C3A",
    "ROAD",
    "DELORA",
)
"""PEFT types whose change can be merged into the weights."""
_FACTOR = re.compile(r"(.+)\.lora_(?:(embedding)_)?([AB])(?:\.(weight|bias))?")
_MAGNITUDE = re.compile(r"(.+)\.lora_magnitude_vector(?:\.weight)?")
_ASIDE = re.compile(r"\.(modules_to_save|base_layer)(?=\.)")


MODEL = re.compile(r"(model|pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)(\.index\.json)?")
"""Names of the files of a whole model's weights."""


def is_adapter(pinned: Pinned) -> bool:
    """Return whether a repo holds an adapter and no whole model."""
    return CONFIG in pinned.files and not {"model.safetensors", "model.safetensors.index.json"} & set(pinned.files)


def one_kind(pinned: Pinned, kind: str | None = None, subfolder: str | None = None) -> Pinned:
    """Return a source as if it held one thing alone: of a whole model and an adapter the one asked for, else the model.

    Args:
        kind: "model" or "adapter"; None where nobody chose.
        subfolder: the folder of the repo that it is in; None for the repo itself.

    Raises:
        PortError: there is none of that kind, or no such folder.
    """
    pinned = flattened(pinned.inside(subfolder)) if subfolder else pinned
    if kind not in (None, *SOURCE_KINDS):
        raise PortError(f"{setting('source_kind')} {kind}: give {' or '.join(SOURCE_KINDS)}")
    whole = [name for name in pinned.files if MODEL.fullmatch(name)]
    adapter = CONFIG in pinned.files
    if (kind == "model" and not whole) or (kind == "adapter" and not adapter):
        raise PortError(f"{pinned} holds no {'whole model' if kind == 'model' else 'adapter'}: leave out that choice")
    if not (whole and adapter):
        return pinned
    if kind is None:
        mend = f"{setting('source_kind')} adapter takes the other"
        note(f"{pinned} holds a whole model and an adapter: the model is scored and moved; {mend}")
    return pinned.without(*whole) if kind == "adapter" else pinned.without(CONFIG, WEIGHTS)


@dataclass(frozen=True)
class AdapterConfig:
    """What adapter_config.json says."""

    kind: str
    """PEFT's type, in capitals."""
    base: str | None = None
    """The base's repo or folder."""
    revision: str | None = None
    """The base's revision."""
    data: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, folder: Path, files: Iterable[str]) -> "AdapterConfig":
        """Return the adapter_config.json of a folder.

        Args:
            files: names of the adapter's files.

        Raises:
            PortError: it is not a JSON object, its type cannot be ported, or there are no weights safe to read.
        """
        data = read_object(folder / CONFIG)
        for key, (kind_, words) in KINDS.items():
            if not isinstance(data.get(key), kind_ | None):
                raise PortError(f"{CONFIG}: {key} is {kind_of(data[key])}, where {words} or null belongs")
        kind = str(data.get("peft_type")).upper()
        if kind not in MERGEABLE:
            raise PortError(f"a {kind} adapter's change cannot be ported; that of {', '.join(MERGEABLE)} can")
        if data.get("megatron_config") is not None:  # PEFT would import what `megatron_core` names
            raise PortError(f"{CONFIG}: an adapter of Megatron's layers (megatron_config) cannot be ported")
        if WEIGHTS not in files:
            raise PortError(
                f"the adapter has no {WEIGHTS}; pickled weights (adapter_model.bin) can run code when opened and are "
                "not read: PeftModel.from_pretrained(BASE, ADAPTER).save_pretrained(FOLDER) converts them"
            )
        return cls(kind, data.get("base_model_name_or_path") or None, data.get("revision") or None, data)

    @property
    def plain(self) -> bool:
        """Whether the adapter is a LoRA that is read here; else PEFT merges it."""
        return (
            self.kind == "LORA"
            and self.data.get("init_lora_weights", True) in PLAIN_INIT
            and not any(self.data.get(name) for name in SPECIAL)
            and all(self.data.get(name) in (None, False) for name in SPECIAL if name.endswith("_config"))  # {} is one
        )

    @property
    def dora(self) -> bool:
        """Whether the LoRA is a DoRA."""
        return bool(self.data.get("use_dora"))

    @property
    def task(self) -> str | None:
        """PEFT's task type."""
        return self.data.get("task_type")

    @property
    def cls(self) -> str | None:
        """The base's class, which PEFT notes where there is no task type."""
        found = at(self.data, "auto_mapping", "base_model_class")
        return found if isinstance(found, str) else None

    def scale(self, module: str) -> tuple[int, float]:
        """Return a module's rank and scale (r, s); of the patterns, the first that matches the end of its name counts.

        Raises:
            PortError: the config's ranks and alphas cannot be read.
        """
        try:
            r, alpha = (
                _of_pattern(self.data.get(pattern) or {}, module, self.data.get(name, 8))
                for pattern, name in (("rank_pattern", "r"), ("alpha_pattern", "lora_alpha"))
            )
            return r, alpha / (r**0.5 if self.data.get("use_rslora") else r)
        except (AttributeError, TypeError, ZeroDivisionError, re.error) as error:
            raise PortError(f"the ranks and alphas of {CONFIG} cannot be read ({error})") from error


def _of_pattern(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    return next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module)), default)


@dataclass
class Change:
    """A LoRA's tensors for one module."""

    b: Tensor | None = None
    """(d_out, r)"""
    a: Tensor | None = None
    """(r, d_in)"""
    bias: Tensor | None = None
    """`lora_B`'s own bias."""
    magnitude: Tensor | None = None
    """DoRA's row norms."""
    embedding: bool = False
    scale: float = 1.0

    def product(self, transposed: bool) -> LowRank:
        """Return s B A, float32, as the base stores the weight; a convolution's as a matrix."""
        b, a = self.b, self.a
        assert b is not None and a is not None  # `read_lora` refuses one without the other
        found = LowRank(self.scale * b.float().flatten(1), a.float().flatten(1))
        return found.T if self.embedding or transposed else found


@dataclass(frozen=True)
class Read:
    """A LoRA's tensors, by module."""

    modules: dict[str, Change]
    unknown: tuple[str, ...]
    """Keys that are neither of a LoRA nor a whole tensor's."""


def stripped(key: str) -> str | None:
    """Return the name of the base's tensor that a key holds whole; None for a key of another kind."""
    if not key.startswith(PREFIX) or _FACTOR.fullmatch(key) or _MAGNITUDE.fullmatch(key) or ".original_module." in key:
        return None
    if key.endswith(".base_layer.weight"):
        return None
    return _ASIDE.sub("", key.removeprefix(PREFIX))


def read_lora(config: AdapterConfig, tensors: Mapping[str, Tensor]) -> Read:
    """Return the factors, biases and magnitudes of a plain LoRA by module; whole tensors are not among them.

    Raises:
        PortError: a factor without its partner or of another rank than the config's, magnitudes of a LoRA that is no
            DoRA or none of one that is, NaN or Inf; all of them listed.
    """
    modules: dict[str, Change] = {}
    unknown = []
    for key in tensors:
        factor, magnitude = _FACTOR.fullmatch(key), _MAGNITUDE.fullmatch(key)
        found = factor or magnitude
        if found and key.startswith(PREFIX):
            change = modules.setdefault(found[1].removeprefix(PREFIX), Change())
            name = "magnitude" if not factor else "bias" if factor[4] == "bias" else factor[3].lower()
            setattr(change, name, tensors[key])
            change.embedding |= bool(factor and factor[2])
        elif stripped(key) is None and ".original_module." not in key:
            unknown.append(key)
    odd = []
    for module, change in modules.items():
        r, change.scale = config.scale(module)
        ranks = [
            getattr(change, side) is not None and getattr(change, side).shape[dim] for side, dim in (("b", 1), ("a", 0))
        ]
        if ranks != [r, r]:
            odd.append(f"{module} has factors of rank {ranks[0] or 'none'} and {ranks[1] or 'none'}, not {r}")
        if config.dora != (change.magnitude is not None):
            odd.append(f"{module} has {'no magnitudes, and is' if config.dora else 'magnitudes, and is not'} a DoRA's")
        if any(not x.isfinite().all() for x in (change.b, change.a, change.bias, change.magnitude) if x is not None):
            odd.append(f"{module} has NaN or Inf")
    if odd:
        raise PortError(f"the adapter's file does not fit its config: {listed(odd)}")
    return Read(modules, tuple(unknown))
