"""Wrong pages of reports."""

from dataclasses import replace

from hf_bico.reports.page import html, layers, pictures, reading, scores
from hf_bico.workflows import tell
from tests.mutants.changes import given, instead, of_tests, then

PAGES, TOLD = "tests/reports/test_page.py::test_", "tests/workflows/test_tell.py::test_"
NUMBERS = f"{PAGES}numbers_that_nothing_can_be_reckoned_with_are_one_line"


def unescaped(environment):
    return environment.overlay(autoescape=False)


MUTANTS = {
    "a page escapes nothing": of_tests(
        html, "_environment", then(unescaped), f"{PAGES}texts_from_outside_stay_texts[port]"
    ),
    "a page lacks a layer": of_tests(
        layers,
        "layers_of",
        then(lambda each: each[:-1]),
        f"{PAGES}every_layer_is_there_and_says_what_became_of_it",
    ),
    "better maps have emptier cells": of_tests(
        layers, "_tenth", then(lambda tenth: 10 - tenth), f"{PAGES}fuller_cells_are_those_whose_maps_fit_better"
    ),
    "an axis runs the other way": of_tests(
        pictures.Axis, "at", then(lambda place: 100 - place), f"{PAGES}dots_and_whiskers_lie_where_the_scores_are"
    ),
    "blocks of another pair are framed": of_tests(
        pictures,
        "Square",
        then(lambda square: replace(square, chosen=square.strength > 0.9)),
        f"{PAGES}the_chosen_pairs_are_framed",
    ),
    "nothing that was tried stands out": of_tests(
        scores, "_loss", then(lambda row: (*row[:-1], "")), f"{PAGES}what_auto_took_stands_out"
    ),
    "a page has any numbers": of_tests(reading, "sound", lambda right: lambda record: record, f"{NUMBERS}[1e+200]"),
    "a page goes over any file": of_tests(tell, "require_place", instead(None), f"{TOLD}only_a_page_is_overwritten"),
    "a page of an empty report": of_tests(
        tell,
        "html_of",
        given(lambda data, *rest: (data | {"moved": []}, *rest)),
        f"{TOLD}a_port_is_told_from_its_folder_and_from_its_repo",
    ),
}
