"""Wrong files, reports, heads, scores, trials and pipelines, each with the tests that must notice it."""

from dataclasses import replace
from types import SimpleNamespace

import torch
from huggingface_hub import HfApi

from hf_bico.core import chain, folds, moments, transport, walk
from hf_bico.core import method as protocol
from hf_bico.io import adapter, fingerprint, fits, workspace, writer
from hf_bico.io.changes import delta, forms, opening, vectors
from hf_bico.io.maps import shards as maps
from hf_bico.io.maps import stored
from hf_bico.reports import card, report, tables, verdict
from hf_bico.tasks import batches, heads, samples, scores, strategies
from hf_bico.workflows import arithmetic, compare, deliver, port, session, trial
from tests.mutants.changes import given, instead, of_tests, then, twice

CHANGES, SAMPLES, WORKFLOWS, REPORTS = "tests/io/", "tests/tasks/", "tests/workflows/", "tests/reports/"
CHOICES = f"{WORKFLOWS}test_choices.py::test_"
INTERRUPTED = f"{CHOICES}an_interrupted_port_picks_up_where_it_was"
COMPARED = f"{WORKFLOWS}test_compare.py::test_"
SCORES = f"{SAMPLES}test_scores.py::test_"
LIVE = f"{WORKFLOWS}test_port.py::test_live_objects_and_hub_give_the_same_tensors"


WALKS = {
    "a walk that takes no change": of_tests(
        walk.Walk,
        "_wait",
        lambda right: lambda self, stop: (right(self, stop), None)[1],
        "tests/core/test_walk.py::test_what_is_added_is_what_another_weight_gives",
    ),
    "a walk that stays": of_tests(
        walk.Walk, "close", instead(None), "tests/core/test_walk.py::test_a_pass_that_is_left_leaves_no_thread"
    ),
}
PIPELINE = {
    "a port times seven": of_tests(writer, "added", given(lambda base, tau, alpha: (base, tau, 7 * alpha)), LIVE),
    "a port of nothing": of_tests(writer, "added", given(lambda base, tau, alpha: (base, tau, 0.0)), LIVE),
    "a layer dropped": of_tests(
        protocol, "transport", given(lambda tau, each, *rest: (tau, list(each)[:-1], *rest)), LIVE
    ),
    "other samples": of_tests(
        session,
        "draw",
        given(lambda split, name, task, how, *rest: (split, name, task, replace(how, seed=how.seed + 1), *rest)),
        LIVE,
    ),
    "classes reversed": of_tests(
        session, "objective_of", then(lambda asked: replace(asked, head=asked.head.flip(0))), LIVE
    ),
    "resumed from the first batch": of_tests(
        chain, "islice", given(lambda each, start, stop: (each, 0, stop)), INTERRUPTED
    ),
    "resumed a batch too late": of_tests(
        chain, "islice", given(lambda each, start, stop: (each, start and start + 1, stop)), INTERRUPTED
    ),
    "nothing kept": of_tests(workspace.Workspace, "after_batch", instead(None), INTERRUPTED),
    "every score twice": of_tests(
        workspace.Workspace, "once", lambda right: lambda self, name, compute: compute(), INTERRUPTED
    ),
    "statistics left behind": of_tests(
        workspace.Workspace,
        "clear",
        instead(None),
        f"{COMPARED}an_interrupted_comparison_picks_up_where_it_was",
    ),
    "kept, not squared": of_tests(
        transport,
        "Moved",
        given(lambda a, b, norm, kept, *rest: (a, b, norm, kept**0.5, *rest)),
        "tests/core/test_transport.py::test_what_is_kept_is_a_share_of_the_squared_norm",
    ),
}

