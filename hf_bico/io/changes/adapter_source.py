"""A fine-tune that is an adapter of its base: its tensors and its task vector, from the two models' files."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hf_bico.core.difference import Compared, Difference
from hf_bico.core.errors import PortError, listed, setting
from hf_bico.core.finite import is_finite
from hf_bico.core.low_rank import Factored, LowRank
from hf_bico.core.types import Tensors
from hf_bico.families import Library, Purpose
from hf_bico.families.layout import is_transposed
from hf_bico.families.protocol import Stored
from hf_bico.families.tokenizing import fit_vocabulary
from hf_bico.io.adapter import CONFIG, PREFIX, WEIGHTS, AdapterConfig, Change, read_lora, stripped
from hf_bico.io.changes.delta import LazyTensors
from hf_bico.io.checkpoints import Named, SafeTensors
from hf_bico.io.models import RepoModel
from hf_bico.io.names import adapter_names

MOST_TOKENS = 1 << 24
"""No vocabulary has as many."""
BESIDE = ".base_layer.weight"
"""How the name of a layer's own weight ends that was saved beside an adapter's factors."""


@dataclass(frozen=True)
class Adapted(Mapping[str, Tensor]):
    """A base's tensors with an adapter in them, read one at a time."""

    plain: Named
    """The base's tensors, or the adapter's where it holds them whole."""
    shapes: Mapping
    """Name → anything with the shape of the base's tensor."""
    whole: frozenset[str]
    """Names of the tensors in `plain` that are not the base's."""
    products: Mapping[str, LowRank] = field(default_factory=dict)
    """Name → what is added to a weight, in its stored orientation."""
    magnitudes: Mapping[str, tuple[Tensor, bool]] = field(default_factory=dict)
    """Name → DoRA's row norms, and whether the weight is stored transposed."""
    biases: Mapping[str, Tensor] = field(default_factory=dict)
    """Name → what is added to a bias."""
    read: str = "as factors, exact"
    """How the adapter was read, for the report."""

    @property
    def changed(self) -> frozenset[str]:
        """Names of the tensors that the adapter changes."""
        return self.whole | self.products.keys() | self.biases.keys()

    @property
    def own(self) -> "Adapted":
        """The tensors that the adapter changes, alone."""
        return self.without(self.keys() - self.changed)

    def without(self, keys: Iterable[str]) -> "Adapted":
        """Return the same tensors without some, by name."""
        return replace(self, plain=self.plain.without(keys))

    def __getitem__(self, key: str) -> Tensor:
        found = self.plain[key]
        if key in self.biases:
            return found.float() + self.biases[key].float()
        if key not in self.products:
            return found
        wide = found.float() + self.products[key].dense().reshape(found.shape)
        if key in self.magnitudes:
            magnitude, transposed = self.magnitudes[key]
            rows = wide.T if transposed else wide
            scaled = (magnitude.float() / rows.norm(dim=1))[:, None] * rows
            return scaled.T if transposed else scaled
        return wide

    def __iter__(self) -> Iterator[str]:
        return iter(self.plain)

    def __contains__(self, key: object) -> bool:
        return key in self.plain

    def __len__(self) -> int:
        return len(self.plain)


