"""`hf-bico methods` lists what --method takes."""

import pytest
from support.commands import hf_bico, json_of

import hf_bico as package
from hf_bico.core.methods import METHODS, method_of


def test_every_method_is_listed_with_options_that_it_takes(capsys, monkeypatch):
    listed = json_of(capsys, monkeypatch, "methods")
    assert [each["name"] for each in listed] == list(METHODS)
    for each in listed:
        given = [f"{name}={value}" for name, value in each["options"].items() if value is not None]
        assert method_of(each["name"], given) == METHODS[each["name"]]()
    assert hf_bico(capsys, monkeypatch, "methods", "-q").out.split() == list(METHODS)


@pytest.mark.parametrize("words", [["-h"], ["port", "-h"], ["fleet", "-h"]])
def test_help_is_short_too(capsys, monkeypatch, words):
    short = hf_bico(capsys, monkeypatch, *words)
    assert short == hf_bico(capsys, monkeypatch, *words[:-1], "--help")
    assert short.code == 0
    assert "Usage:" in short.out


def test_the_package_names_what_it_has():
    assert set(package.__all__) <= set(dir(package))
    assert all(hasattr(package, name) for name in package.__all__)