SCORED = {
    "a share's interval of one more": of_tests(
        scores, "binomtest", given(lambda k, n: (k + 1, n)), f"{SCORES}a_share_has_wilsons_interval"
    ),
    "narrow intervals": of_tests(
        scores,
        "norm",
        lambda right: SimpleNamespace(ppf=lambda q: right.ppf(0.9)),
        f"{SCORES}perplexity_has_the_interval_of_a_ratio_of_means",
        f"{SCORES}agreement_has_fishers_interval",
    ),
    "perplexity better higher": of_tests(
        scores,
        "METRICS",
        lambda right: {name: replace(metric, higher=True) for name, metric in right.items()},
        f"{SCORES}better_is_more_or_less_as_the_metric_has_it",
        "tests/families/test_heads.py::test_scores_know_which_way_is_up",
    ),
    "agreement of features of any length": of_tests(
        scores, "_unit", lambda right: lambda features: features.double(), f"{SCORES}agreement_has_fishers_interval"
    ),
    "a trial judged by the half it was made of": of_tests(
        trial,
        "_held_out",
        lambda right: lambda session, fit, rest: right(session, fit, fit),
        f"{WORKFLOWS}test_check.py::test_no_sample_judges_a_port_or_a_head_that_was_made_of_it",
    ),
    "a trial of nothing": of_tests(
        folds, "added", then(lambda items: ()), "tests/core/test_folds.py::test_either_half_is_judged_by_the_other"
    ),
    "one half for all samples": of_tests(
        moments.Statistics, "merge", twice, "tests/core/test_folds.py::test_two_halves_are_all_of_the_samples"
    ),
    "a generous verdict": of_tests(
        verdict,
        "grade",
        instead(verdict.Grade.GOOD),
        f"{REPORTS}test_verdict.py::test_the_verdict_goes_by_what_a_port_in_small_recovered[-5.0-poor]",
    ),
    "signs of no weight": of_tests(
        verdict, "_weighed", instead(0.5), f"{WORKFLOWS}test_trial.py::test_means_are_weighed_by_what_each_map_carries"
    ),
}

TWIN = f"{WORKFLOWS}test_repos.py::test_twin_gives_the_fine_tune_back_through_the_hub"
HEADS = {
    "a carried head upside down": of_tests(
        heads,
        "carried",
        then(lambda made: ({key: each.flip(0) for key, each in made[0].items()}, made[1])),
        f"{TWIN}[bert]",
    ),
    "a head that is not put in place": of_tests(heads, "place", instead(None), f"{TWIN}[bert]"),
    "a fitted head of the body as it was": of_tests(
        heads.Fitted,
        "for_body",
        lambda right: heads.Fixed.for_body,
        f"{WORKFLOWS}test_repos.py::test_a_fitted_head_is_the_same_again",
    ),
    "a head fitted to itself": of_tests(
        heads.Fitted,
        "on_tuned",
        lambda right: lambda self, tuned, drawn: tuned,
        f"{WORKFLOWS}test_check.py::test_no_sample_judges_a_port_or_a_head_that_was_made_of_it",
    ),
}

FILES = {
    "a print of no element": of_tests(
        fingerprint,
        "few",
        instead(torch.zeros(1)),
        f"{CHANGES}test_fingerprint.py::test_every_tensor_counts[a]",
    ),
    "an adapter at scale 1": of_tests(
        adapter.AdapterConfig,
        "scale",
        then(lambda found: (found[0], 1.0)),
        f"{CHANGES}test_adapters.py::test_an_adapter_ports_as_the_merged_model_does[llama]",
    ),
    "shapes unchecked": of_tests(
        fits,
        "check_shapes",
        instead(None),
        "tests/cli/test_errors.py::test_weights_that_do_not_fit_their_config",
    ),
    "NaN let in": of_tests(
        arithmetic,
        "require_finite",
        instead(None),
        "tests/cli/test_errors.py::test_a_broken_target_is_not_written_either_way",
    ),
    "a delta's files unchecked": of_tests(
        delta,
        "_check_files",
        instead(None),
        f"{CHANGES}test_delta_mistakes.py::test_full_verification_sees_one_number",
    ),
    "a delta at scale 1 whatever is asked": of_tests(
        opening,
        "write_into",
        given(lambda model, base, change, alpha, head: (model, base, change, 1.0, head)),
        f"{CHANGES}test_delta.py::test_scale_dtype_and_what_the_native_loader_gives",
    ),
    "a cut of one rank less": of_tests(
        forms,
        "truncated",
        given(lambda matrix, rank, energy: (matrix, rank and max(rank - 1, 1), energy)),
        f"{CHANGES}test_forms.py::test_products_are_not_cut_and_nothing_stays_nothing",
    ),
    "sums of vectors doubled": of_tests(
        vectors, "_made", then(lambda tensor: 2 * tensor), f"{CHANGES}test_vectors.py::test_deltas_of_one_base_add_up"
    ),
    "maps doubled as they are read": of_tests(
        maps.MapReader,
        "_factor",
        then(lambda factor: None if factor is None else 2 * factor),
        f"{WORKFLOWS}test_align.py::test_a_port_over_maps_is_the_port_that_makes_its_own[folder]",
    ),
    "maps of any bases": of_tests(
        stored.StoredMaps,
        "require_bases",
        instead(None),
        f"{WORKFLOWS}test_align_refusals.py::test_other_bases_are_refused_and_named",
    ),
    "maps of a tower that failed": of_tests(
        maps.Shards,
        "forget_after",
        instead(None),
        f"{WORKFLOWS}test_align.py::test_what_is_read_is_what_was_written[400]",
    ),
    "a push onto whatever is there": of_tests(
        HfApi,
        "create_commit",
        lambda right: lambda *args, parent_commit=None, **how: right(*args, **how),
        f"{WORKFLOWS}test_pushes.py::test_a_head_that_moved_is_not_overwritten",
    ),
    "tokenizers left behind": of_tests(writer, "copy_files", instead(None), f"{TWIN}[bert]"),
    "a full disk seen too late": of_tests(
        deliver.Delivery,
        "require_room",
        instead(None),
        "tests/cli/test_errors_of_outputs.py::test_no_space_is_noticed_before_the_work",
    ),
}

