"""A gate that lets through what it must not."""

from collections.abc import Callable
from typing import Any

from hf_bico.core import errors
from hf_bico.io import bounds, outside
from hf_bico.io.changes import delta
from hf_bico.io.maps import shards
from hf_bico.reports import markdown
from hf_bico.tasks.splits import HubDataset
from tests.mutants.changes import instead, of_tests, then

GATE = "tests/io/test_outside.py::test_"
FUZZ = "tests/fuzz/test_"
CARDS = "tests/reports/test_markdown.py::test_"


def as_it_is(right: Callable) -> Callable:
    return lambda text: text


def deep(right: Callable) -> Callable:
    """Return what sees no depth."""

    def odd(data: Any, halves: bool):
        return (each for each in right(data, halves) if each[0] is not None)

    return odd


MUTANTS = {
    "JSON may have any numbers and texts": of_tests(outside, "_odd", instead(()), f"{GATE}json_that_is_refused[nan]"),
    "JSON may be of any depth": of_tests(outside, "_odd", deep, f"{GATE}json_that_is_refused[deep]"),
    "YAML is not measured": of_tests(outside, "_measure", instead(None), f"{GATE}yaml_that_is_refused[bomb]"),
    "halves of characters in YAML": of_tests(outside, "_has_half", instead(False), f"{GATE}yaml_that_is_refused[half]"),
    "sizes may be any": of_tests(bounds, "_is_size", instead(True), f"{GATE}configs_that_cannot_be[zero]"),
    "means may be any": of_tests(bounds, "_is_of_colours", instead(True), f"{GATE}configs_that_cannot_be[means]"),
    "models may be of any size": of_tests(
        bounds, "SMALL", lambda right: 1 << 80, f"{GATE}a_model_far_larger_than_its_weights_is_not_built"
    ),
    "errors steer a terminal": of_tests(errors, "printable", as_it_is, f"{FUZZ}models.py::test_indexes"),
    "a delta's files are taken as they are": of_tests(
        delta, "_check_files", instead(None), f"{FUZZ}ours.py::test_deltas"
    ),
    "maps are taken as they are": of_tests(shards, "_damage", instead(None), f"{FUZZ}ours.py::test_maps"),
    "a dataset's card is taken as it is": of_tests(
        HubDataset, "_check_cards", instead(None), f"{FUZZ}texts.py::test_a_bomb_in_the_card_of_data[README.md]"
    ),
    "a card prints what it is given": of_tests(
        markdown, "_escaped", lambda right: lambda found: found[0], f"{CARDS}a_text_is_shown_and_makes_nothing"
    ),
    "links of their own in a card": of_tests(
        markdown, "code", then(lambda span: span.strip("`")), f"{CARDS}a_text_is_shown_and_makes_nothing"
    ),
}
