"""Small CLIPs, and twins of them whose right answer is known."""

import copy
from dataclasses import dataclass

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_bico import class_loss
from hf_bico.core.collect import Batch
from hf_bico.families import family_of, logits
from hf_bico.tasks.views import Seen

EMBED, CLASSES = 32, 48
BLOCK = "visual.transformer.resblocks"


def tiny_clip(
    width: int = 32,
    layers: int = 2,
    *,
    seed: int = 0,
    size: int = 32,
    heads: int | None = None,
    mlp: float = 4.0,
    dtype=torch.float64,
) -> nn.Module:
    """A randomly initialised CLIP with heads of 8, unless their number is given, and biases that are not zero."""
    torch.manual_seed(seed)
    vision = {
        "image_size": size,
        "layers": layers,
        "width": width,
        "patch_size": 8,
        "mlp_ratio": mlp,
        "head_width": width // heads if heads else 8,
    }
    text = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}
    model = open_clip.CLIP(embed_dim=EMBED, vision_cfg=vision, text_cfg=text).to(dtype).eval()
    with torch.no_grad():
        for name, parameter in model.visual.named_parameters():
            if name.endswith("bias") and "ln_" not in name:
                parameter.normal_(std=0.1)
    return model


@dataclass(frozen=True)
class Samples:
    """Images, labels and a head: a task for tiny CLIPs."""

    images: Tensor
    labels: Tensor
    head: Tensor

    @classmethod
    def make(cls, n: int, *, seed: int = 0, size: int = 32, dtype=torch.float64) -> "Samples":
        generator = torch.Generator().manual_seed(seed)
        images = torch.randn(n, 3, size, size, generator=generator, dtype=torch.float64)
        labels = torch.randint(CLASSES, (n,), generator=generator)
        head = F.normalize(torch.randn(CLASSES, EMBED, generator=generator, dtype=torch.float64), dim=-1)
        return cls(images.to(dtype), labels, head.to(dtype))

    @property
    def loss(self):
        return class_loss(self.head)

    def logits(self, model: nn.Module) -> Tensor:
        with torch.no_grad():
            return logits(model, self.images, self.head)

    def batches(self, size: int, target_size: int | None = None) -> "Shown":
        """The samples for both models; the target may see them enlarged."""
        out = Shown()
        for start in range(0, len(self.labels), size):
            images, labels = self.images[start : start + size], self.labels[start : start + size]
            larger = images if target_size is None else F.interpolate(images, size=target_size)
            out.append(Batch((images, labels), (larger, labels)))
        return out


class Shown(list):
    """Batches that can be seen in another way."""

    def view(self, number: int) -> list[Batch]:
        return list(Seen(self, number))


def site_keys(model: nn.Module) -> list[str]:
    return list(dict.fromkeys(s.key for site in family_of(model).sites(model) for s in site.slices))


def random_fine_tune(model: nn.Module, *, scale: float = 0.02, seed: int = 1) -> dict[str, Tensor]:
    """The model's tensors with noise on every weight and bias of a site."""
    generator = torch.Generator().manual_seed(seed)
    keys = set(site_keys(model))
    return {
        key: tensor + scale * torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)
        if key in keys
        else tensor.clone()
        for key, tensor in model.state_dict().items()
    }


def gradient_step(model: nn.Module, samples: Samples, *, step: float = 1e-3) -> dict[str, Tensor]:
    """The model's tensors after one step of plain gradient descent on its sites: a τ inside the samples' span."""
    keys = set(site_keys(model))
    parameters = {key: p for key, p in model.named_parameters() if key in keys}
    loss = samples.loss(model, (samples.images, samples.labels))
    gradients = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
    return {
        key: tensor.detach() - step * gradients[key] if key in keys else tensor.clone()
        for key, tensor in model.state_dict().items()
    }


def twin(model: nn.Module, *, seed: int = 2, rotate: bool = True) -> nn.Module:
    """The same function in other coordinates; see `turned`."""
    other = copy.deepcopy(model)
    other.load_state_dict(turned(model, model.state_dict(), seed=seed, rotate=rotate))
    return other


