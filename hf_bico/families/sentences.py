"""What sentence-transformers puts behind a model: how its rows become one feature, and the words before every text.

The files are its own (https://sbert.net, `modules.json`); they are read and written here without it.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hf_bico.core.errors import PortError

MODULES, PROMPTS, LENGTHS = "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"
SAYS = re.compile(r"modules\.json|config_sentence_transformers\.json|sentence_bert_config\.json|\d+_\w+/config\.json")
"""Names of the files that say what is behind a model."""
HOLDS = re.compile(r"\d+_\w+/(config\.json|model\.safetensors)")
"""Names of the files of a module."""
LEGACY = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""How older versions wrote a mode of pooling, in the order in which they join several."""
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "Identity": nn.Identity,
    "Tanh": nn.Tanh,
    "ReLU": nn.ReLU,
    "GELU": nn.GELU,
    "SiLU": nn.SiLU,
    "Sigmoid": nn.Sigmoid,
}


@dataclass(frozen=True)
class Dense:
    """A linear layer behind the pooling."""

    path: str
    """Its folder."""
    activation: str
    """Name of torch's module."""
    weight: Tensor
    """(d_out, d_in), float32"""
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        """Return the features (n, d_out) of features x (n, d_in)."""
        bias = None if self.bias is None else self.bias.to(x)
        made: Tensor = ACTIVATIONS[self.activation]()(nn.functional.linear(x, self.weight.to(x), bias))
        return made


@dataclass(frozen=True)
class Sentence:
    """What is behind a model of features."""

    pooling: tuple[str, ...] = ("mean",)
    """Modes; several are joined."""
    prompt: str = ""
    """What every text begins with."""
    query: str = ""
    """What a text begins with whose partner is sought."""
    document: str = ""
    """What its partner begins with."""
    max_length: int | None = None
    """The most tokens of a text, if that is said."""
    dense: tuple[str, ...] = ()
    """Folders of the linear layers behind the pooling, in order."""
    files: Mapping[str, Any] = field(default_factory=dict)
    """The JSON files that say so, by name."""

    @property
    def says(self) -> str:
        """What it is, in words."""
        parts = [f"{' and '.join(self.pooling)} pooling", *(f"{path} carried" for path in self.dense)]
        return ", ".join(parts + ["prompts"] * bool(self.files.get(PROMPTS, {}).get("prompts")))

    def pooled(self, rows: Tensor, mask: Tensor) -> Tensor:
        """Return the features (n, d) of rows (n, T, d).

        Args:
            mask: (n, T), 0 at padding, which is on the right.
        """
        return torch.cat([_POOLED[mode](rows, mask.to(rows)) for mode in self.pooling], dim=-1)

    def layers(self, folder: Path) -> tuple[Dense, ...]:
        """Return the linear layers in a model's folder.

        Raises:
            PortError: one is not in safetensors, or cannot be read.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        found = []
        for path in self.dense:
            file = folder / path / "model.safetensors"
            if not file.exists():
                raise PortError(f"{path} has no model.safetensors, and nothing is unpickled here: save it as that")
            try:
                tensors = {key: tensor.float() for key, tensor in load_file(file).items()}
            except SafetensorError as error:
                raise PortError(f"{path}/model.safetensors cannot be read ({error}); fetch it again") from error
            if "linear.weight" not in tensors:
                raise PortError(f"{path}/model.safetensors has no linear.weight: it is not a Dense layer")
            said = self.files[f"{path}/config.json"]
            activation = str(said.get("activation_function") or "Identity").rsplit(".", 1)[-1]
            if activation not in ACTIVATIONS or said.get("use_residual"):
                raise PortError(
                    f"{path} has a {activation}{' and a residual' * bool(said.get('use_residual'))}, which "
                    f"this version does not know; it ports {', '.join(ACTIVATIONS)}"
                )
            found.append(Dense(path, activation, tensors["linear.weight"], tensors.get("linear.bias")))
        return tuple(found)

    def write(self, stage: Path, width: int, layers: Sequence[Dense]) -> None:
        """Write what is behind a model into its folder; the model itself lies at its top.

        Args:
            width: d, of the model's rows.
            layers: with the folders of `dense`.
        """
        from safetensors.torch import save_file

        sizes = {layer.path: layer.weight.shape for layer in layers}
        for name, data in self.files.items():
            said = data
            folder = name.removesuffix("/config.json")
            if name == MODULES:
                said = [{**each, "path": "" if number == 0 else each["path"]} for number, each in enumerate(data)]
            elif folder in sizes:
                said = {**data, "in_features": sizes[folder][1], "out_features": sizes[folder][0]}
            elif "/" in name:
                said = {key: width if key in WIDTHS else value for key, value in data.items()}
            (stage / name).parent.mkdir(parents=True, exist_ok=True)
            (stage / name).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
        for layer in layers:
            bias = {} if layer.bias is None else {"linear.bias": layer.bias}
            save_file({"linear.weight": layer.weight.contiguous(), **bias}, stage / layer.path / "model.safetensors")

    def own(self, name: str) -> bool:
        """Return whether a file of a module is one of these."""
        return name.split("/")[0] in {key.split("/")[0] for key in self.files}


PLAIN = Sentence()
"""What is behind any other model: the mean of its rows."""
WIDTHS = ("word_embedding_dimension", "embedding_dimension")
"""Entries of a pooling's config with the width of the rows."""


