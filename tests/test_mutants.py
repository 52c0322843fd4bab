"""Every law notices the mutants that break it; `python -m tests.mutants` runs those of our tests too."""

import pytest

from tests.mutants import families, methods

CASES = [
    pytest.param(
        mutant, law, id=f"{name}: {' '.join(getattr(each, '__name__', str(each)) for each in law.args if each)}"
    )
    for name, mutant in (methods.MUTANTS | families.MUTANTS).items()
    for law in mutant.laws
]


@pytest.mark.parametrize(("mutant", "law"), CASES)
def test_mutants_die(mutant, law):
    with mutant.in_place(), pytest.raises(AssertionError):
        law()
