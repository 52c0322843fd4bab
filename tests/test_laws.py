"""Every law holds, and every law dies of the mutants that break it."""

import pytest
from laws import LAWS
from mutants import MUTANTS


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(law):
    law()


@pytest.mark.parametrize(("name", "law"), [(name, law) for name, mutant in MUTANTS.items() for law in mutant.dies],
                         ids=lambda value: value if isinstance(value, str) else value.__name__)
def test_mutant_dies(name, law, monkeypatch):
    mutant = MUTANTS[name]
    monkeypatch.setattr(mutant.owner, mutant.name, mutant.wrong(getattr(mutant.owner, mutant.name)))
    with pytest.raises(AssertionError):
        law()


def test_every_law_kills_a_mutant():
    assert {law for mutant in MUTANTS.values() for law in mutant.dies} == set(LAWS)
