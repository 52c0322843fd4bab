"""The page of model types: some of its rows made anew, and what it promises of all of them."""

import re

import pytest

from hub_scripts.world.zoo.served import FIRST, PAGE, TYPES, surveyed

SOME = ("albert", "opt", "phi3", "convnext", "whisper", "blip")


@pytest.mark.parametrize("kind", SOME)
def test_a_type_of_no_table_is_ported_between_two_widths(kind):
    row = surveyed(kind)
    assert (row.by, row.law) == ("traced", "holds"), row
    assert re.fullmatch(r"\d+ maps, two widths", row.result), row
    assert row.line("")[:-2] in PAGE.read_text(encoding="utf-8")


def test_the_page_has_no_traceback_and_nearly_all_types():
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    by = {line.split("`")[1]: line.split(" | ")[2] for line in lines}
    assert set(by.values()) == {"table", "traced"}
    assert by.keys() <= {*TYPES} and {*FIRST.split()} <= by.keys()
    assert sum(" maps, " in line for line in lines) >= 110
