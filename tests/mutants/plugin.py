"""Runs, in place of the tests that were collected, each mutant against the tests that must notice it.

What a test's fixtures made is of what is right; the mutant is in place while the test itself runs. Only an assertion
that fails counts: what breaks for another reason was not noticed by the test.
"""

from collections.abc import Iterator

import pytest

MUTANT = pytest.StashKey()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    from tests.mutants.table import MUTANTS  # late: the local Hub starts before any client is imported

    nodes = {item.nodeid: item for item in items}
    for item in items:
        nodes.setdefault(item.nodeid.partition("[")[0], item)
    unknown = {test for mutant in MUTANTS.values() for test in mutant.tests} - nodes.keys()
    if unknown:
        raise pytest.UsageError(f"mutants name tests that there are not: {', '.join(sorted(unknown))}")
    copies = (copy_of(nodes[test], name, mutant) for name, mutant in MUTANTS.items() for test in mutant.tests)
    items[:] = sorted(copies, key=lambda item: item.nodeid)


def copy_of(item: pytest.Item, name: str, mutant) -> pytest.Item:
    """Return the same test once more, to run under a mutant."""
    copy = pytest.Function.from_parent(
        item.parent,
        name=f"{item.name}<{name}>",
        callspec=getattr(item, "callspec", None),
        callobj=item.obj,
        fixtureinfo=item._fixtureinfo,
        originalname=item.originalname,
    )
    copy.stash[MUTANT] = name, mutant
    return copy


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    name, mutant = item.stash[MUTANT]
    with mutant.in_place():
        try:
            yield
        except (AssertionError, pytest.fail.Exception):
            return
        except Exception as error:
            pytest.fail(f"{name}: broke it in another way, {error!r}", pytrace=False)
    pytest.fail(f"{name}: survived", pytrace=False)
