"""Wrong methods, each with the laws that must notice it, method by method."""

import copy
from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from support import laws, twins
from support.laws.models import threads

from hf_bico.core import collect, gradients, learn, linalg, moments, ridge, side_by_side, taps, types
from hf_bico.core import method as protocol
from hf_bico.core.methods import gradfix, path, response, transfusion, two_sided
from hf_bico.tasks import views
from tests.mutants import wrong
from tests.mutants.mutant import Mutant


def of_laws(owner: object, name: str, change: Callable, dies: dict, collecting: bool = False) -> Mutant:
    """Return a mutant that laws must notice.

    Args:
        dies: law → methods for which it dies; none where the law speaks of no method.
    """
    cases = tuple(partial(judged, law, each) for law, methods in dies.items() for each in methods or (None,))
    return Mutant(owner, name, change, cases, collecting=collecting)


def judged(law: Callable, method: str | None) -> None:
    """Check a law, of a method, on one thread."""
    with threads(1):
        laws.check(law, method)


MOVED = {
    laws.own_base_gives_the_step_back: laws.LAWS[laws.own_base_gives_the_step_back],
    laws.own_base_projects: ("bico, centred", "theseus", "theseus, centred", "gradient-only"),
    laws.kept_entries_have_a_majority: ("gradfix, vote",),
}
GRADIENTS = ("bico", "output-only")
MUTANTS = {
    "result zeroed": of_laws(
        protocol, "transport", wrong.scaled(0.0), MOVED | {laws.batch_size_changes_nothing: ("bico",)}
    ),
    "result times seven": of_laws(
        protocol,
        "transport",
        wrong.scaled(7.0),
        MOVED
        | {
            laws.norms_and_angles_are_kept: ("bico", "naive"),
            laws.kept_entries_descend: ("gradfix",),
            laws.plain_numpy_agrees: laws.LAWS[laws.plain_numpy_agrees],
            laws.same_function_same_fine_tune: ("bico",),
        },
    ),
    "biases left behind": of_laws(protocol, "transport", wrong.biases_left, MOVED),
    "a layer dropped": of_laws(protocol, "transport", wrong.layer_dropped, MOVED),
    "sides swapped": of_laws(
        types.BilinearMap,
        "weight",
        wrong.sides_swapped,
        {
            laws.rotations_are_followed: laws.TWO_SIDED,
            laws.own_base_gives_the_step_back: laws.ONE_SIDED,
            laws.factors_move_alone: ("bico", "gradient-only"),
        },
    ),
    "map transposed": of_laws(
        moments,
        "polar_factor",
        wrong.transposed,
        {
            laws.rotations_are_followed: laws.TWO_SIDED,
            laws.permutations_are_followed: laws.TWO_SIDED,
            laws.plain_numpy_agrees: laws.ONE_SIDED,
        },
    ),
    "outputs for gradients, gradients for outputs": of_laws(
        two_sided.TwoSided,
        "_side",
        wrong.outputs_as_gradients,
        {laws.plain_numpy_agrees: ("bico", "bico, centred", "theseus", "output-only", "gradient-only")},
    ),
    "gradients replaced by ones": of_laws(
        taps.Taps,
        "_outputs",
        wrong.ones,
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
    "ones for the inputs' gradients": of_laws(
        taps.Taps,
        "_seen",
        wrong.input_as_its_gradient,
        {laws.plain_numpy_agrees: ("gradient-only",), laws.streamed_is_one_shot: ()},
        collecting=True,
    ),
    "queries' gradient for keys and values": of_laws(
        taps.Taps,
        "_outputs",
        wrong.queries_for_all,
        {laws.permutations_are_followed: ("bico",), laws.gradients_are_autograds: ()},
        collecting=True,
    ),
    "last batch only": of_laws(
        moments.CrossMoment,
        "add",
        wrong.last_batch_only,
        {laws.streamed_is_one_shot: (), laws.batch_size_changes_nothing: ("bico", "theseus")},
        collecting=True,
    ),
    "last sample only": of_laws(
        gradients.WeightGradient,
        "add",
        wrong.last_sample_only,
        {
            laws.gradients_are_autograds: (),
            laws.kept_entries_descend: ("gradfix",),
            laws.batch_size_changes_nothing: ("gradfix, vote",),
        },
        collecting=True,
    ),
    "loss averaged over the batch": of_laws(
        twins,
        "class_loss",
        wrong.mean_loss,
        {laws.batch_size_changes_nothing: ("bico", "gradient-only", "output-only")},
        collecting=True,
    ),
    "class token resized with the patches": of_laws(
        moments, "grid_resize", wrong.class_token_resized, {laws.tokens_meet_on_the_finer_grid: ()}
    ),
    "grids resized the other way round": of_laws(
        moments, "grid_resize", wrong.grid_turned, {laws.tokens_meet_on_the_finer_grid: ()}
    ),
    "undetermined directions completed": of_laws(
        linalg,
        "soft_step",
        wrong.completed,
        {
            laws.threads_change_nothing: ("bico", "theseus"),
            laws.noise_changes_nothing: ("bico", "bico, label-free", "theseus", "gradient-only", *laws.ONE_SIDED),
            laws.batch_size_changes_nothing: ("bico",),
            laws.filling_leaves_what_is_determined: (),
        },
    ),
    "completed though cut was asked": of_laws(
        moments,
        "polar_factor",
        wrong.ignoring("free", True),
        {laws.plain_numpy_agrees: ("bico", "theseus"), laws.noise_changes_nothing: ("bico",)},
    ),
    "cut though free was asked": of_laws(
        linalg, "polar_factor", wrong.ignoring("free", False), {laws.free_maps_are_scipys: ()}
    ),
    "fill forgotten": of_laws(
        moments, "polar_factor", wrong.ignoring("fill", None), {laws.plain_numpy_agrees: ("bico, filled",)}
    ),
    "fill over what is determined": of_laws(
        linalg,
        "_filling",
        lambda right: lambda uf, u, vf, v, fill, rtol: right(0 * uf, u, 0 * vf, v, fill, rtol),
        {laws.filling_leaves_what_is_determined: (), laws.plain_numpy_agrees: ("bico, filled",)},
    ),
    "centring forgotten": of_laws(
        moments.CrossMoment,
        "centred",
        lambda right: lambda self: self,
        {laws.plain_numpy_agrees: ("bico, centred", "theseus, centred")},
    ),
    "weighted rows not centred": of_laws(
        moments.CrossMoment, "centred", wrong.weights_cut_off, {laws.plain_numpy_agrees: ("weighted",)}
    ),
    "gradients of the loss's own length": of_laws(
        taps, "_root", lambda right: lambda rows: 1.0, {laws.plain_numpy_agrees: ("weighted",)}, collecting=True
    ),
    "mask's sign flipped": of_laws(
        gradfix,
        "agreeing",
        wrong.opposite,
        {
            laws.own_base_gives_the_step_back: ("gradfix",),
            laws.kept_entries_descend: ("gradfix",),
            laws.kept_entries_have_a_majority: ("gradfix, vote",),
        },
    ),
    "votes replaced by the mean, the mean by votes": of_laws(
        gradfix.GradFix,
        "plan",
        wrong.other_sign,
        {laws.kept_entries_descend: ("gradfix",), laws.kept_entries_have_a_majority: ("gradfix, vote",)},
    ),
    "votes of batches": of_laws(
        gradients.WeightGradient,
        "add",
        wrong.votes_of_batches,
        {laws.gradients_are_autograds: (), laws.kept_entries_have_a_majority: ("gradfix, vote",)},
        collecting=True,
    ),
    "labels used without a word": of_laws(
        collect,
        "_label_free",
        wrong.labels_used,
        {laws.labels_are_not_looked_at: ("bico, label-free",)},
        collecting=True,
    ),
    "cotangents by the place in the batch": of_laws(
        collect,
        "_label_free",
        wrong.by_place_in_the_batch,
        {laws.labels_are_not_looked_at: ("bico, label-free",), laws.batch_size_changes_nothing: ("bico, label-free",)},
        collecting=True,
    ),
    "inverse permutation": of_laws(
        transfusion,
        "match_units",
        wrong.inverted,
        {
            laws.permutations_are_followed: ("transfusion",),
            laws.brute_force_finds_the_same: ("transfusion",),
            laws.same_function_same_fine_tune: ("transfusion",),
        },
    ),
    "heads taken in order": of_laws(
        transfusion,
        "match_heads",
        wrong.heads_in_order,
        {laws.permutations_are_followed: ("transfusion",), laws.brute_force_finds_the_same: ("transfusion",)},
    ),
    "heads' inverse": of_laws(
        transfusion, "match_heads", wrong.inverted, {laws.brute_force_finds_the_same: ("transfusion",)}
    ),
    "the worst assignment": of_laws(
        transfusion,
        "_assigned",
        wrong.worst,
        {laws.own_base_gives_the_step_back: ("transfusion",), laws.brute_force_finds_the_same: ("transfusion",)},
    ),
    "heads by q, k and v alone": of_laws(
        transfusion, "match_heads", wrong.without_outputs, {laws.brute_force_finds_the_same: ("transfusion",)}
    ),
    "columns left in their order": of_laws(
        transfusion.Permutation,
        "weight",
        lambda right: lambda self, tau: self.bias(tau),
        {laws.permutations_are_followed: ("transfusion",), laws.brute_force_finds_the_same: ("transfusion",)},
    ),
    "naive scaled": of_laws(
        F,
        "pad",
        lambda right: lambda x, widths: right(x, widths) * 2,
        {laws.there_and_back: ("naive",), laws.own_base_gives_the_step_back: ("naive",)},
    ),
    "a path that stands still": of_laws(
        path, "holding", wrong.nothing_held, {laws.steps_are_ports_of_parts: ("bico, two steps",)}, collecting=True
    ),
    "a path of half the steps' length": of_laws(
        path, "Transported", wrong.halved, {laws.steps_are_ports_of_parts: ("bico, two steps",)}, collecting=True
    ),
    "few-shot decays nothing": of_laws(
        learn, "_descend", wrong.without_decay, {laws.steps_are_adams: ("few-shot",)}, collecting=True
    ),
    "learning at one rate": of_laws(
        learn, "cos", lambda right: lambda angle: 1.0, {laws.steps_are_adams: ("few-shot",)}, collecting=True
    ),
    "the base's own answers are taught": of_laws(
        learn, "tuned_copy", lambda right: lambda job: job.base.model, {laws.answers_come_nearer: ("distil",)}
    ),
    "a step on the last batch alone": of_laws(
        learn, "_batches", wrong.the_last_batch, {laws.batches_do_not_matter: ("distil",)}
    ),
    "a ridge to nothing": of_laws(
        response,
        "_anchor",
        wrong.no_anchor,
        {laws.a_heavy_ridge_is_bico: ("response, far",), laws.same_function_same_fine_tune: ("response",)},
    ),
    "layers solved as if none below had changed": of_laws(
        side_by_side.SideBySide, "add", wrong.not_passed_on, {laws.responses_are_reproduced: ("response, light",)}
    ),
    "responses of the base alone": of_laws(
        side_by_side,
        "tuned_copy",
        lambda right: lambda job: copy.deepcopy(job.base.model),
        {laws.responses_are_reproduced: ("response, light",), laws.same_function_same_fine_tune: ("response",)},
    ),
    "a change of its own": of_laws(
        ridge,
        "_solved",
        lambda right: lambda *given: right(*given) + 1e-3,
        {laws.nothing_responds_to_nothing: ("response", "response, auto")},
    ),
    "views that follow the batch": of_laws(
        views,
        "_part_seen",
        lambda right: lambda part, first, view: right(part, 0, view),
        {laws.batches_do_not_matter: ("response, views",)},
    ),
    "the last batch alone": of_laws(
        ridge.Regression,
        "add",
        wrong.the_last_alone,
        {laws.batches_do_not_matter: ("response", "response, auto", "blend")},
    ),
}