def turned(model: nn.Module, state: dict[str, Tensor], *, seed: int = 2, rotate: bool = True) -> dict[str, Tensor]:
    """A model's tensors, or a change of them, in other coordinates of the same function.

    Heads and MLP units are permuted. The residual stream and every head are rotated, or units inside heads permuted
    and the residual stream left. The rotation keeps the all-ones vector, so that LayerNorms with gain 1 and bias 0
    commute with it.
    """
    torch.manual_seed(seed)
    width, heads = model.visual.proj.shape[0], model.visual.transformer.resblocks[0].attn.num_heads
    units = model.visual.transformer.resblocks[0].mlp.c_fc.out_features
    state = {key: tensor.clone() for key, tensor in state.items()}
    q = rotation_fixing_ones(width) if rotate else torch.eye(width, dtype=torch.float64)
    for key in ("visual.class_embedding", "visual.positional_embedding"):
        state[key] = state[key] @ q.T
    state["visual.conv1.weight"] = torch.einsum("ij,jklm->iklm", q, state["visual.conv1.weight"])
    state["visual.proj"] = q @ state["visual.proj"]
    for depth in range(len(model.visual.transformer.resblocks)):
        turns = [
            torch.block_diag(*((orthogonal if rotate else permutation)(width // heads) for _ in range(heads)))
            for _ in range(2)
        ]
        _turn_block(state, f"{BLOCK}.{depth}", q, torch.randperm(heads), torch.randperm(units), *turns)
    return state


def widened(model: nn.Module, *, mlp: float, seed: int = 2) -> nn.Module:
    """The same function with more MLP units, in another order: the new ones read nothing and write nothing."""
    blocks = model.visual.transformer.resblocks
    width = model.visual.proj.shape[0]
    other = tiny_clip(width, len(blocks), size=model.visual.image_size[0], heads=blocks[0].attn.num_heads, mlp=mlp)
    state = model.state_dict()
    generator = torch.Generator().manual_seed(seed)
    for key, tensor in other.state_dict().items():
        if tensor.shape == state[key].shape:
            tensor.copy_(state[key])
        else:  # MLP up's rows and bias, MLP down's columns
            axis = 1 if tensor.shape[0] == width else 0
            many, few = tensor.shape[axis], state[key].shape[axis]
            places = torch.randperm(many, generator=generator.manual_seed(seed))[:few]
            tensor.zero_().index_copy_(axis, places, state[key])
    return other


def rotation_fixing_ones(width: int) -> Tensor:
    """Orthogonal Q (width, width) with Q 1 = 1."""
    ones = torch.ones(width, 1, dtype=torch.float64) / width**0.5
    frame = torch.linalg.qr(torch.cat([ones, torch.randn(width, width - 1, dtype=torch.float64)], dim=1))[0]
    return frame @ torch.block_diag(torch.ones(1, 1, dtype=torch.float64), orthogonal(width - 1)) @ frame.T


def _turn_block(
    state: dict[str, Tensor], key: str, q: Tensor, heads: Tensor, units: Tensor, match: Tensor, value: Tensor
) -> None:
    """Queries and keys of a head turn together, its values with the output projection that reads them."""
    width = len(q)
    rows = torch.arange(width).unflatten(0, (len(heads), -1))[heads].flatten()
    fused = torch.cat([rows, width + rows, 2 * width + rows])
    turn = torch.block_diag(match, match, value)
    state[f"{key}.attn.in_proj_weight"] = turn @ state[f"{key}.attn.in_proj_weight"][fused] @ q.T
    state[f"{key}.attn.in_proj_bias"] = turn @ state[f"{key}.attn.in_proj_bias"][fused]
    state[f"{key}.attn.out_proj.weight"] = q @ state[f"{key}.attn.out_proj.weight"][:, rows] @ value.T
    state[f"{key}.attn.out_proj.bias"] = q @ state[f"{key}.attn.out_proj.bias"]
    state[f"{key}.mlp.c_fc.weight"] = state[f"{key}.mlp.c_fc.weight"][units] @ q.T
    state[f"{key}.mlp.c_fc.bias"] = state[f"{key}.mlp.c_fc.bias"][units]
    state[f"{key}.mlp.c_proj.weight"] = q @ state[f"{key}.mlp.c_proj.weight"][:, units]
    state[f"{key}.mlp.c_proj.bias"] = q @ state[f"{key}.mlp.c_proj.bias"]


def orthogonal(width: int) -> Tensor:
    return torch.linalg.qr(torch.randn(width, width, dtype=torch.float64))[0]


def permutation(width: int) -> Tensor:
    return torch.eye(width, dtype=torch.float64)[torch.randperm(width)]


def distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """‖a − b‖/‖b‖ over all tensors; both must name the same."""
    assert a.keys() == b.keys()
    difference = sum(float((a[key] - b[key]).square().sum()) for key in a)
    return (difference / sum(float(b[key].square().sum()) for key in b)) ** 0.5
