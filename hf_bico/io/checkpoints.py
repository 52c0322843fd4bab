"""Model repos on disk: tensors are read lazily and never unpickled, and no two whole models are held at once."""

from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from hf_bico.core.device import usual
from hf_bico.core.errors import PortError, listed, setting
from hf_bico.core.finite import is_finite
from hf_bico.core.types import Tensors
from hf_bico.families.protocol import Library, Purpose, Stored
from hf_bico.io import adapter
from hf_bico.io.adapter import is_adapter
from hf_bico.io.bounds import require_sound, within
from hf_bico.io.hub import Hub
from hf_bico.io.outside import read_object, require_header
from hf_bico.io.reference import Pinned, errors_about


class SafeTensors(Mapping[str, Tensor]):
    """The tensors in safetensors files, the shards of one model, read one at a time.

    Raises:
        PortError: a file is not a readable safetensors file, or two of them hold the same tensor.
    """

    def __init__(self, *paths: Path) -> None:
        self.files: dict[str, Any] = {}
        self.opened: list[Any] = []
        for path in paths:
            try:
                file = safe_open(path, framework="pt")
            except (SafetensorError, OSError) as error:
                raise PortError(f"{path.name} is not a readable safetensors file ({error}); fetch it again") from error
            self.opened.append(file)
            keys = list(file.keys())
            if twice := [key for key in keys if key in self.files]:
                raise PortError(f"{path.name} holds {twice[0]}, which another shard holds too")
            self.files |= dict.fromkeys(keys, file)
            require_header({key: (self.shape(key), self.dtype(key)) for key in keys}, path.name)

    @classmethod
    def of(cls, library: Library, pinned: Pinned, folder: Path) -> "SafeTensors":
        """Return the tensors of a repo's weights, of all shards.

        Raises:
            PortError: a shard cannot be read, or the index names other files or other tensors than there are.
        """
        tensors = cls(*(folder / name for name in shards(library, pinned)))
        for index in (name for name in library.weights(pinned.files) if name.endswith(".json")):
            tensors.check_index(folder / index, shards(library, pinned))
        return tensors

    def check_index(self, index: Path, files: Iterable[str]) -> None:
        """Refuse an index that does not agree with the tensors.

        Args:
            index: the index file.
            files: names of the files that the tensors are read from.

        Raises:
            PortError: the index cannot be read, or names other files than those, or other tensors than they have.
        """
        try:
            said = dict(read_object(index)["weight_map"])
            odd = sorted(set(map(str, said.values())) - set(files))
        except (KeyError, TypeError, ValueError) as error:
            raise PortError(f"{index.name} has no readable weight_map: fetch the repo again") from error
        if odd or set(said) != set(self):
            raise PortError(
                f"{index.name} does not agree with the shards beside it"
                + (f" (it names {listed(odd)})" if odd else "")
                + ": fetch the repo again"
            )

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata in the headers of all files together."""
        return {key: value for file in self.opened for key, value in (file.metadata() or {}).items()}

    def shape(self, key: str) -> tuple[int, ...]:
        """Return the shape of a tensor, from the header alone."""
        return tuple(self.files[key].get_slice(key).get_shape())

    def dtype(self, key: str) -> str:
        """Return the dtype of a tensor as safetensors spells it, from the header alone."""
        return str(self.files[key].get_slice(key).get_dtype())

    def __getitem__(self, key: str) -> Tensor:
        """Return a tensor; one of 8-bit floats, with which nothing can be computed, widened to float32."""
        found: Tensor = self.files[key].get_tensor(key)
        return found.float() if found.is_floating_point() and found.itemsize == 1 else found

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __contains__(self, key: object) -> bool:
        return key in self.files

    def __len__(self) -> int:
        return len(self.files)


class Shapes(Mapping[str, SimpleNamespace]):
    """Shapes and dtypes of a repo's weights by name, from the files' headers alone: all that a dry run reads."""

    def __init__(self, hub: Hub, pinned: Pinned, files: Iterable[str]) -> None:
        self.shapes: dict[str, tuple[tuple[int, ...], str]] = {}
        """Name → shape, and dtype as safetensors spells it."""
        for name in files:
            if pinned.folder is not None:
                tensors = SafeTensors(pinned.folder / name)
                self.shapes |= {key: (tensors.shape(key), tensors.dtype(key)) for key in tensors}
                continue
            seen = (pinned.name, pinned.commit or "", pinned.place(name))
            if seen in hub.headers:
                self.shapes |= hub.headers[seen]
                continue
            with hub.hub_errors_as_one_line(str(pinned), pinned.name, "model"):
                header = hub.api.parse_safetensors_file_metadata(
                    pinned.name, pinned.place(name), revision=pinned.commit
                )
            found = {key: (tuple(tensor.shape), str(tensor.dtype)) for key, tensor in header.tensors.items()}
            with errors_about(pinned):
                require_header(found, name)
            hub.headers[seen] = found
            self.shapes |= found

    def __getitem__(self, key: str) -> SimpleNamespace:
        shape, dtype = self.shapes[key]
        return SimpleNamespace(shape=shape, dtype=dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


class Named(Mapping):
    """Tensors by their names in the model's state dict, which may differ from those in its files.

    Args:
        stored: tensors, or anything with their shapes, by their names in the files.
        names: name in the model → where it lies in the files.
    """

    def __init__(self, stored: Any, names: Mapping[str, Stored]) -> None:
        self.stored, self.names = stored, names

    def __getitem__(self, key: str):
        """Return the tensor, or an object with its `shape` where only shapes are known."""
        name, (i, m), stack = self.names[key]
        if stack:
            return _stacked(self.stored, stack)
        found = self.stored[name]
        if m == 1:
            return found
        rows = found.shape[0] // m
        if isinstance(found, SimpleNamespace):
            return SimpleNamespace(shape=(rows, *found.shape[1:]), dtype=found.dtype)
        return found[i * rows : (i + 1) * rows]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __contains__(self, key: object) -> bool:
        return key in self.names

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def used(self) -> frozenset[str]:
        """The names in the files that the model has a tensor for."""
        return frozenset(key for stored in self.names.values() for key in stored.keys)

    def without(self, keys: Iterable[str]) -> "Named":
        """Return the same tensors without some, by their names in the model."""
        dropped = set(keys)
        return Named(self.stored, {key: name for key, name in self.names.items() if key not in dropped})

    def holding(self, tensors: Tensors) -> "Named":
        """Return the same tensors with some in place of those in the files, by their names in the model."""
        place: Any = {self.names[key].key: tensor for key, tensor in tensors.items()}
        return Named(ChainMap(place, self.stored), self.names) if place else self


def _stacked(stored: Mapping, stack: Sequence[Sequence[str]]):
    """Return the matrices of a layer's experts as one tensor (experts, d_out, d_in), or an object with its `shape`."""
    first = [stored[key] for key in stack[0]]
    if isinstance(first[0], SimpleNamespace):
        rows = sum(each.shape[0] for each in first)
        return SimpleNamespace(shape=(len(stack), rows, *first[0].shape[1:]), dtype=first[0].dtype)
    return torch.stack([torch.cat([stored[key] for key in names]) for names in stack])


