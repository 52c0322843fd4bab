"""Wrong implementations, each with the laws that must notice it, method by method."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from hf_bico.core import collect, gradients, linalg, moments, taps, types
from hf_bico.core import method as protocol
from hf_bico.core.low_rank import Delta
from hf_bico.core.methods import few_shot, gradfix, path, transfusion, two_sided
from support import laws, twins


@dataclass(frozen=True)
class Mutant:
    """`owner.name` replaced by `wrong(original)`, and the laws that die of it."""

    owner: object
    name: str
    wrong: Callable
    dies: dict[Callable, tuple[str, ...]]
    """law → methods for which it dies; none where the law speaks of no method."""
    collecting: bool = False
    """What the samples show is wrong already, or a model is spoiled: nothing known may be used or kept."""


def _scaled(factor: float) -> Callable:
    def scaled(right):
        def wrong(tau, maps, target):
            result = right(tau, maps, target)
            return replace(result, delta=Delta.of({key: factor * change for key, change in result.delta.items()}))

        return wrong

    return scaled


def _biases_left(right):
    def wrong(tau, maps, target):
        result = right(tau, maps, target)
        return replace(result, delta=Delta.of({key: c * (c.ndim > 1) for key, c in result.delta.items()}))

    return wrong


def _layer_dropped(right):
    return lambda tau, maps, target: right(tau, (entry for entry in maps if entry[0].target.role != "MLP down"), target)


def _ones(right):
    return lambda self, sites, signal, y, *shown: right(
        self, sites, signal, torch.ones_like(y) if signal is types.Signal.OUTPUT_GRADIENT else y, *shown
    )


def _input_as_its_gradient(right):
    return lambda self, stream, rows: right(
        self, stream, torch.ones_like(rows) if stream.signal is types.Signal.INPUT_GRADIENT else rows
    )


def _outputs_as_gradients(right):
    def wrong(self, pair, statistics, signal):
        swap = {types.Signal.OUTPUT: types.Signal.OUTPUT_GRADIENT, types.Signal.OUTPUT_GRADIENT: types.Signal.OUTPUT}
        return right(self, pair, statistics, swap.get(signal, signal))

    return wrong


def _sides_swapped(right):
    def wrong(self, tau):
        shapes = {tuple(side.shape) for side in (self.left, self.right) if side is not None}
        if tau.shape[0] != tau.shape[1] or len(shapes) != 1:  # a swap of unequal sides would not multiply
            return right(self, tau)
        return right(replace(self, left=self.right, right=self.left), tau)

    return wrong


def _transposed(right):
    def wrong(cross, *, fill=None, **options):
        if cross.shape[0] != cross.shape[1]:
            return right(cross, fill=fill, **options)
        return right(cross.T, fill=None if fill is None else fill.T, **options)

    return wrong


def _queries_for_all(right):
    def wrong(self, sites, signal, y, *shown):
        if len(sites) == 1:
            return right(self, sites, signal, y, *shown)
        third = y.shape[-1] // len(sites)
        return right(self, sites, signal, y[..., :third].repeat(1, 1, len(sites)), *shown)

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


def _last_sample_only(right):
    def wrong(self, x, g):
        self.weight = self.bias = None
        right(self, x[-1:], g[-1:])

    return wrong


def _class_token_resized(right):
    return lambda source, target, *, prefix: F.interpolate(
        torch.eye(1 + source[0] * source[1])[None], size=1 + target[0] * target[1], mode="linear"
    )[0].T.contiguous()


def _grid_turned(right):
    return lambda source, target, *, prefix: right(source[::-1], target[::-1], prefix=prefix)


def _weights_cut_off(right):
    def wrong(self):
        return replace(self, weighted=False, cross=self.cross[:-1, :-1]) if self.weighted else right(self)

    return wrong


def _completed(right):
    return torch.ones_like


def _ignoring(option: str, value) -> Callable:
    def ignoring(right):
        return lambda *args, **options: right(*args, **options | {option: value})

    return ignoring


def _without_decay(right):
    return lambda self, job, track: right(replace(self, decay=0.0), job, track)


def _opposite(right):
    return lambda tau, gradient: right(tau, -gradient)


def _other_sign(right):
    def wrong(self, pairs, statistics):
        return right(replace(self, sign="mean" if self.sign == "vote" else "vote"), pairs, statistics)

    return wrong


def _votes_of_batches(right):
    def wrong(self, x, g):
        right(self, x.flatten(0, 1)[None], g.flatten(0, 1)[None])

    return wrong


def _labels_used(right):
    def labelled(first, draw):
        def run(side, batch):
            side.loss(side.model, batch).backward()

        return run

    return labelled


def _by_place_in_the_batch(right):
    return lambda first, draw: right(0, draw)


def _inverted(right):
    return lambda *args: right(*args).argsort()


def _heads_in_order(right):
    return lambda places, weights, heads: torch.arange(heads)


def _worst(right):
    return lambda cost: right(-cost)


def _without_outputs(right):
    return lambda places, *rest: right([p for p in places if p.out], *rest)


def _nothing_held(right):
    return lambda model, tensors: nullcontext(model)


def _changed_for_good(right):
    def wrong(model, tensors):
        return nullcontext(dict(tensors) and model)

    return wrong


def _ascending(right):
    return lambda *args, **options: {key: -change for key, change in right(*args, **options).items()}


MOVED = {
    laws.own_base_gives_the_step_back: laws.LAWS[laws.own_base_gives_the_step_back],
    laws.own_base_projects: ("bico, centred", "theseus", "theseus, centred", "gradient-only"),
    laws.kept_entries_have_a_majority: ("gradfix, vote",),
}
GRADIENTS = ("bico", "output-only")
MUTANTS = {
    "result zeroed": Mutant(protocol, "transport", _scaled(0.0), MOVED | {laws.batch_size_changes_nothing: ("bico",)}),
    "result times seven": Mutant(
        protocol,
        "transport",
        _scaled(7.0),
        MOVED
        | {
            laws.norms_and_angles_are_kept: ("bico", "naive"),
            laws.kept_entries_descend: ("gradfix",),
            laws.plain_numpy_agrees: laws.LAWS[laws.plain_numpy_agrees],
            laws.same_function_same_fine_tune: ("bico",),
        },
    ),
    "biases left behind": Mutant(protocol, "transport", _biases_left, MOVED),
    "a layer dropped": Mutant(protocol, "transport", _layer_dropped, MOVED),
    "sides swapped": Mutant(
        types.BilinearMap,
        "weight",
        _sides_swapped,
        {
            laws.rotations_are_followed: laws.TWO_SIDED,
            laws.own_base_gives_the_step_back: laws.ONE_SIDED,
            laws.factors_move_alone: ("bico", "gradient-only"),
        },
    ),
    "map transposed": Mutant(
        moments,
        "polar_factor",
        _transposed,
        {
            laws.rotations_are_followed: laws.TWO_SIDED,
            laws.permutations_are_followed: laws.TWO_SIDED,
            laws.plain_numpy_agrees: laws.ONE_SIDED,
        },
    ),
    "outputs for gradients, gradients for outputs": Mutant(
        two_sided.TwoSided,
        "_side",
        _outputs_as_gradients,
        {laws.plain_numpy_agrees: ("bico", "bico, centred", "theseus", "output-only", "gradient-only")},
    ),
    "gradients replaced by ones": Mutant(
        taps._Taps,
        "_outputs",
        _ones,
        {
            laws.own_base_gives_the_step_back: ("gradfix", *GRADIENTS),
            laws.rotations_are_followed: ("bico, label-free", "gradient-only"),
            laws.kept_entries_have_a_majority: ("gradfix, vote",),
            laws.kept_entries_descend: ("gradfix",),
            laws.streamed_is_one_shot: (),
            laws.gradients_are_autograds: (),
        },
        collecting=True,
    ),
    "ones for the inputs' gradients": Mutant(
        taps._Taps,
        "_seen",
        _input_as_its_gradient,
        {laws.plain_numpy_agrees: ("gradient-only",), laws.streamed_is_one_shot: ()},
        collecting=True,
    ),
    "queries' gradient for keys and values": Mutant(
        taps._Taps,
        "_outputs",
        _queries_for_all,
        {laws.permutations_are_followed: ("bico",), laws.gradients_are_autograds: ()},
        collecting=True,
    ),
    "last batch only": Mutant(
        moments.CrossMoment,
        "add",
        _last_batch_only,
        {laws.streamed_is_one_shot: (), laws.batch_size_changes_nothing: ("bico", "theseus")},
        collecting=True,
    ),
    "last sample only": Mutant(
        gradients.WeightGradient,
        "add",
        _last_sample_only,
        {
            laws.gradients_are_autograds: (),
            laws.kept_entries_descend: ("gradfix",),
            laws.batch_size_changes_nothing: ("gradfix, vote",),
        },
        collecting=True,
    ),
    "loss averaged over the batch": Mutant(
        twins,
        "class_loss",
        _mean_loss,
        {laws.batch_size_changes_nothing: ("bico", "gradient-only", "output-only")},
        collecting=True,
    ),
    "class token resized with the patches": Mutant(
        moments, "grid_resample", _class_token_resized, {laws.tokens_meet_on_the_finer_grid: ()}
    ),
    "grids resized the other way round": Mutant(
        moments, "grid_resample", _grid_turned, {laws.tokens_meet_on_the_finer_grid: ()}
    ),
    "undetermined directions completed": Mutant(
        linalg,
        "soft_step",
        _completed,
        {
            laws.threads_change_nothing: ("bico", "theseus"),
            laws.noise_changes_nothing: ("bico", "bico, label-free", "theseus", "gradient-only", *laws.ONE_SIDED),
            laws.batch_size_changes_nothing: ("bico",),
            laws.filling_leaves_what_is_determined: (),
        },
    ),
    "completed though cut was asked": Mutant(
        moments,
        "polar_factor",
        _ignoring("free", True),
        {laws.plain_numpy_agrees: ("bico", "theseus"), laws.noise_changes_nothing: ("bico",)},
    ),
    "cut though free was asked": Mutant(
        linalg, "polar_factor", _ignoring("free", False), {laws.free_maps_are_scipys: ()}
    ),
    "fill forgotten": Mutant(
        moments, "polar_factor", _ignoring("fill", None), {laws.plain_numpy_agrees: ("bico, filled",)}
    ),
    "fill over what is determined": Mutant(
        linalg,
        "_filling",
        lambda right: lambda uf, u, vf, v, fill, rtol: right(0 * uf, u, 0 * vf, v, fill, rtol),
        {laws.filling_leaves_what_is_determined: (), laws.plain_numpy_agrees: ("bico, filled",)},
    ),
    "centring forgotten": Mutant(
        moments.CrossMoment,
        "centred",
        lambda right: lambda self: self,
        {laws.plain_numpy_agrees: ("bico, centred", "theseus, centred")},
    ),
    "weighted rows not centred": Mutant(
        moments.CrossMoment, "centred", _weights_cut_off, {laws.plain_numpy_agrees: ("best",)}
    ),
    "gradients of the loss's own length": Mutant(
        taps, "_root", lambda right: lambda rows: 1.0, {laws.plain_numpy_agrees: ("best",)}, collecting=True
    ),
    "mask's sign flipped": Mutant(
        gradfix,
        "agreeing",
        _opposite,
        {
            laws.own_base_gives_the_step_back: ("gradfix",),
            laws.kept_entries_descend: ("gradfix",),
            laws.kept_entries_have_a_majority: ("gradfix, vote",),
        },
    ),
    "votes replaced by the mean, the mean by votes": Mutant(
        gradfix.GradFix,
        "plan",
        _other_sign,
        {laws.kept_entries_descend: ("gradfix",), laws.kept_entries_have_a_majority: ("gradfix, vote",)},
    ),
    "votes of batches": Mutant(
        gradients.WeightGradient,
        "add",
        _votes_of_batches,
        {laws.gradients_are_autograds: (), laws.kept_entries_have_a_majority: ("gradfix, vote",)},
        collecting=True,
    ),
    "labels used without a word": Mutant(
        collect, "_label_free", _labels_used, {laws.labels_are_not_looked_at: ("bico, label-free",)}, collecting=True
    ),
    "cotangents by the place in the batch": Mutant(
        collect,
        "_label_free",
        _by_place_in_the_batch,
        {laws.labels_are_not_looked_at: ("bico, label-free",), laws.batch_size_changes_nothing: ("bico, label-free",)},
        collecting=True,
    ),
    "inverse permutation": Mutant(
        transfusion,
        "match_units",
        _inverted,
        {
            laws.permutations_are_followed: ("transfusion",),
            laws.brute_force_finds_the_same: ("transfusion",),
            laws.same_function_same_fine_tune: ("transfusion",),
        },
    ),
    "heads taken in order": Mutant(
        transfusion,
        "match_heads",
        _heads_in_order,
        {laws.permutations_are_followed: ("transfusion",), laws.brute_force_finds_the_same: ("transfusion",)},
    ),
    "heads' inverse": Mutant(
        transfusion, "match_heads", _inverted, {laws.brute_force_finds_the_same: ("transfusion",)}
    ),
    "the worst assignment": Mutant(
        transfusion,
        "_assigned",
        _worst,
        {laws.own_base_gives_the_step_back: ("transfusion",), laws.brute_force_finds_the_same: ("transfusion",)},
    ),
    "heads by q, k and v alone": Mutant(
        transfusion, "match_heads", _without_outputs, {laws.brute_force_finds_the_same: ("transfusion",)}
    ),
    "columns left in their order": Mutant(
        transfusion.Permutation,
        "weight",
        lambda right: lambda self, tau: self.bias(tau),
        {laws.permutations_are_followed: ("transfusion",), laws.brute_force_finds_the_same: ("transfusion",)},
    ),
    "naive scaled": Mutant(
        F,
        "pad",
        lambda right: lambda x, widths: right(x, widths) * 2,
        {laws.there_and_back: ("naive",), laws.own_base_gives_the_step_back: ("naive",)},
    ),
    "a path that stands still": Mutant(
        path, "holding", _nothing_held, {laws.steps_are_ports_of_parts: ("bico, two steps",)}, collecting=True
    ),
    "a path of the last step alone": Mutant(
        path, "transport", _scaled(0.5), {laws.steps_are_ports_of_parts: ("bico, two steps",)}, collecting=True
    ),
    "few-shot leaves its steps in the model": Mutant(
        few_shot, "holding", _changed_for_good, {laws.steps_are_adams: ("few-shot",)}, collecting=True
    ),
    "few-shot climbs": Mutant(
        few_shot.FewShot, "descend", _ascending, {laws.steps_are_adams: ("few-shot",)}, collecting=True
    ),
    "few-shot decays nothing": Mutant(
        few_shot.FewShot, "descend", _without_decay, {laws.steps_are_adams: ("few-shot",)}, collecting=True
    ),
}
