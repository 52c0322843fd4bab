"""What is scored, of wrong kinds: samples that a port was made from, other parts, other weights than those written."""

from hf_bico.tasks import overlap, slices, splits
from hf_bico.tasks.overlap import Seen
from hf_bico.workflows import compare, evaluate, opened, reading
from tests.mutants.changes import given, instead, of_tests

OVERLAPS, SLICES = "tests/workflows/test_overlaps.py::test_", "tests/tasks/test_slices.py::test_"
EVALUATE = "tests/workflows/test_evaluate.py::test_"

MUTANTS = {
    "calibration samples are scored": of_tests(
        overlap.Seen, "has", instead(False), f"{OVERLAPS}calibration_samples_are_not_scored"
    ),
    "samples without labels are compared with them": of_tests(
        overlap.Seen,
        "has",
        lambda right: lambda self, sample: right(Seen(self.samples | self.inputs), sample),
        f"{OVERLAPS}samples_without_labels_are_not_scored_either",
    ),
    "a comparison scores the samples of its later draws": of_tests(
        compare,
        "evaluator_of",
        given(lambda session, draws, track: (session, list(draws)[:1], track)),
        f"{OVERLAPS}methods_are_compared_on_what_none_of_the_draws_has",
    ),
    "what is held out is drawn from too": of_tests(
        slices.Part,
        "rows",
        lambda right: lambda self, rows: list(range(rows)),
        f"{SLICES}a_split_is_divided_into_two_parts_that_are_the_whole[100]",
    ),
    "the last fifth is held out": of_tests(
        slices.Part,
        "rows",
        lambda right: lambda self, rows: list(range(rows - rows // 5, rows)),
        f"{SLICES}rows_that_are_added_change_nothing_before_them",
    ),
    "files are fetched whole for a slice": of_tests(
        splits, "MOST_OF_A_FILE", lambda right: 10**9, f"{SLICES}files_are_fetched_whole_for_more_than_a_small_slice"
    ),
    "a task has the classes of a slice alone": of_tests(
        reading, "READ_WHOLE", lambda right: 0, f"{SLICES}classes_are_those_of_the_whole_split"
    ),
    "sums of a delta are not rounded as they are written": of_tests(
        opened,
        "added",
        given(lambda base, change: ({key: tensor.float() for key, tensor in base.items()}, change)),
        f"{EVALUATE}sums_are_rounded_as_a_whole_ports_are",
    ),
    "an evaluation scores what a port was made from": of_tests(
        evaluate, "made_from", instead(Seen()), f"{EVALUATE}what_a_port_was_made_from_is_not_scored"
    ),
    "what is behind a model is left out": of_tests(
        evaluate,
        "replace",
        lambda right: lambda objective, **_: objective,
        f"{EVALUATE}of_a_whole_model_it_is_the_ports_score[scored]",
    ),
}
