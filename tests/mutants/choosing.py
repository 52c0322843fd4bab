"""Wrong choices among methods and heads, each with the tests that must notice it."""

from dataclasses import replace

from hf_bico.core import choice, linalg, low_rank, parted, ridge, shelf, side_by_side
from hf_bico.core.chain import gather
from hf_bico.core.method import anew
from hf_bico.tasks import parts
from hf_bico.workflows import head_choice, port
from tests.mutants.changes import given, instead, of_tests, then

AUTO, PORTS = "tests/core/test_auto.py::test_", "tests/workflows/test_auto_ports.py::test_"
PARTED = "tests/core/test_parted.py::test_"


def _with(fold, job):
    return [*fold.batches(), *(job.unlabelled() if job.unlabelled else ())]


def _holding(tensors):
    made = low_rank.Delta(tensors)
    made.whole = dict(tensors)
    return made


MUTANTS = {
    "the last of the scales is taken": of_tests(
        choice,
        "attempt",
        then(lambda found: replace(found, alpha=choice.ALPHAS[-1])),
        f"{AUTO}every_loss_is_that_of_samples_which_the_port_was_not_made_of",
    ),
    "a half is judged by itself": of_tests(
        parts,
        "halved",
        lambda right: lambda labels: 2 * right(labels)[:1],
        f"{AUTO}every_loss_is_that_of_samples_which_the_port_was_not_made_of",
    ),
    "the scale that was taken is left out": of_tests(
        low_rank.Delta,
        "scaled",
        lambda right: lambda self, alpha: self,
        f"{AUTO}what_is_taken_is_made_anew_of_all_samples",
    ),
    "why a method refuses is not told": of_tests(
        choice,
        "attempt",
        then(lambda found: replace(found, refusal="")),
        f"{AUTO}a_method_that_does_not_serve_is_told_of_and_left",
    ),
    "fewer mixtures than rows": of_tests(
        linalg,
        "SPARE",
        lambda right: -5,
        "tests/core/test_core.py::test_few_rows_give_the_same_factor_faster",
    ),
    "a penalty as of the rows alone": of_tests(
        ridge,
        "_best_of_rows",
        lambda right: lambda gram, left, fold, width: right(gram, left, fold, len(gram)),
        "tests/core/test_ridge.py::test_rows_give_what_sums_over_them_give",
    ),
    "nothing is remembered": of_tests(
        choice.Made,
        "__init__",
        given(lambda made, job, candidates: (made, replace(job, once=anew), candidates)),
        f"{AUTO}what_was_tried_is_remembered",
    ),
    "samples without labels count in every half": of_tests(
        parted,
        "alone",
        lambda right: lambda job, fold: replace(right(job, fold), batches=lambda: _with(fold, job)),
        f"{PARTED}the_sums_of_the_halves_are_those_of_all_samples[7]",
    ),
    "the first half's sums are those of all": of_tests(
        parted.Parted,
        "whole",
        lambda right: lambda self: self.of(0),
        f"{PARTED}the_sums_of_the_halves_are_those_of_all_samples[7]",
    ),
    "the samples pass once more for what is taken": of_tests(
        choice.Made,
        "whole",
        lambda right: lambda self, method: gather(self.job, method.wanted),
        f"{PARTED}a_choice_passes_every_sample_once_to_collect",
    ),
    "only what is beside 1 is tried": of_tests(
        choice,
        "downhill",
        lambda right: lambda losses: dict(zip((0.75, 1.0, 1.25), losses((0.75, 1.0, 1.25)), strict=True)),
        f"{PARTED}downhill_the_choice_is_that_of_all_scales",
    ),
    "all scales are tried": of_tests(
        choice,
        "downhill",
        lambda right: lambda losses: dict(zip(choice.ALPHAS, losses(choice.ALPHAS), strict=True)),
        f"{PARTED}downhill_finds_the_least_of_a_valley_with_fewer_trials",
    ),
    "no part is let go of": of_tests(
        choice.Made, "done", instead(None), f"{PARTED}a_part_is_let_go_of_with_the_last_that_is_made_of_it"
    ),
    "a change holds its tensors as shapes too": of_tests(
        low_rank.Delta, "of", lambda right: staticmethod(_holding), f"{PARTED}what_is_on_a_shelf_takes_no_memory"
    ),
    "a shelf forgets where a tensor began": of_tests(
        shelf,
        "_Place",
        lambda right: lambda start, *others: right(0, *others),
        f"{PARTED}a_shelf_gives_back_every_bit",
    ),
    "all that the base answers waits": of_tests(
        side_by_side.SideBySide,
        "add",
        lambda right: lambda self, site, change: self.changes.append((site, change)),
        f"{PARTED}responses_wait_only_for_a_layer_that_is_needed_again",
    ),
    "no row of the paper's method": of_tests(
        port, "_paper", instead({}), f"{PORTS}a_port_tells_what_was_tried_and_has_the_papers_row"
    ),
    "the head is always carried": of_tests(
        head_choice,
        "_loss",
        lambda right: lambda session, halves: right(session, halves) * (session.plan.models.head == "ridge"),
        f"{PORTS}a_head_that_was_carried_badly_is_fitted",
    ),
}
