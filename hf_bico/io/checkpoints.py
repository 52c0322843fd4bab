"""Model repos on disk: lazy tensors, never unpickled, never two whole models at once."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from hf_bico.core.errors import PortError, listed
from hf_bico.core.types import Tensors
from hf_bico.families import Family
from hf_bico.io.hub import Hub
from hf_bico.io.reference import Pinned


class SafeTensors(Mapping[str, Tensor]):
    """A safetensors file, read one tensor at a time.

    Raises:
        PortError: the file is not a readable safetensors file.
    """

    def __init__(self, path: Path) -> None:
        try:
            self.file = safe_open(path, framework="pt")
        except (SafetensorError, OSError) as error:
            raise PortError(f"{path.name} is not a readable safetensors file ({error}); fetch it again") from error
        self.keys_ = dict.fromkeys(self.file.keys())

    @property
    def metadata(self) -> dict[str, str]:
        return self.file.metadata() or {}

    def __getitem__(self, key: str) -> Tensor:
        return self.file.get_tensor(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys_)

    def __contains__(self, key: object) -> bool:
        return key in self.keys_

    def __len__(self) -> int:
        return len(self.keys_)


class Shapes(Mapping[str, SimpleNamespace]):
    """Names, shapes and dtypes of a repo's weights from the file's header alone: what a dry run reads."""

    def __init__(self, hub: Hub, pinned: Pinned, weights: str) -> None:
        if pinned.folder is not None:
            tensors = SafeTensors(pinned.folder / weights).file
            self.shapes = {key: tuple(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118
            return
        with hub.speaking(str(pinned), pinned.name, "model"):
            header = hub.api.parse_safetensors_file_metadata(pinned.name, weights, revision=pinned.commit)
        self.shapes = {key: tuple(tensor.shape) for key, tensor in header.tensors.items()}

    def __getitem__(self, key: str) -> SimpleNamespace:
        return SimpleNamespace(shape=self.shapes[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def require_family(pinned: Pinned, family: Family) -> None:
    """Refuse a repo that this family cannot read, with the reason.

    Raises:
        PortError: no config, pickled weights only, no weights.
    """
    if family.config_file not in pinned.files:
        raise PortError(f"{pinned} is not an open_clip CLIP: it has no {family.config_file}")
    if family.weights_file in pinned.files:
        return
    pickled = [name for name in pinned.files if name.endswith((".bin", ".pt", ".pth"))]
    if pickled:
        raise PortError(f"{pinned} has only pickled weights ({listed(pickled)}), which can run code when opened; "
                        f"convert them to {family.weights_file}")
    raise PortError(f"{pinned} has no {family.weights_file}")


def check_shapes(pinned: Pinned, tensors: Mapping, model: nn.Module, prefix: str) -> None:
    """Refuse weights that are not those of the config, before anything heavy.

    Raises:
        PortError: names below `prefix` that are missing, unknown or of another shape; all of them listed.
    """
    expected = {key: tuple(t.shape) for key, t in model.state_dict().items() if key.startswith(prefix)}
    got = {key: tuple(tensors[key].shape) for key in tensors if key.startswith(prefix)}
    odd = [f"{key} is missing" for key in sorted(expected.keys() - got.keys())]
    odd += [f"{key} is unknown" for key in sorted(got.keys() - expected.keys())]
    odd += [f"{key} is {got[key]}, not {shape}" for key, shape in expected.items() if got.get(key, shape) != shape]
    if odd:
        raise PortError(f"the weights of {pinned} do not fit its config: {listed(odd)}")


def require_finite(pinned: Pinned, tensors: Tensors) -> None:
    """Refuse a model that is broken before anything is added to it.

    Raises:
        PortError: tensors with NaN or Inf, all of them listed.
    """
    broken = [key for key, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise PortError(f"NaN or Inf in {listed(broken)} of {pinned}")


def pick_device(name: str | None) -> str:
    """CUDA where there is one, else the CPU, unless named.

    Raises:
        PortError: no such device.
    """
    chosen = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        if torch.device(chosen).type == "meta":
            raise RuntimeError("it holds no numbers")
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, ImportError) as error:
        raise PortError(f"no device {chosen!r} on this machine") from error
    return chosen
