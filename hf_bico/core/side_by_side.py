"""The samples through both bases, the fine-tune, and the target as it changes, side by side, a layer at a time."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hf_bico.core.collect import Batch, Side, samples_in
from hf_bico.core.device import tidy
from hf_bico.core.errors import PortError
from hf_bico.core.method import Job
from hf_bico.core.moments import Statistics
from hf_bico.core.transport import added
from hf_bico.core.types import Pair, Signal, Site
from hf_bico.core.views import with_views
from hf_bico.core.walk import Stop, Walk


class Rows(NamedTuple):
    """What one batch shows at the layers of one weight of the target, a list a layer; rows that meet none of the base's
    are left out.
    """

    x: Tensor
    """(m, d_in): their inputs, as changed below them; of a convolution its patches."""
    before: list[Tensor]
    """(m, d_out): their outputs in the target as it was."""
    now: list[Tensor]
    """(m, d_out): what their own weights give of x."""
    responses: list[Tensor]
    """(m, d_out of the base's layer): Y_ft − Y_A at the rows that these meet."""
    sample: Tensor
    """(m,): the number of the sample that a row is of."""


class SideBySide:
    """Iterates over the target's weights in the order in which they run; yields the sites of each.

    No more is held than the rows of one layer of every pass, once, and the responses of layers of the base that the
    passes have left and that are needed once more. A layer is finished by `add` for each of its sites.

    Args:
        views: how often all samples with labels are seen again; a view has its sample's number.
    """

    def __init__(self, job: Job, seen: Statistics, views: int = 0) -> None:
        self.pairs = {pair.target.name: pair for pair in job.pairs}
        labelled = list(with_views(job.batches(), views))
        self.batches = labelled + list(job.unlabelled() if job.unlabelled else ())
        self.again = range(0, len(labelled), max(1, len(labelled) // (1 + views)))
        """Numbers of the batches at which the samples begin anew."""
        self.seen, self.uses = seen, Counter(pair.base.name for pair in job.pairs)
        base, target, tuned = job.base, job.target, tuned_copy(job)
        sites = [pair.target for pair in job.pairs]
        partners = list({pair.base.name: pair.base for pair in job.pairs}.values())

        self.parameters = dict(target.model.named_parameters(remove_duplicate=False))
        self.replaced: dict[int, Tensor] = {}
        """A parameter's id → what the target as it changes has in its place."""

        def walks(side: Side, watched: list[Site], which: Callable[[Batch], Any], **new: Any) -> list[Walk]:
            runs = [side.loss if k < len(labelled) else side.unasked for k in range(len(self.batches))]
            given = zip(runs, map(which, self.batches), strict=True)
            return [
                Walk(partial(run, side.model, each), side.model, watched, samples_in(each), **new)
                for run, each in given
            ]

        self.bases = walks(base, partners, lambda batch: batch.base)
        self.tuned = walks(base._replace(model=tuned), partners, lambda batch: batch.base)
        self.before = walks(target, sites, lambda batch: batch.target)
        self.changed = walks(target, sites, lambda batch: batch.target, replaced=self.replaced)
        self.at: list[tuple[Stop, Stop]] = []
        """Where the target has come to in every batch: as it was, and changed."""
        self.changes: list[tuple[Site, Callable[[Tensor], Tensor]]] = []
        """What is added to the outputs there, by what gives it of the inputs."""
        self.answers: list[tuple[Stop, Stop]] = []
        """Where the base has come to in every batch, and the fine-tune."""
        self.responses: dict[str, list[Tensor]] = {}
        """Site of the base that was left → Y_ft − Y_A (n, T_A, d_out) of every batch."""

    def __enter__(self) -> "SideBySide":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for walk in (*self.bases, *self.tuned, *self.before, *self.changed):
            walk.close()

    def __iter__(self) -> Iterator[tuple[Site, ...]]:
        while True:
            changed = _together(self._go_on())
            stops = _together(walk.step() for walk in self.before)
            if not stops:
                return
            self.at = list(zip(stops, changed, strict=True))
            tidy()
            yield stops[0].sites

    def _go_on(self) -> Iterator[Stop | None]:
        """Yield where each pass of the target as it changes comes to; what another has left is free by then."""
        left: list[Stop | None] = [now for _, now in self.at] or [None] * len(self.batches)
        self.at.clear()
        for walk in self.changed:
            now = left.pop(0)
            change = None if now is None else self._change(now)
            del now
            yield walk.step(change)
        self.changes.clear()

    def _change(self, now: Stop) -> Tensor:
        """Return what is added to the outputs of a stop, of their shape."""
        sums, x = torch.zeros_like(now.y), now.x.to(torch.promote_types(now.x.dtype, torch.float32))
        for site, change in self.changes:
            site.weight.outputs(sums).copy_(change(x))
        return sums

    def rows(self, pairs: Sequence[Pair]) -> Iterator[Rows]:
        """Yield what every batch shows at the layers of the weight that the target has come to."""
        first = 0
        for pair in pairs:
            self._reach(pair.base)
        for k, ((before, now), batch) in enumerate(zip(self.at, self.batches, strict=True)):
            first, responses = 0 if k in self.again else first, [self._response(pair.base, k) for pair in pairs]
            (n, count), device = now.x.shape[:2], now.x.device
            meets = self.seen.meets(*pairs[0].streams(Signal.INPUT), responses[0].shape[1], count, batch.meeting)
            met: Tensor | None = None
            if meets is not None:
                responses = [meets.to(response) @ response for response in responses]
                met = meets.any(-1).expand(n, count).to(device)
            wide = torch.promote_types(now.x.dtype, torch.float32)
            was, gives = (
                [_rows(pair.target.weight.outputs(stop.y), met).to(wide) for pair in pairs] for stop in (before, now)
            )
            samples = samples_in(batch.target) or n  # which is not n where a sample has several images
            sample = first + torch.arange(n * count, device=device).reshape(n, count) * samples // (n * count)
            first += samples
            answers = [_rows(each, met).to(wide) for each in responses]
            yield Rows(_rows(now.x, met).to(wide), was, gives, answers, _rows(sample, met))

    def add(self, site: Site, change: Callable[[Tensor], Tensor]) -> None:
        """Change a layer's outputs by what `change` gives of its inputs; the base's responses to it are done with."""
        self.changes.append((site, change))
        base = self.pairs[site.name].base.name
        self.uses[base] -= 1
        if not self.uses[base]:
            self.responses.pop(base, None)

    def replace(self, name: str, change: Tensor) -> None:
        """Change a tensor of the target outside its linear maps; what of a pass lies behind stays as it was."""
        own = self.parameters[name]
        self.replaced[id(own)] = (own.detach() + change.to(own.device)).to(own.dtype)

    def _reach(self, base: Site) -> None:
        """Go on in the base and the fine-tune until the responses of a site are there."""
        while base.name not in self.responses and all(site.name != base.name for site in self._sites):
            for site in self._sites:
                if self.uses[site.name]:
                    self.responses[site.name] = [self._response(site, k) for k in range(len(self.batches))]
            self.answers.clear()
            before, after = (_together(walk.step() for walk in walks) for walks in (self.bases, self.tuned))
            self.answers = list(zip(before, after, strict=True))

    @property
    def _sites(self) -> tuple[Site, ...]:
        """The sites of the base that it has come to."""
        return self.answers[0][0].sites if self.answers else ()

    def _response(self, base: Site, k: int) -> Tensor:
        """Return Y_ft − Y_A (n, T_A, d_out) of a batch at a site that was reached."""
        if base.name in self.responses:
            return self.responses[base.name][k]
        before, after = self.answers[k]
        return base.weight.outputs(after.y) - base.weight.outputs(before.y)


def _together(stops: Iterable[Stop | None]) -> list[Stop]:
    """Return where the passes of all batches have come to, which is one place; nothing at their end.

    Raises:
        PortError: it is not one place.
    """
    found = list(stops)
    here = [stop for stop in found if stop is not None]
    if here and (len(here) < len(found) or len({stop.sites for stop in here}) > 1):
        raise PortError("a model runs its layers in another order in some batches: nothing can follow it")
    return here


def _rows(stacked: Tensor, met: Tensor | None) -> Tensor:
    """Return those of the rows (n, T, …) that meet, one below the other; a view where all do."""
    return stacked.flatten(0, 1) if met is None or met.all() else stacked[met]


def tuned_copy(job: Job) -> nn.Module:
    """Return the fine-tune, frozen: a copy of the base with τ added."""
    tuned = deepcopy(job.base.model).eval().requires_grad_(False)
    state = tuned.state_dict()
    with torch.no_grad():
        for key, tensor in added(job.base.model.state_dict(), job.tau):
            state[key].copy_(tensor)
    return tuned
