"""Wrong trainings, each with the tests that must notice it."""

from hf_bico.core import learn
from hf_bico.reports import records
from hf_bico.tasks import batches
from tests.mutants.changes import given, of_tests

POLISHED = "tests/workflows/test_polish.py::test_a_polish_is_trained_recorded_and_done_again"

MUTANTS = {
    "every step sees the same view": of_tests(
        batches,
        "seed_of",
        given(lambda sample, view: (sample, 0)),
        "tests/tasks/test_views.py::test_both_models_see_one_view_whatever_the_batches",
    ),
    "a polish is not told of": of_tests(
        records.TaughtRecord, "of", lambda right: lambda taught, polish: None, POLISHED
    ),
    "the rate of the most loss": of_tests(
        learn,
        "least",
        lambda right: lambda tried: max((loss, rate) for rate, loss in tried)[1],
        "tests/core/test_learn.py::test_the_rate_is_the_best_on_held_out_samples",
    ),
}
