"""Recipes, formats, help and --overwrite gone wrong, each with the tests that must notice it."""

from hf_bico.cli import console, help
from hf_bico.io import stages, writer
from hf_bico.workflows import recipe
from hf_bico.workflows.ported import Ported
from tests.mutants.changes import given, instead, of_tests

RECIPES, OVER = "tests/workflows/test_recipes.py::test_", "tests/cli/test_overwriting.py::test_"

MUTANTS = {
    "any folder is a result": of_tests(
        writer, "is_result", instead(True), f"{OVER}what_is_no_result_is_not_replaced[no record]"
    ),
    "the old is never replaced": of_tests(
        writer, "replace", instead(None), f"{OVER}the_old_is_there_until_the_new_is_whole[True]"
    ),
    "nothing is exchanged": of_tests(
        stages, "_exchanged", instead(True), f"{OVER}the_old_is_there_until_the_new_is_whole[True]"
    ),
    "an unknown setting is nothing": of_tests(
        recipe, "_unknown", instead(""), f"{RECIPES}all_that_is_wrong_is_said_in_one_line[unknown keys and wrong types]"
    ),
    "a file with its path": of_tests(
        recipe, "_plain", lambda right: str, f"{RECIPES}any_settings_are_the_same_as_words_and_as_a_recipe[files]"
    ),
    "help of one width": of_tests(
        help,
        "_filled",
        given(lambda text, width, *rest: (text, 80, *rest)),
        "tests/cli/test_help.py::test_no_line_is_too_long_and_no_word_is_broken[('port',)-60]",
    ),
    "words without a colour": of_tests(
        console,
        "toned",
        lambda right: lambda word: (word, ""),
        "tests/cli/test_colours.py::test_a_table_has_the_colours_of_one_column",
    ),
    "a port in pages": of_tests(
        Ported, "__repr__", lambda right: object.__repr__, "tests/workflows/test_short.py::test_a_live_port"
    ),
}