def _mean(rows: Tensor, mask: Tensor) -> Tensor:
    return (rows * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def _weighted(rows: Tensor, mask: Tensor) -> Tensor:
    weights = mask * torch.arange(1, rows.shape[1] + 1, device=rows.device)
    return (rows * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)


_POOLED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": _mean,
    "cls": lambda rows, mask: rows[:, 0],
    "max": lambda rows, mask: rows.masked_fill(mask[..., None] == 0, -1e9).amax(1),
    "mean_sqrt_len_tokens": lambda rows, mask: _mean(rows, mask) * mask.sum(1, keepdim=True).sqrt(),
    "weightedmean": _weighted,
    "lasttoken": lambda rows, mask: rows[torch.arange(len(rows)), mask.sum(1).long() - 1],
}
"""Mode → rows (n, T, d), mask (n, T) → features (n, d)."""


def said_in(files: Iterable[str]) -> tuple[str, ...]:
    """Return those of a repo's files that say what is behind its model."""
    files = list(files)
    return tuple(name for name in files if SAYS.fullmatch(name)) if MODULES in files else ()


def sentence_of(folder: Path) -> Sentence | None:
    """Return what is behind the model of a folder; None if sentence-transformers did not write it.

    Raises:
        PortError: there is a module that is not known.
    """
    if not (folder / MODULES).exists():
        return None
    modules = _json(folder / MODULES)
    kinds = [str(each["type"]).rsplit(".", 1)[-1] for each in modules]
    odd = [kind for kind in kinds if kind not in KNOWN]
    if odd or kinds[:1] != ["Transformer"]:
        raise PortError(
            f"modules.json has {', '.join(odd) or 'no Transformer first'}, which this version does not know; it ports "
            f"{', '.join(KNOWN)}"
        )
    names = [MODULES, PROMPTS, LENGTHS, *(f"{each['path']}/config.json" for each in modules[1:] if each["path"])]
    files = {name: _json(folder / name) for name in names if (folder / name).exists()}
    found = Sentence(files=files, max_length=files.get(LENGTHS, {}).get("max_seq_length"))
    for kind, each in zip(kinds, modules, strict=True):
        said = files.get(f"{each['path']}/config.json", {})
        if kind == "Pooling":
            found = replace(found, pooling=_modes(said))
        if kind == "Dense":
            found = replace(found, dense=(*found.dense, each["path"]))
    said = files.get(PROMPTS, {})
    prompts = said.get("prompts") or {}
    prompt = prompts.get(said.get("default_prompt_name") or "", "")
    document = next((prompts[name] for name in ("document", "passage", "corpus") if name in prompts), "")
    return replace(found, prompt=prompt, query=prompts.get("query", ""), document=document)


KNOWN = ("Transformer", "Pooling", "Dense", "Normalize", "Dropout")
"""The modules that are known; lengths of features and dropout are nothing here."""


def _modes(said: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the modes of a pooling's config, of an older version's too.

    Raises:
        PortError: one is not known.
    """
    given = said.get("pooling_mode") or [mode for key, mode in LEGACY.items() if said.get(key)] or "mean"
    modes = (given,) if isinstance(given, str) else tuple(given)
    odd = [mode for mode in modes if mode not in _POOLED]
    if odd:
        raise PortError(f"its pooling is {', '.join(odd)}, which this version does not know")
    return modes


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PortError(f"{path.name} is no JSON: {error}") from error
