"""Traces that see too much or too little, and statistics of the wrong rows, each with the tests that must notice it."""

from dataclasses import replace

import torch

from hf_bico.core import kernels, pairing, routing, taps, types
from hf_bico.core.methods import response
from hf_bico.families import hf
from hf_bico.families.traced import confirming, family, places, reading, roles
from hf_bico.workflows import live
from tests.mutants.changes import instead, of_tests

TRACED, FUSED = "tests/families/test_traced.py::test_", "tests/families/test_fused.py::test_"
EXPERTS = "tests/families/test_experts.py::test_"
TWIN = f"{EXPERTS}a_twin_with_its_experts_in_another_order_gives_the_fine_tune_back"
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
    "experts that are stored in any way are taken in": of_tests(
        family.Traced,
        "require_known",
        instead(None),
        f"{EXPERTS}mixtures_of_one_table_pair_and_experts_stored_otherwise_are_refused",
    ),
}
ROWS = {
    "all runs are the first": of_tests(
        taps.Taps,
        "_seen",
        lambda right: lambda self, stream, run, rows: right(self, stream, run._replace(number=0), rows),
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
MIXTURES = {
    "experts keep their numbers": of_tests(
        live,
        "match_experts",
        lambda right: lambda base, target, pairs, batches: tuple(pairs),
        f"{TWIN}[mixtral-False]",
        f"{EXPERTS}the_naive_copy_and_outputs_follow_the_match_too",
    ),
    "rows of an expert are the first ones": of_tests(
        routing.Picked,
        "spread",
        lambda right: lambda self, rows: right(self._replace(at=torch.arange(len(rows))), rows),
        f"{EXPERTS}an_expert_sees_the_rows_that_its_router_sends_it_where_they_are[mixtral-2]",
    ),
    "a router's rows stay": of_tests(
        types.Slice,
        "put",
        lambda right: lambda self, tensor, part: right(replace(self, order=None), tensor, part),
        f"{TWIN}[mixtral-False]",
    ),
    "any number of experts": of_tests(
        pairing,
        "require_like_experts",
        instead(None),
        f"{EXPERTS}other_numbers_of_experts_and_dense_blocks_are_refused_by_name",
    ),
    "experts apart lie in the order of their names": of_tests(
        hf,
        "_in_stack",
        lambda right: lambda key, *rest: (at := right(key, *rest)) and (-at[0], at[1]),
        f"{EXPERTS}what_is_stored_apart_is_read_as_the_live_model_has_it[mixtral]",
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
MUTANTS = TRACES | ROWS | MIXTURES | CONVOLUTIONS
