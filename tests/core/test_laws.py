"""Every law holds, and every law dies of the mutants that break it."""

import pytest
from support.laws import LAWS, check, models
from support.mutants import MUTANTS


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with models.threads(1):
        yield


def cases(table):
    """(law, method) for every entry; None where a law speaks of no method."""
    return [(law, name) for law, names in table.items() for name in names or (None,)]


def label(value):
    return value.__name__ if callable(value) else value


@pytest.mark.parametrize(("law", "name"), cases(LAWS), ids=label)
def test_law(law, name):
    check(law, name)


DEATHS = [(mutant, *case) for mutant, entry in MUTANTS.items() for case in cases(entry.dies)]


@pytest.mark.parametrize(("mutant", "law", "name"), DEATHS, ids=label)
def test_mutant_dies(mutant, law, name, monkeypatch):
    entry = MUTANTS[mutant]
    if entry.collecting:
        monkeypatch.setattr(models, "KNOWN", {})
    monkeypatch.setattr(entry.owner, entry.name, entry.wrong(getattr(entry.owner, entry.name)))
    with pytest.raises(AssertionError):
        check(law, name)


def test_every_law_kills_a_mutant():
    assert {law for entry in MUTANTS.values() for law in entry.dies} == set(LAWS)


def test_every_method_dies_of_a_mutant():
    dead = {name for entry in MUTANTS.values() for names in entry.dies.values() for name in names}
    assert dead == set(models.METHODS)
