"""Wrong implementations, each with the laws that must notice it."""

from collections.abc import Callable
from dataclasses import dataclass

import laws
import torch
import torch.nn.functional as F
import twins

from hf_bico.core import linalg, moments, taps, types
from hf_bico.core.methods import protocol, two_sided


@dataclass(frozen=True)
class Mutant:
    """`owner.name` replaced by `wrong(original)`, and the laws that die of it."""

    owner: object
    name: str
    wrong: Callable
    dies: tuple[Callable, ...]


def _scaled(factor: float) -> Callable:
    return lambda right: lambda self, tau: factor * right(self, tau)


def _ones(right):
    return lambda self, sites, signal, y: right(
        self, sites, signal, torch.ones_like(y) if signal is types.Signal.OUTPUT_GRADIENT else y)


def _sides_swapped(right):
    def wrong(self, pair, evidence, signal):
        if pair.source.d_out != pair.source.d_in:  # a swap of unequal sides would not multiply
            return right(self, pair, evidence, signal)
        other = types.Signal.INPUT if signal is types.Signal.OUTPUT_GRADIENT else types.Signal.OUTPUT_GRADIENT
        return right(self, pair, evidence, other)
    return wrong


def _transposed(right):
    def wrong(cross, **options):
        fit = right(cross.T, **options)
        return fit._replace(factor=fit.factor if cross.shape[0] == cross.shape[1] else fit.factor.T)
    return wrong


def _layer_dropped(right):
    return lambda tau, maps, target: right(tau, (entry for entry in maps if entry[0].target.role != "MLP down"), target)


def _queries_for_all(right):
    def wrong(self, sites, signal, y):
        third = y.shape[-1] // len(sites)
        return right(self, sites, signal, y[..., :third].repeat(1, 1, len(sites)))
    return wrong


def _mean_loss(right):
    def wrong(head):
        summed = right(head)
        return lambda model, batch: summed(model, batch) / len(batch[1])
    return wrong


def _last_batch_only(right):
    def wrong(self, a, b, resample=None):
        self.cross = None
        right(self, a, b, resample)
    return wrong


def _class_token_resized(right):
    return lambda source, target, *, prefix: F.interpolate(
        torch.eye(1 + source[0] * source[1])[None], size=1 + target[0] * target[1], mode="linear")[0].T.contiguous()


def _grid_turned(right):
    return lambda source, target, *, prefix: right(source[::-1], target[::-1], prefix=prefix)


def _completed(right):
    return torch.ones_like


def _bias_left(right):
    return lambda self, tau: torch.zeros_like(right(self, tau))


EXACT = (laws.source_is_target, laws.twin_gives_the_fine_tune_back)
MUTANTS = {
    "result zeroed": Mutant(types.BilinearMap, "weight", _scaled(0.0), (*EXACT, laws.batch_size_changes_nothing)),
    "result times seven": Mutant(types.BilinearMap, "weight", _scaled(7.0), EXACT),
    "bias left behind": Mutant(types.BilinearMap, "bias", _bias_left, EXACT),
    "sides swapped": Mutant(two_sided.TwoSided, "_side", _sides_swapped, EXACT),
    "map transposed": Mutant(moments, "polar_factor", _transposed, (laws.twin_gives_the_fine_tune_back,)),
    "gradients replaced by ones": Mutant(taps._Taps, "_outputs", _ones, (*EXACT, laws.streamed_is_one_shot)),
    "a layer dropped": Mutant(protocol, "transport", _layer_dropped, EXACT),
    "queries' gradient for keys and values": Mutant(taps._Taps, "_outputs", _queries_for_all,
                                                    (laws.twin_gives_the_fine_tune_back,)),
    "last batch only": Mutant(moments.CrossMoment, "add", _last_batch_only,
                              (laws.streamed_is_one_shot, laws.batch_size_changes_nothing)),
    "loss averaged over the batch": Mutant(twins, "class_loss", _mean_loss, (laws.batch_size_changes_nothing,)),
    "class token resized with the patches": Mutant(moments, "grid_resample", _class_token_resized,
                                                   (laws.tokens_meet_on_the_finer_grid,)),
    "grids resized the other way round": Mutant(moments, "grid_resample", _grid_turned,
                                                (laws.tokens_meet_on_the_finer_grid,)),
    "undetermined directions completed": Mutant(linalg, "soft_step", _completed,
                                                (laws.threads_change_nothing, laws.noise_changes_nothing,
                                                 laws.batch_size_changes_nothing)),
}
