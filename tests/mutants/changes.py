"""What mutants of functions do: give something else, change the result, or change what they are given."""

from collections.abc import Callable

from tests.mutants.mutant import Mutant


def instead(value: object) -> Callable:
    """Return what gives a value whatever it is called with."""
    return lambda right: lambda *args, **options: value


def then(change: Callable) -> Callable:
    """Return what changes the right result."""
    return lambda right: lambda *args, **options: change(right(*args, **options))


def given(change: Callable) -> Callable:
    """Return what is called with other arguments than it was given."""
    return lambda right: lambda *args, **options: right(*change(*args), **options)


def twice(right: Callable) -> Callable:
    """Return what does it two times."""
    return lambda *args: (right(*args), right(*args))[1]


def of_tests(owner: object, name: str, wrong: Callable, *tests: str) -> Mutant:
    """Return a mutant that tests must notice."""
    return Mutant(owner, name, wrong, tests=tests)
