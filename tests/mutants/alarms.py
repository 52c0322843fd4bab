"""Wrong verdicts and guards that do not guard, each with the tests that must notice it."""

from dataclasses import replace

from hf_bico.core import transport
from hf_bico.io.changes import source
from hf_bico.reports import report, tables, worth
from hf_bico.tasks.scores import Score
from hf_bico.workflows import chance, check, compare, plan, port, session
from tests.mutants.changes import given, instead, of_tests

WORTH, VERDICTS = "tests/reports/test_worth.py::test_", "tests/workflows/test_verdicts.py::test_"
GUARDS = "tests/workflows/test_guards.py::test_"

WORDS = {
    "no port is ever worse": of_tests(
        report.Evaluation,
        "regressed",
        lambda right: property(lambda self: False),
        "tests/cli/test_errors_of_outputs.py::test_regression_is_not_pushed",
    ),
    "harm that is not seen": of_tests(worth, "_worse", instead([]), f"{WORTH}any_metric_that_is_worse_is_harm"),
    "no baseline is better": of_tests(
        worth,
        "_best",
        instead(None),
        f"{WORTH}a_better_baseline_is_named_with_its_method_and_scale",
        f"{VERDICTS}a_port_below_the_naive_copy_is_not_pushed",
    ),
    "a port of nothing is a port": of_tests(
        port.CarriedOver,
        "is_nothing",
        lambda right: property(lambda self: False),
        f"{VERDICTS}no_change_is_no_port",
    ),
    "pushed whatever it is worth": of_tests(
        port, "refusal_of", instead(None), f"{VERDICTS}a_port_below_the_naive_copy_is_not_pushed"
    ),
    "all is certain": of_tests(
        worth, "_doubt", instead(""), f"{WORTH}a_difference_inside_the_interval_is_said_to_be_uncertain"
    ),
    "means without other metrics": of_tests(
        tables,
        "worth",
        given(lambda scored: (replace(scored, ported=replace(scored.ported, also={})),)),
        f"{VERDICTS}a_comparison_counts_every_metric",
    ),
    "texts taken for images": of_tests(
        check,
        "judge",
        lambda right: lambda signs, trial, n, texts: right(signs, trial, n),
        "tests/workflows/test_check.py::test_a_twin_of_any_family_is_found_out[bert]",
    ),
}

STOPS = {
    "a source at chance goes on": of_tests(
        chance, "may_be_chance", instead(False), f"{GUARDS}labels_in_another_order_stop_a_port_at_once"
    ),
    "the source is the base": of_tests(
        chance, "added", instead(()), f"{GUARDS}a_good_source_is_not_scored_before_the_work"
    ),
    "a source of one class is judged": of_tests(
        chance, "in_doubt", instead(True), f"{GUARDS}few_samples_and_one_class_say_nothing_of_chance[drawn1]"
    ),
    "doubt is enough": of_tests(
        port,
        "require_learnt",
        given(lambda session, drawn, score: (session, drawn, lambda: Score.of(0, 99))),
        f"{GUARDS}a_doubt_is_settled_on_the_evaluation_samples",
    ),
    "a comparison of nothing": of_tests(
        compare,
        "require_better_than_chance",
        instead(None),
        f"{GUARDS}labels_in_another_order_stop_a_comparison_and_a_check",
    ),
    "any target by name": of_tests(
        plan,
        "require_new_target",
        instead(None),
        f"{GUARDS}names_are_looked_at_before_anything_is_fetched",
    ),
    "any target by weights": of_tests(
        session, "require_new_weights", instead(None), f"{GUARDS}a_target_that_is_no_new_base_is_refused[port]"
    ),
    "any base": of_tests(
        transport,
        "cosine",
        instead(1.0),
        "tests/core/test_transport.py::test_weights_that_have_nothing_in_common_are_refused_unless_trusted",
        "tests/cli/test_errors.py::test_base_that_is_another_model",
    ),
    "adapters doubted": of_tests(
        source,
        "check_fine_tune",
        lambda right: lambda tau, base, sites, trusted=False, head=(): right(tau, base, sites),
        f"{GUARDS}an_adapter_is_never_doubted",
    ),
}

MUTANTS = WORDS | STOPS
