"""Ways to be wrong: each takes the right function and returns the wrong one."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import torch
import torch.nn.functional as F

from hf_bico.core import types
from hf_bico.core.low_rank import Delta


def scaled(factor: float) -> Callable:
    def scaled(right):
        def wrong(tau, maps, target, rides=()):
            result = right(tau, maps, target, rides)
            return replace(result, delta=Delta.of({key: factor * change for key, change in result.delta.items()}))

        return wrong

    return scaled


def halved(right):
    def wrong(delta, moved, **rest):
        return right(Delta.of({key: change / 2 for key, change in delta.items()}), moved, **rest)

    return wrong


def biases_left(right):
    def wrong(tau, maps, target, rides=()):
        result = right(tau, maps, target, rides)
        return replace(result, delta=Delta.of({key: c * (c.ndim > 1) for key, c in result.delta.items()}))

    return wrong


def layer_dropped(right):
    def wrong(tau, maps, target, rides=()):
        return right(tau, (entry for entry in maps if entry[0].target.role != "MLP down"), target, rides)

    return wrong


def ones(right):
    return lambda self, sites, signal, run, y, *shown: right(
        self, sites, signal, run, torch.ones_like(y) if signal is types.Signal.OUTPUT_GRADIENT else y, *shown
    )


def input_as_its_gradient(right):
    return lambda self, stream, run, rows: right(
        self, stream, run, torch.ones_like(rows) if stream.signal is types.Signal.INPUT_GRADIENT else rows
    )


def outputs_as_gradients(right):
    def wrong(self, pair, statistics, signal):
        swap = {types.Signal.OUTPUT: types.Signal.OUTPUT_GRADIENT, types.Signal.OUTPUT_GRADIENT: types.Signal.OUTPUT}
        return right(self, pair, statistics, swap.get(signal, signal))

    return wrong


def sides_swapped(right):
    def wrong(self, tau):
        shapes = {tuple(side.shape) for side in (self.left, self.right) if side is not None}
        if tau.shape[0] != tau.shape[1] or len(shapes) != 1:  # a swap of unequal sides would not multiply
            return right(self, tau)
        return right(replace(self, left=self.right, right=self.left), tau)

    return wrong


def transposed(right):
    def wrong(cross, *, fill=None, **options):
        if cross.shape[0] != cross.shape[1]:
            return right(cross, fill=fill, **options)
        return right(cross.T, fill=None if fill is None else fill.T, **options)

    return wrong


def queries_for_all(right):
    def wrong(self, sites, signal, run, y, *shown):
        if len(sites) == 1:
            return right(self, sites, signal, run, y, *shown)
        third = y.shape[-1] // len(sites)
        return right(self, sites, signal, run, y[..., :third].repeat(1, 1, len(sites)), *shown)

    return wrong


def mean_loss(right):
    def wrong(head):
        summed = right(head)
        return lambda model, batch: summed(model, batch) / len(batch[1])

    return wrong


def last_batch_only(right):
    def wrong(self, a, b, resample=None):
        self.cross = None
        right(self, a, b, resample)

    return wrong


def last_sample_only(right):
    def wrong(self, x, g):
        self.weight = self.bias = None
        right(self, x[-1:], g[-1:])

    return wrong


def class_token_resized(right):
    return lambda source, target, *, prefix: F.interpolate(
        torch.eye(1 + source[0] * source[1])[None], size=1 + target[0] * target[1], mode="linear"
    )[0].T.contiguous()


def grid_turned(right):
    return lambda source, target, *, prefix: right(source[::-1], target[::-1], prefix=prefix)


def weights_cut_off(right):
    def wrong(self):
        return replace(self, weighted=False, cross=self.cross[:-1, :-1]) if self.weighted else right(self)

    return wrong


def completed(right):
    return torch.ones_like


def ignoring(option: str, value) -> Callable:
    def ignoring(right):
        return lambda *args, **options: right(*args, **options | {option: value})

    return ignoring


def without_decay(right):
    return lambda job, learnt, lesson, *given: right(job, learnt, replace(lesson, decay=0.0), *given)


def the_last_batch(right):
    return lambda *given: list(right(*given))[-1:]


def opposite(right):
    return lambda tau, gradient: right(tau, -gradient)


def other_sign(right):
    def wrong(self, pairs, statistics):
        return right(replace(self, sign="mean" if self.sign == "vote" else "vote"), pairs, statistics)

    return wrong


def votes_of_batches(right):
    def wrong(self, x, g):
        right(self, x.flatten(0, 1)[None], g.flatten(0, 1)[None])

    return wrong


def labels_used(right):
    def labelled(first, draw):
        def run(side, batch):
            side.loss(side.model, batch).backward()

        return run

    return labelled


def by_place_in_the_batch(right):
    return lambda first, draw: right(0, draw)


def inverted(right):
    return lambda *args: right(*args).argsort()


def heads_in_order(right):
    return lambda places, weights, heads: torch.arange(heads)


def worst(right):
    return lambda cost: right(-cost)


def without_outputs(right):
    return lambda places, *rest: right([p for p in places if p.out], *rest)


def nothing_held(right):
    return lambda model, tensors: nullcontext(model)


def changed_for_good(right):
    def wrong(model, tensors):
        return nullcontext(dict(tensors) and model)

    return wrong


def no_anchor(right):
    def wrong(*given):
        change, told = right(*given)
        return change._replace(weight=0 * change.weight, bias=None if change.bias is None else 0 * change.bias), told

    return wrong


def not_passed_on(right):
    return lambda self, site, change: right(self, site, lambda x: 0 * change(x))


def the_last_alone(right):
    def wrong(self, x, residual, sample):
        self.rows.clear()
        self.folds.clear()
        self.cross = 0.0
        right(self, x, residual, sample)

    return wrong
