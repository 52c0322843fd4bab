"""Changes that are products of thin factors, and named tensors that keep them so."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class LowRank:
    """B A, as two thin factors; a LoRA's change with its scale in B. Rank 0 is no change."""

    b: Tensor
    """(d_out, r)"""
    a: Tensor
    """(r, d_in)"""

    @classmethod
    def zero(cls, shape: tuple[int, int]) -> "LowRank":
        return cls(torch.zeros(shape[0], 0), torch.zeros(0, shape[1]))

    @property
    def shape(self) -> tuple[int, int]:
        return self.b.shape[0], self.a.shape[1]

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    @property
    def T(self) -> "LowRank":  # as a tensor's
        return LowRank(self.a.T, self.b.T)

    def __getitem__(self, rows: slice) -> "LowRank":
        return LowRank(self.b[rows], self.a)

    def norm(self) -> float:
        """Return ‖B A‖ (Frobenius) by ‖B A‖² = ⟨BᵀB, A Aᵀ⟩, two r × r Gram matrices, in float64."""
        b, a = self.b.double(), self.a.double()
        return sqrt(float(((b.T @ b) * (a @ a.T)).sum().clamp(min=0)))

    def dense(self) -> Tensor:
        """Return (d_out, d_in)"""
        return self.b @ self.a

    def is_finite(self) -> bool:
        return bool(self.b.isfinite().all() and self.a.isfinite().all())


class Factored(Mapping[str, Tensor]):
    """Named tensors; read by name they are dense, and of some the factors can be had."""

    def factors(self, key: str) -> LowRank | None:
        """Return the factors of a tensor as it is stored; None for one that is dense."""
        raise NotImplementedError


class Delta(Factored):
    """A change by tensor name that is written part by part; a product stays one until it is read.

    Args:
        shapes: name → what has the whole tensor's shape.
    """

    def __init__(self, shapes: Mapping[str, Any]) -> None:
        self.shapes = shapes
        self.whole: dict[str, Tensor] = {}
        self.products: dict[str, dict[Any, LowRank]] = {}
        """Name → where in the tensor → the product that lies there."""

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Delta":
        """Return whole tensors as a change."""
        made = cls(tensors)
        made.whole = dict(tensors)
        return made

    def write(self, where: Any, change: Tensor | LowRank) -> None:
        """Put a change where a slice of a tensor says; what is there already is replaced."""
        key = where.key
        if isinstance(change, LowRank):
            self.products.setdefault(key, {})[where] = LowRank(change.b.cpu(), change.a.cpu())
            return
        if key not in self.whole:
            self.whole[key] = torch.zeros(tuple(self.shapes[key].shape), dtype=change.dtype)
        where.of(self.whole[key]).copy_(change)

    def factors(self, key: str) -> LowRank | None:
        """Return the factors, also of a tensor whose parts are products: their factors side by side; of one A once."""
        if key not in self.products or key in self.whole:
            return None
        transposed = next(iter(self.products[key])).transposed
        rows = self.shapes[key].shape[1 if transposed else 0]
        b: list[Tensor] = []
        a: list[Tensor] = []
        for where, product in self.products[key].items():
            first = where.rows[0] if where.rows else 0
            place = slice(first, first + product.shape[0])
            same = next((i for i, other in enumerate(a) if torch.equal(other, product.a)), None)
            if same is not None:  # q, k and v of one LoRA, on other rows
                b[same][place] = product.b
                continue
            b.append(product.b.new_zeros(rows, product.rank))
            b[-1][place] = product.b
            a.append(product.a)
        joined = LowRank(torch.cat(b, 1), torch.cat(a))
        return joined.T if transposed else joined

    def is_finite(self, key: str) -> bool:
        """Return whether nothing in it is NaN or Inf, factors as they are."""
        products = self.products.get(key, {}).values()
        return (key not in self.whole or bool(self.whole[key].isfinite().all())) and all(
            p.is_finite() for p in products
        )

    def __getitem__(self, key: str) -> Tensor:
        products = self.products.get(key, {})
        if not products:
            return self.whole[key]
        dtype = next(iter(products.values())).b.dtype
        found = torch.zeros(tuple(self.shapes[key].shape), dtype=dtype)
        if key in self.whole:
            found = self.whole[key].clone()
        for where, product in products.items():
            where.of(found).copy_(product.dense())
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self.whole, *self.products)))

    def __contains__(self, key: object) -> bool:
        return key in self.whole or key in self.products

    def __len__(self) -> int:
        return len(self.whole.keys() | self.products.keys())