class AdapterChange(Factored, Compared):
    """The task vector of an adapter: factors stay factors, and the change of what it does not touch has rank 0.

    Args:
        must: names of the tensors that the base must have in the adapter's shape; others that it holds whole, such as
            embeddings of more tokens, are `apart` where they differ.

    Raises:
        PortError: on construction, for such tensors that differ, all of them listed; on reading, for NaN or Inf.
    """

    def __init__(self, tuned: Adapted, base: Named, must: Iterable[str]) -> None:
        self.tuned, self.base, self.rounded = tuned, base, dict[str, float]()
        self.apart = {
            key: f"{tuple(tuned.plain[key].shape)} in the adapter, {tuple(tuned.shapes[key].shape)} in the base"
            for key in tuned.whole & tuned.keys() & base.keys()
            if tuned.plain[key].shape != tuned.shapes[key].shape
        }
        self.apart |= dict.fromkeys(tuned.keys() - base.keys(), "only in the adapter")
        wanted = set(must)
        odd = [f"{key} is {how}" for key, how in sorted(self.apart.items()) if key in wanted]
        if odd:
            raise PortError(f"not an adapter of this base; name the right one with {setting('base')}: {listed(odd)}")

    def shared(self, key: str) -> Tensor | None:
        if key not in self.base:
            return None
        return Difference({key: self.tuned[key]}, {key: self.base[key]}, must=()).shared(key)

    def factors(self, key: str) -> LowRank | None:
        shape, tuned = tuple(self.tuned.shapes[key].shape), self.tuned
        if len(shape) != 2 or key in tuned.magnitudes or key in tuned.whole:
            return None
        return tuned.products.get(key) or LowRank.zero(shape)

    def __getitem__(self, key: str) -> Tensor:
        tuned, shape = self.tuned, tuple(self.tuned.shapes[key].shape)
        if key not in tuned.changed:
            return torch.zeros(shape)
        if key in tuned.products and key not in tuned.magnitudes and key not in tuned.whole:
            return tuned.products[key].dense().reshape(shape)
        base = self.base[key]
        tau = tuned[key].to(torch.promote_types(base.dtype, torch.float32)) - base
        if not is_finite(tau):
            raise PortError(f"NaN or Inf in {key} of the adapter or its base")
        return tau

    def __iter__(self) -> Iterator[str]:
        return (key for key in self.base if key not in self.apart)

    def __contains__(self, key: object) -> bool:
        return key in self.base and key not in self.apart

    def __len__(self) -> int:
        return sum(1 for _ in self)


def open_adapted(
    library: Library, purpose: Purpose, source: RepoModel, base: Named, shapes: Mapping, folders: Sequence[Path]
) -> Adapted:
    """Return the base with its adapter: read here if it is a plain LoRA, else merged by PEFT.

    Args:
        source: the adapter's insides.
        base: the base's tensors.
        shapes: name → anything with the shape of the base's tensor.
        folders: those of the adapter and of the base.

    Raises:
        PortError: the adapter does not fit its base, or PEFT cannot merge it.
    """
    config, stored = source.adapter, adapter_names(SafeTensors(folders[0] / WEIGHTS), str(source.pinned))
    assert config is not None  # only adapters come here
    whole = frozenset(name for name, found in source.shapes.names.items() if found.key.startswith(PREFIX))
    either = LazyTensors({key: partial(part.__getitem__, key) for part in (base.stored, stored) for key in part})
    plain = Named(either, source.shapes.names)
    if config.plain:
        placed = {stripped(plain.names[name].key) for name in whole}
        read = read_lora(config, stored)
        all_placed = {name for key in stored if (name := stripped(key))} <= placed
        if not read.unknown and all_placed and not _is_grown(library, source, shapes, stored):
            how = "as a DoRA, whose change is dense" if config.dora else "as factors, exact"
            empty = Adapted(plain, shapes, whole, read=how)
            return _placed(empty, library, source, read.modules)
    state = merged(library, purpose, source, folders)
    names = {key: Stored(key) for key in source.shapes.names}
    changed = frozenset(key for key in names if key not in base or not torch.equal(state[key], base[key].float()))
    return Adapted(Named(state, names), shapes, changed, read="merged by PEFT, which makes its change dense")


def _is_grown(library: Library, source: RepoModel, shapes: Mapping, stored: Mapping[str, Any]) -> bool:
    """Return whether an adapter changes a layer that has more tokens than in its base, which it has saved beside it."""
    layers = {key.removeprefix(PREFIX).replace(BESIDE, ".weight"): key for key in stored if key.endswith(BESIDE)}
    own = {name: stored[layers[at.key]] for name, at in library.names(source.skeleton, layers).items()}
    return any(name in shapes and tuple(shapes[name].shape) != tuple(own[name].shape) for name in own)


