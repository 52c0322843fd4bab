"""Damaged reports: a page that asks for nothing, or one line."""

import pytest
from fuzz.damage import damaged, text_of
from fuzz.laws import fuzzed, right_or_one_line
from hypothesis import given
from hypothesis import strategies as st
from support.pages import assert_asks_for_nothing, assert_can_be_heard
from support.told import check_data, compare_data, maps_data, port_data

from hf_bico.io.outside import parse_object
from hf_bico.reports.page.html import html_of

MADE = {"port": port_data(2), "comparison": compare_data(), "maps": maps_data(), "check": check_data()}


@pytest.mark.parametrize("kind", MADE)
@fuzzed
@given(data=st.data())
def test_pages(kind, data):
    raw = text_of(data.draw(damaged(MADE[kind], 2)))
    with right_or_one_line(f"pages of {kind}"):
        assert_can_be_heard(assert_asks_for_nothing(html_of(parse_object(raw, "hf_bico.json"), "https://hub.example")))
