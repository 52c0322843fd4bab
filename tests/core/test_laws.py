"""Every law holds; that each dies of the mutants that break it, `tests/test_mutants.py` sees."""

import pytest
from support.laws import LAWS, check, models

from tests.mutants.methods import MUTANTS


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with models.threads(1):
        yield


CASES = [(law, name) for law, names in LAWS.items() for name in names or (None,)]
"""None where a law speaks of no method."""


@pytest.mark.parametrize(("law", "name"), CASES, ids=lambda value: value.__name__ if callable(value) else value)
def test_law(law, name):
    check(law, name)


def test_every_law_kills_a_mutant():
    assert {case.args[0] for mutant in MUTANTS.values() for case in mutant.laws} == set(LAWS)


def test_every_method_dies_of_a_mutant():
    assert {case.args[1] for mutant in MUTANTS.values() for case in mutant.laws} - {None} == set(models.METHODS)
