"""How alike the blocks of two models are, from one mean a sample: cheap, and for pictures alone."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from hf_bico.core.chain import within_memory
from hf_bico.core.collect import Batch, Elsewhere, Side, frozen, samples_in
from hf_bico.core.pairing import depths_of
from hf_bico.core.similarity import block_inputs
from hf_bico.core.taps import taps
from hf_bico.core.types import Signal, Site, Stream

MOST = 64
"""The most samples that are compared."""
FEWEST = 8
"""With fewer, chance alone makes blocks alike or not."""


class Means:
    """What the blocks of one model read, a mean over the tokens of every sample."""

    def __init__(self, side: Side, sites: Iterable[Site]) -> None:
        self.side, every = side, list(sites)
        self.blocks = {tower: block_inputs(every, tower) for tower, depth in depths_of(every).items() if depth}
        self._sites = [site for blocks in self.blocks.values() for site in blocks]
        self._sequences = {site.stream(Signal.INPUT): site.tokens.sequence for site in self._sites}
        self._rows: dict[Stream, list[Tensor]] = defaultdict(list)

    def add(self, part: object, met: Mapping[str, Tensor]) -> None:
        """Pass a model's batch forward.

        Args:
            met: sequence of text → (n, T), which of its rows count; all where it is not in it.
        """

        def keep(stream: Stream, rows: Tensor) -> None:
            if stream.run:
                return  # blocks that share their weights are the block at its first run
            mask = met.get(self._sequences[stream])
            weight = torch.ones(rows.shape[:2]) if mask is None or mask.shape != rows.shape[:2] else mask
            weight = weight.to(rows)[..., None]
            means, before = ((rows * weight).sum(1) / weight.sum(1).clamp_min(1)).double().cpu(), self._rows[stream]
            if not before or not torch.equal(before[-1], means):  # every batch has the same prompts
                before.append(means)

        with (
            torch.no_grad(),
            within_memory(),
            taps(self.side.model, self._sites, {Signal.INPUT}, keep, samples_in(part)),
        ):
            self.side.loss(self.side.model, part)

    def of(self, tower: str) -> list[Tensor]:
        """Return (n, d) means of every block of a tower."""
        return [torch.cat(self._rows[site.stream(Signal.INPUT)]) for site in self.blocks[tower]]


def likeness(
    base: Side, target: Side, sites: tuple[Iterable[Site], Iterable[Site]], batches: Iterable[Batch]
) -> dict[str, np.ndarray]:
    """Return {tower: (L_B, L_A)}, the debiased CKA between the inputs of every block of B and of A.

    It takes one forward pass over `MOST` samples at most, and no products as wide as the models are. The matching by
    CKA (`hf_bico.core.similarity.cka_matrix`) tells the tokens of a sample apart; this does not. Towers of which the
    two models have unlike numbers of samples, or fewer than `FEWEST`, are left out.

    Args:
        sites: all of A's and all of B's.

    Raises:
        PortError: a block never ran; the device is out of memory.
    """
    a, b = (Means(side, each) for side, each in zip((base, target), sites, strict=True))
    left = MOST
    with frozen(base.model), frozen(target.model):
        for batch in batches:
            if left <= 0:
                break
            if isinstance(batch, Elsewhere):
                continue
            a.add(batch.base, {name: meets.any(1) for name, meets in batch.meeting.items()})
            b.add(batch.target, {name: meets.any(2) for name, meets in batch.meeting.items()})
            left -= samples_in(batch.base) or 1
    found = {tower: (a.of(tower), b.of(tower)) for tower in b.blocks if tower in a.blocks}
    return {
        tower: np.array([[cka(x, y) for x in of_a] for y in of_b])
        for tower, (of_a, of_b) in found.items()
        if len({len(each) for each in (*of_a, *of_b)}) == 1 and len(of_a[0]) >= FEWEST
    }


def cka(x: Tensor, y: Tensor) -> float:
    """Return the debiased linear CKA of the same samples' rows in two models, in [0, 1]; 0 where either never varies.

    The biased one is near 1 for whatever features, where they are as many as the samples. Song et al. 2012, eq. 5;
    Nguyen, Raghu and Kornblith 2021, 2010.15327, eq. 3.

    Args:
        x: (n, d_A), n > 3.
        y: (n, d_B).
    """
    k, l = ((rows - rows.mean(0)) @ (rows - rows.mean(0)).T for rows in (x, y))
    own = [_hsic(k, k), _hsic(l, l)]
    return float(min(max(_hsic(k, l), 0.0) / (own[0] * own[1]) ** 0.5, 1.0)) if min(own) > 0 else 0.0


def _hsic(k: Tensor, l: Tensor) -> float:
    """Return the unbiased HSIC of two Gram matrices (n, n), up to the factor 1 / n(n − 3)."""
    n = len(k)
    k, l = (each - each.diag().diag() for each in (k, l))
    middle = k.sum() * l.sum() / ((n - 1) * (n - 2))
    return float((k * l).sum() + middle - 2 * (k.sum(0) @ l.sum(0)) / (n - 2))