TOLD = {
    "a report without its day": of_tests(
        report,
        "to_plain",
        then(lambda data: data | {"created": "today"}),
        f"{REPORTS}test_report.py::test_a_report_is_read_back_into_the_same_type",
    ),
    "older schemas as they are": of_tests(
        report,
        "_upgraded",
        then(lambda data: data | {"scores": [each | {"value": 0.0} for each in data.get("scores") or []]}),
        f"{REPORTS}test_report.py::test_what_was_published_before_is_read",
    ),
    "no licence of the source": of_tests(
        card, "_license", given(lambda licenses: (licenses[:1],)), f"{CHOICES}naive_port_says_what_it_is"
    ),
    "the best draw for the mean": of_tests(
        tables,
        "fmean",
        lambda right: max,
        f"{COMPARED}means_and_spreads_over_the_seeds",
    ),
    "the first draw's goal for all draws": of_tests(
        compare,
        "_mean",
        given(lambda draws, name: (draws[:1], name)),
        f"{COMPARED}a_probe_has_its_own_goal_in_every_draw",
    ),
    "a compared method without its own options": of_tests(
        compare,
        "method_of",
        given(lambda name, options: (name, options[2:])),
        f"{COMPARED}a_method_is_compared_with_itself_under_other_options",
    ),
    "passes back for nothing": of_tests(
        protocol,
        "BACKWARD",
        lambda right: 0.0,
        f"{REPORTS}test_estimate.py::test_passes_are_those_that_torch_counts[method0-4]",
    ),
    "a command without its strategy": of_tests(
        port,
        "redo_port",
        then(lambda redo: replace(redo, settings={**redo.settings, "strategy": "random"})),
        f"{CHOICES}strategies_reach_the_report_and_the_command_draws_the_same",
    ),
}

DRAWN = {
    "balanced as it comes": of_tests(
        strategies,
        "_balanced",
        lambda right: lambda labels, n, rng: rng.choice(len(labels), n, replace=False),
        f"{SAMPLES}test_strategies.py::test_balanced_is_as_equal_as_can_be[60-class-balanced]",
    ),
    "samples of one content": of_tests(
        samples,
        "_content",
        instead(b""),
        f"{SAMPLES}test_samples.py::test_the_hash_is_of_the_content_alone[columns0-changed0]",
    ),
    "padding where it stood": of_tests(
        batches,
        "pad_right",
        lambda right: lambda batch, viewer: batch,
        f"{WORKFLOWS}test_live.py::test_batches_and_padding_do_not_matter[bert]",
    ),
}

MUTANTS = WALKS | PIPELINE | SCORED | HEADS | FILES | TOLD | DRAWN
