"""Wrong files, reports, heads, scores, trials, keys and pipelines, each with the tests that must notice it."""

from collections.abc import Callable

from hf_bico.io import writer
from hf_bico.workflows import port
from tests.mutants.mutant import Mutant

RESUME = "tests/workflows/test_resume.py::"
PORT = "tests/workflows/test_port.py::"
CHOICES = "tests/workflows/test_choices.py::"
SCORES = "tests/tasks/test_scores.py::"


def instead(value: object) -> Callable:
    """Return what gives a value whatever it is called with."""
    return lambda right: lambda *args, **options: value


def then(change: Callable) -> Callable:
    """Return what changes the right result."""
    return lambda right: lambda *args, **options: change(right(*args, **options))


def given(change: Callable) -> Callable:
    """Return what is called with other arguments than it was given."""
    return lambda right: lambda *args, **options: right(*change(*args), **options)


def of_tests(owner: object, name: str, wrong: Callable, *tests: str) -> Mutant:
    return Mutant(owner, name, wrong, tests=tests)


def without(key: object) -> Callable:
    """Return what leaves one entry of a dict or a list out."""

    def dropped(whole):
        if isinstance(whole, dict):
            return {name: value for name, value in whole.items() if name != key}
        return [value for number, value in enumerate(whole) if number != key]

    return then(dropped)


ANOTHER, CHOICE = (
    f"{RESUME}test_another_input_is_another_key",
    f"{RESUME}test_every_choice_that_tells_in_the_result_is_in_the_key",
)
KEYS = {
    f"a key without its {part}": of_tests(port, "_key", without(part), f"{ANOTHER}[{part}]")
    for part in ("models", "method", "evaluation", "calibration")
} | {
    "a key without the version": of_tests(
        port, "_key", without("hf_bico"), f"{RESUME}test_another_version_is_another_key"
    ),
}

PIPELINE = {
    "a port times seven": of_tests(
        writer,
        "added",
        given(lambda base, tau, alpha: (base, tau, 7 * alpha)),
        f"{PORT}test_a_port_is_what_live_objects_give",
    ),
}

MUTANTS = KEYS | PIPELINE