@dataclass(frozen=True)
class OpenedBase:
    """A model on disk that a change is added to."""

    pinned: Pinned
    library: Library
    purpose: Purpose
    folder: Path
    weights: Named
    """Its tensors, by their names in the model."""
    model: nn.Module
    """A skeleton without weights, or live."""


def open_repo(
    hub: Hub,
    pinned: Pinned,
    library: Library,
    purpose: Purpose,
    check: Callable[[Path, SafeTensors], None] = lambda folder, stored: None,
    model: nn.Module | None = None,
) -> OpenedBase:
    """Fetch a repo and return its model, to add a change to.

    Args:
        check: takes the folder and its tensors, and may refuse them before anything is built.
        model: the same model live; None: a skeleton without weights is built.
    """
    folder = hub.fetch(pinned, opening_files(library, pinned))
    stored = SafeTensors.of(library, pinned, folder)
    check(folder, stored)
    headers = {key: SimpleNamespace(shape=stored.shape(key)) for key in stored}
    with errors_about(pinned):
        require_sound(read_object(folder / library.config_file), library.config_file, len(stored))
        with within(headers):
            skeleton = library.skeleton(folder, purpose) if model is None else model
    return OpenedBase(pinned, library, purpose, folder, Named(stored, library.names(skeleton, stored)), skeleton)


def opening_files(library: Library, pinned: Pinned) -> tuple[str, ...]:
    """Return the names of the files that a repo opens with, and those of an adapter."""
    own = (adapter.CONFIG, adapter.WEIGHTS) if is_adapter(pinned) else ()
    return (library.config_file, *library.weights(pinned.files), *library.extra(pinned.files), *own)


