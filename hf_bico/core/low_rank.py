"""Weight changes kept as products of thin factors, and mappings of named tensors that can hold them."""

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from hf_bico.core.finite import is_finite


@dataclass(frozen=True)
class LowRank:
    """A matrix B A, kept as its two thin factors, such as a LoRA's change with its scale in B. Rank 0 is no change."""

    b: Tensor
    """(d_out, r)"""
    a: Tensor
    """(r, d_in)"""

    def __repr__(self) -> str:
        return f"LowRank({self.shape[0]} × {self.shape[1]}, rank {self.rank})"

    @classmethod
    def zero(cls, shape: tuple[int, int]) -> "LowRank":
        """Return the zero matrix (d_out, d_in), of rank 0."""
        return cls(torch.zeros(shape[0], 0), torch.zeros(0, shape[1]))

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in)"""
        return self.b.shape[0], self.a.shape[1]

    @property
    def rank(self) -> int:
        """The r of the factors."""
        return self.a.shape[0]

    @property
    def T(self) -> "LowRank":  # named as a tensor's
        return LowRank(self.a.T, self.b.T)

    @property
    def device(self) -> torch.device:
        return self.b.device

    def __matmul__(self, other: Tensor) -> Tensor:
        """Return B A · other (d_in, …), as two thin products."""
        return self.b @ (self.a @ other)

    def __rmatmul__(self, other: Tensor) -> Tensor:
        """Return other (…, d_out) · B A."""
        return (other @ self.b) @ self.a

    def to(self, like: Any) -> "LowRank":
        """Return it on a device, or on the device and in the dtype of a tensor."""
        return LowRank(self.b.to(like), self.a.to(like))

    def norm(self) -> float:
        """Return ‖B A‖ (Frobenius) from two r × r Gram matrices, ‖B A‖² = ⟨BᵀB, A Aᵀ⟩, in float64."""
        b, a = self.b.double(), self.a.double()
        return sqrt(float(((b.T @ b) * (a @ a.T)).sum().clamp(min=0)))

    def dense(self) -> Tensor:
        """Return the product as a tensor (d_out, d_in)."""
        return self.b @ self.a

    def is_finite(self) -> bool:
        """Return whether both factors are free of NaN and Inf."""
        return is_finite(self.b) and is_finite(self.a)


Factor = Tensor | LowRank
"""A matrix, as it is or as a product."""


def as_dense(factor: Factor) -> Tensor:
    """Return a matrix as it is."""
    return factor.dense() if isinstance(factor, LowRank) else factor


def in_form_of(tensor: Tensor, factor: Factor) -> Tensor:
    """Return a tensor on the device and in the dtype of a matrix that it is multiplied by."""
    return tensor.to(factor.b if isinstance(factor, LowRank) else factor)


class Factored(Mapping[str, Tensor]):
    """Named tensors: dense when read by name; some are also available as factors."""

    def factors(self, key: str) -> LowRank | None:
        """Return a tensor's factors, in its stored orientation; None if it is dense."""
        raise NotImplementedError


class Delta(Factored):
    """A change by tensor name, written part by part; a product stays in factors until it is read.

    Args:
        shapes: name → anything with the whole tensor's `shape`.
    """

    def __init__(self, shapes: Mapping[str, Any]) -> None:
        self.shapes = shapes
        self.whole: MutableMapping[str, Tensor] = {}
        self.products: dict[str, dict[Any, LowRank]] = {}
        """Name → slice of the tensor → the product that lies there."""

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Delta":
        """Return whole tensors as a change."""
        made = cls({key: tensor.to("meta") for key, tensor in tensors.items()})  # shapes that hold nothing
        made.whole = dict(tensors)
        return made

    def __repr__(self) -> str:
        products = self.products.keys() - self.whole.keys()
        return f"Delta({len(list(iter(self)))} tensors" + (f", {len(products)} of them products)" if products else ")")

    def write(self, where: Any, change: Tensor | LowRank) -> None:
        """Write a change to a `Slice` of a tensor, replacing what is there."""
        key = where.key
        if isinstance(change, LowRank):
            self.products.setdefault(key, {})[where] = LowRank(change.b.cpu(), change.a.cpu())
            return
        if key not in self.whole:
            self.whole[key] = torch.zeros(tuple(self.shapes[key].shape), dtype=change.dtype)
        where.put(self.whole[key], change)

    def put(self, key: str, change: Tensor) -> None:
        """Write a whole tensor's change, replacing what is there."""
        self.whole[key] = change

    def scaled(self, alpha: float) -> "Delta":
        """Return α times the change."""
        made = Delta(self.shapes)
        made.whole = {key: alpha * tensor for key, tensor in self.whole.items()}
        made.products = {
            key: {where: LowRank(alpha * part.b, part.a) for where, part in parts.items()}
            for key, parts in self.products.items()
        }
        return made

    def factors(self, key: str) -> LowRank | None:
        """Return a tensor's factors; those of several parts stand side by side, parts with the same A sharing it."""
        if key not in self.products or key in self.whole:
            return None
        transposed = next(iter(self.products[key])).transposed
        rows = self.shapes[key].shape[1 if transposed else 0]
        b: list[Tensor] = []
        a: list[Tensor] = []
        for where, product in self.products[key].items():
            same = next((i for i, other in enumerate(a) if torch.equal(other, product.a)), None)
            if same is not None:  # q, k and v of one LoRA: the same A on different rows
                where.put_rows(b[same], product.b)
                continue
            b.append(product.b.new_zeros(rows, product.rank))
            where.put_rows(b[-1], product.b)
            a.append(product.a)
        joined = LowRank(torch.cat(b, 1), torch.cat(a))
        return joined.T if transposed else joined

    def is_finite(self, key: str) -> bool:
        """Return whether a tensor is free of NaN and Inf; of a product, the factors are checked."""
        products = self.products.get(key, {}).values()
        return (key not in self.whole or is_finite(self.whole[key])) and all(p.is_finite() for p in products)

    def __getitem__(self, key: str) -> Tensor:
        products = self.products.get(key, {})
        if not products:
            return self.whole[key]
        dtype = next(iter(products.values())).b.dtype
        found = torch.zeros(tuple(self.shapes[key].shape), dtype=dtype)
        if key in self.whole:
            found = self.whole[key].clone()
        for where, product in products.items():
            where.put(found, product.dense())
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self.whole, *self.products)))

    def __contains__(self, key: object) -> bool:
        return key in self.whole or key in self.products

    def __len__(self) -> int:
        return len(self.whole.keys() | self.products.keys())
