"""Wrong choices among methods and heads, each with the tests that must notice it."""

from dataclasses import replace

from hf_bico.core import choice, linalg, low_rank, ridge
from hf_bico.core.method import anew
from hf_bico.tasks import parts
from hf_bico.workflows import head_choice, port
from tests.mutants.changes import given, instead, of_tests, then

AUTO, PORTS = "tests/core/test_auto.py::test_", "tests/workflows/test_auto_ports.py::test_"

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
        choice,
        "_tried",
        given(lambda job, *others: (replace(job, once=anew), *others)),
        f"{AUTO}what_was_tried_is_remembered",
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