def shards(library: Library, pinned: Pinned) -> tuple[str, ...]:
    """Return the safetensors files of a repo's weights, or of its adapter."""
    if is_adapter(pinned):
        return (adapter.WEIGHTS,)
    return tuple(name for name in library.weights(pinned.files) if name.endswith(".safetensors"))


def require_weights(pinned: Pinned, library: Library) -> None:
    """Refuse a repo whose weights cannot be read, with the reason.

    Raises:
        PortError: its weights are pickled, or it has none.
    """
    if library.weights(pinned.files):
        return
    pickled = [name for name in pinned.files if name.endswith((".bin", ".pt", ".pth"))]
    wanted = "open_clip_model.safetensors" if library.name == "open_clip" else "model.safetensors"
    if not pickled:
        raise PortError(gguf(pinned) or f"{pinned} has no {wanted}{inside(pinned)}")
    convert = f"convert them to {wanted}" + (f": {_saved(pinned)}" if library.name == "transformers" else "")
    raise PortError(f"{pinned} has only pickled weights ({listed(pickled)}), which can run code when opened: {convert}")


def gguf(pinned: Pinned) -> str:
    """Return what is wrong with a repo that has weights of GGUF alone, and what to do; "" if it has none."""
    files = [name for name in pinned.files if name.endswith(".gguf")]
    how = f"convert them: {_saved(pinned, files[0])}" if files else ""
    return f"{pinned} has only quantised GGUF weights ({listed(files)}): {how}" if files else ""


def _saved(pinned: Pinned, file: str = "") -> str:
    """Return how transformers saves a repo's weights as safetensors."""
    more = f', gguf_file="{file}"' if file else ""
    opened = f'AutoModel….from_pretrained("{pinned.name}"{more})'
    return f"{opened}.save_pretrained(FOLDER), with the tokenizer, and name that folder"


def inside(pinned: Pinned) -> str:
    """Return where in its folders a repo has models or adapters, for an error; "" if it has none there."""
    ends = ("/model.safetensors", "/model.safetensors.index.json", f"/{adapter.WEIGHTS}")
    found = sorted({name.rsplit("/", 1)[0] for name in pinned.files if name.endswith(ends)})
    if not found:
        return ""
    how = "name its own path" if pinned.folder else f"of SOURCE's, choose one with {setting('subfolder')}"
    return f"; there is one in {listed(found)}: {how}"


def check_shapes(
    pinned: Pinned, tensors: Mapping, model: nn.Module, optional: Iterable[str], unknown: Iterable[str] = ()
) -> None:
    """Refuse weights that do not fit the config, before any are read.

    Args:
        tensors: tensors, or anything with their shapes, by their names in the model.
        model: the model of the config.
        optional: names that may be missing.
        unknown: names in the files that the model lacks; added to an error, as one may be misnamed.

    Raises:
        PortError: tensors are missing or of another shape; all of them listed.
    """
    expected = {key: tuple(p.shape) for key, p in model.named_parameters()}
    got = {key: tuple(tensors[key].shape) for key in tensors}
    odd = [f"{key} is missing" for key in sorted(expected.keys() - got.keys() - set(optional))]
    odd += [f"{key} is {got[key]}, not {shape}" for key, shape in expected.items() if got.get(key, shape) != shape]
    if odd:
        odd += [f"{key} is unknown" for key in unknown]
        mend = ": name a copy that was saved with them" if all(each.endswith("is missing") for each in odd) else ""
        raise PortError(f"the weights of {pinned} do not fit its config: {listed(odd)}{mend}")


def require_finite(pinned: Pinned, tensors: Tensors) -> None:
    """Refuse a model that is broken, before anything is added to it.

    Raises:
        PortError: tensors hold NaN or Inf; all of them listed.
    """
    broken = [key for key, tensor in tensors.items() if not is_finite(tensor)]
    if broken:
        raise PortError(f"NaN or Inf in {listed(broken)} of {pinned}")


def pick_device(name: str | None) -> str:
    """Return the device of this name; for None the accelerator that there is, else "cpu".

    Raises:
        PortError: the machine has no such device.
    """
    chosen = name or usual()
    try:
        if torch.device(chosen).type == "meta":
            raise RuntimeError("it holds no numbers")
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, ImportError) as error:
        raise PortError(f"no device {chosen!r} on this machine") from error
    return chosen
