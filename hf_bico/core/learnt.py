"""What a lesson changes of the target: its tensors themselves, a low-rank change beside them, or a few coefficients."""

from dataclasses import dataclass
from math import sqrt
from typing import Protocol

import torch
from torch import Tensor

from hf_bico.core.low_rank import Delta, Factored, LowRank
from hf_bico.core.types import Slice, Tensors


class Learnt(Protocol):
    """What is learnt: made of the target's own tensors, and of its change so far."""

    def parameters(self) -> list[Tensor]:
        """Return what AdamW moves."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Return the target's tensors as they stand, by name, in its own dtypes."""
        ...

    def delta(self, start: Tensors) -> Delta:
        """Return the target's whole change: `start`, which it was made of, and what was learnt."""
        ...


class Whole:
    """The tensors themselves, held in float32 or wider."""

    def __init__(self, own: Tensors, changes: Tensors) -> None:
        self.own, self.whole = own, {key: there.requires_grad_(True) for key, there in _there(own, changes).items()}

    def parameters(self) -> list[Tensor]:
        return list(self.whole.values())

    def tensors(self) -> dict[str, Tensor]:
        return {key: tensor.to(self.own[key].dtype) for key, tensor in self.whole.items()}

    def delta(self, start: Tensors) -> Delta:
        found = {key: (tensor.detach() - self.own[key]).cpu() for key, tensor in self.whole.items()}
        return Delta.of({**start, **found})


@dataclass(frozen=True)
class LoRA:
    """Makes a product B A beside every matrix (arXiv:2106.09685); vectors stay."""

    rank: int
    seed: int = 0

    def __call__(self, own: Tensors, changes: Tensors) -> "LoRABeside":
        """Return what is learnt."""
        return LoRABeside(own, changes, self.rank, self.seed)


class LoRABeside:
    """Products B A, which start at B = 0; the entries of A are N(0, 1/r), so that AdamW's first step changes the
    entries of B A by as much as it would change the matrix's own.
    """

    def __init__(self, own: Tensors, changes: Tensors, rank: int, seed: int) -> None:
        self.own = {key: tensor for key, tensor in own.items() if tensor.ndim == 2}
        self.there = _there(own, changes)
        generator, self.b, self.a = torch.Generator().manual_seed(seed), {}, {}
        for key, tensor in self.own.items():
            there, r = self.there[key], min(rank, *tensor.shape)
            a = torch.randn(r, tensor.shape[1], generator=generator) / sqrt(r)
            self.a[key] = a.to(there).requires_grad_(True)
            self.b[key] = there.new_zeros(tensor.shape[0], r).requires_grad_(True)

    def parameters(self) -> list[Tensor]:
        return [*self.b.values(), *self.a.values()]

    def tensors(self) -> dict[str, Tensor]:
        there = {
            key: tensor + self.b[key] @ self.a[key] if key in self.b else tensor for key, tensor in self.there.items()
        }
        return {key: tensor.to(self.own[key].dtype) if key in self.own else tensor for key, tensor in there.items()}

    def delta(self, start: Tensors) -> Delta:
        changes = Delta(self.there)
        changes.whole = {key: start[key] for key in start if key not in self.b}
        for key, b in self.b.items():
            product = LowRank(b.detach().cpu(), self.a[key].detach().cpu())
            before = start.factors(key) if isinstance(start, Factored) and key in start else None
            if before is not None:
                product = LowRank(torch.cat([before.b.cpu(), product.b], 1), torch.cat([before.a.cpu(), product.a]))
            if before is not None or key not in start:
                changes.write(Slice(key), product)
            else:
                changes.whole[key] = start[key].cpu() + product.dense()
        return changes


@dataclass(frozen=True)
class Scales:
    """Makes one coefficient for each of the first singular directions of every matrix's change."""

    count: int

    def __call__(self, own: Tensors, changes: Tensors) -> "Scaled":
        """Return what is learnt."""
        return Scaled(own, changes, self.count)


class Scaled:
    """Coefficients c, 0 at first, of the singular directions of the changes: D + U diag(c σ) Vᵀ of D = U diag(σ) Vᵀ."""

    def __init__(self, own: Tensors, changes: Tensors, count: int) -> None:
        self.own, self.there = own, _there(own, changes)
        self.left, self.right, self.c = dict[str, Tensor](), dict[str, Tensor](), dict[str, Tensor]()
        for key, change in changes.items():
            if change.ndim == 2:
                u, sigma, vt = torch.linalg.svd(change, full_matrices=False)
                self.left[key], self.right[key] = (u * sigma)[:, :count], vt[:count]
                self.c[key] = change.new_zeros(len(self.right[key])).requires_grad_(True)

    def parameters(self) -> list[Tensor]:
        return list(self.c.values())

    def tensors(self) -> dict[str, Tensor]:
        return {key: (tensor + self._learnt(key)).to(self.own[key].dtype) for key, tensor in self.there.items()}

    def delta(self, start: Tensors) -> Delta:
        return Delta.of({key: change.cpu() + self._learnt(key).detach().cpu() for key, change in start.items()})

    def _learnt(self, key: str) -> Tensor:
        return (self.left[key] * self.c[key]) @ self.right[key] if key in self.c else torch.zeros(())


def _there(own: Tensors, changes: Tensors) -> dict[str, Tensor]:
    """Return where the tensors have come to, in float32 or wider, in memory of their own."""
    wide = {key: tensor.to(torch.promote_types(tensor.dtype, torch.float32), copy=True) for key, tensor in own.items()}
    return {key: tensor + changes[key] if key in changes else tensor for key, tensor in wide.items()}
