"""Traces that see too much or too little, and statistics of the wrong rows, each with the tests that must notice it."""

from dataclasses import replace

from hf_bico.core import kernels, taps, types
from hf_bico.core.methods import response
from hf_bico.families.traced import confirming, family, places, reading, roles
from tests.mutants.changes import instead, of_tests

TRACED, FUSED = "tests/families/test_traced.py::test_", "tests/families/test_fused.py::test_"
NETS, KERNELS = "tests/families/test_convolutions.py::test_", "tests/core/test_kernels.py::test_"
BESIDE = "tests/families/test_traced_beside.py::test_"

TRACES = {
    "no permutation refutes": of_tests(confirming, "SAME", lambda right: 1e9, f"{TRACED}a_refuted_mlp_has_no_role"),
    "every permutation refutes": of_tests(
        confirming, "apart", instead(1.0), f"{TRACED}the_trace_gives_what_the_table_says[llama]"
    ),
    "a decoder reads no encoder": of_tests(
        roles, "_is_cross", instead(False), f"{TRACED}the_trace_gives_what_the_table_says[t5]"
    ),
    "every map reads rows of its own": of_tests(
        places,
        "_space",
        lambda right: lambda block, entry, like: f"{block} {entry.own}",
        f"{TRACED}the_trace_gives_what_the_table_says[llama]",
    ),
    "a part of a weight as in the tiny one": of_tests(
        places,
        "_scaled",
        lambda right: lambda rows, d_out, tiny: rows,
        f"{TRACED}no_weights_are_needed_and_no_random_state_is_left_changed",
    ),
    "experts are taken in": of_tests(
        family.Traced, "require_known", instead(None), f"{TRACED}experts_are_refused_by_name"
    ),
}
ROWS = {
    "all runs are the first": of_tests(
        taps.Taps,
        "_seen",
        lambda right: lambda self, stream, run, rows: right(self, stream, 0, rows),
        f"{FUSED}a_block_that_runs_twice_adds_up_its_runs",
    ),
    "rows that come once": of_tests(
        types.Slice,
        "_own",
        lambda right: (
            lambda self, x, axis: x if self.rows is None else x.narrow(axis, self.rows[0], self.rows[1] - self.rows[0])
        ),
        f"{FUSED}rows_that_come_again_are_read_and_written_in_their_places",
        f"{FUSED}parts_of_a_fused_weight_are_what_attention_takes[gpt_neox]",
    ),
    "every pixel, whatever the step": of_tests(
        taps.Taps,
        "_convolved",
        lambda right: (
            lambda self, sites, x, weight, bias=None, stride=1, *rest, **odd: right(self, sites, x, weight, bias, 1)
        ),
        f"{FUSED}pixels_and_turned_weights_show_the_rows_that_a_linear_layer_shows",
    ),
}
CONVOLUTIONS = {
    "a kernel of another size is always resized": of_tests(
        kernels, "on_centre", instead(False), f"{KERNELS}a_larger_kernel_is_the_same_function"
    ),
    "a convolution's patches have their taps first": of_tests(
        response,
        "as_taps",
        lambda right: lambda matrix, window: right(matrix, window).flip(0),
        f"{KERNELS}rotated_channels_are_followed_at_every_tap[method2]",
    ),
    "a batch norm's units stay when they are permuted": of_tests(
        confirming, "_between", instead([]), f"{NETS}roles_are_confirmed_through_batch_norms_and_depthwise_convolutions"
    ),
    "any gain folds into what reads it": of_tests(
        reading,
        "told",
        lambda right: lambda copy, shown, trace, beside: beside,
        f"{BESIDE}a_gain_that_the_layers_behind_it_cannot_tell_is_not_folded",
    ),
    "no gain folds": of_tests(
        family, "gains_of", instead(()), f"{BESIDE}gains_fold_into_the_layers_that_read_them[nemotron]"
    ),
    "a layer scale is no scale": of_tests(
        reading,
        "told",
        lambda right: lambda *given: {name: replace(own, scales="") for name, own in right(*given).items()},
        f"{BESIDE}everything_that_changed_moves_between_permuted_twins[beit]",
    ),
}
MUTANTS = TRACES | ROWS | CONVOLUTIONS