def _placed(adapted: Adapted, library: Library, source: RepoModel, modules: Mapping[str, Change]) -> Adapted:
    """Return `adapted` with the factors, magnitudes and biases of a LoRA's modules, under the base's names.

    Raises:
        PortError: modules that the base lacks, ties to another layer, or has in another shape; all of them listed.
    """
    skeleton, own = source.skeleton, source.skeleton.state_dict().keys()
    found = library.names(skeleton, [f"{module}.weight" for module in modules])
    places = {
        stored.key.removesuffix(".weight"): name for name, stored in found.items() if stored == Stored(stored.key)
    }
    products, magnitudes, biases, odd = {}, {}, {}, []
    for module, change in modules.items():
        name = places.get(module)
        if name is None or name not in adapted.shapes:
            odd.append(f"{module} is not in the base")
            continue
        if name != f"{module}.weight" and f"{module}.weight" in own:
            odd.append(f"{module} is tied to {name}, and the adapter changes one of the two")
        transposed = is_transposed(skeleton.get_submodule(name.removesuffix(".weight")))
        products[name] = change.product(transposed)
        rows, *columns = adapted.shapes[name].shape
        if products[name].shape != (rows, torch.Size(columns).numel()):
            odd.append(f"{module} is {products[name].shape} in the adapter, {(rows, *columns)} in the base")
        if change.magnitude is not None:
            magnitudes[name] = change.magnitude.flatten(), transposed
        if change.bias is not None:
            biases[name.removesuffix("weight") + "bias"] = change.scale * change.bias.float()
    odd += [f"{name} is not in the base" for name in biases if name not in adapted.shapes]
    if odd:
        raise PortError(f"not an adapter of this base; name the right one with {setting('base')}: {listed(odd)}")
    return replace(adapted, products=products, magnitudes=magnitudes, biases=biases)


def tokens_of(config: AdapterConfig, stored: Mapping[str, Any]) -> int:
    """Return how many tokens an adapter's base must have for those that it trains one by one; 0 if there are none.

    Args:
        stored: the adapter's tensors, or anything with their shapes.
    """
    trained = config.data.get("trainable_token_indices") or ()
    each = trained.values() if isinstance(trained, Mapping) else [trained]
    numbers = [n for some in each for n in (some if isinstance(some, list | tuple) else [some])]
    if not all(isinstance(n, int) and 0 <= n < MOST_TOKENS for n in numbers):
        raise PortError(f"{CONFIG}: trainable_token_indices is no list of tokens' numbers")
    rows = [stored[key].shape[0] for key in stored if key.endswith(f".token_adapter{BESIDE}")]
    rows += [stored[key].shape[1] for key in stored if key.endswith(".lora_embedding_A")]
    return max(rows, default=1 + max(numbers, default=-1))


def merged(library: Library, purpose: Purpose, source: RepoModel, folders: Sequence[Path]) -> Tensors:
    """Return the state dict of the base in folders[1] with the adapter in folders[0] merged into it by PEFT.

    Args:
        source: the adapter's insides; it may have more tokens than its base.

    Raises:
        PortError: PEFT cannot merge it.
    """
    from peft import PeftModel

    model = library.load(folders[1], "cpu", purpose).model
    if source.adapter is not None:
        fit_vocabulary(model, source.shapes, tokens_of(source.adapter, SafeTensors(folders[0] / WEIGHTS)))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            state = PeftModel.from_pretrained(model, folders[0]).merge_and_unload().state_dict()
        except Exception as error:  # whatever it makes of a config
            raise PortError(f"PEFT cannot merge the adapter: {' '.join(str(error).split())[:300]}") from error
    missing = [str(each.message) for each in told if "missing adapter keys" in str(each.message)]
    if missing:
        raise PortError(f"not an adapter of this base; name the right one with {setting('base')}: " + missing[0][:300])
    return state
