"""Options are said once: the commands' signatures, their defaults and their errors come from the configs' fields."""

from dataclasses import MISSING, fields

import pytest
import typer
from support.commands import assert_refused, hf_bico

from hf_bico import PortError
from hf_bico.cli.main import app
from hf_bico.core.errors import setting, spelling
from hf_bico.workflows.config import (
    AlignConfig,
    ApplyConfig,
    CardConfig,
    CheckConfig,
    CompareConfig,
    EvalConfig,
    ExtractConfig,
    FleetConfig,
    PortConfig,
    ReportConfig,
)
from hf_bico.workflows.options import OPTION, flag_of, words_of

CONFIGS = {
    "fleet": FleetConfig,
    "port": PortConfig,
    "check": CheckConfig,
    "compare": CompareConfig,
    "align": AlignConfig,
    "extract": ExtractConfig,
    "apply": ApplyConfig,
    "card": CardConfig,
    "eval": EvalConfig,
    "report": ReportConfig,
}
COMMANDS = typer.main.get_command(app).commands


@pytest.mark.parametrize("name", CONFIGS)
def test_a_command_has_its_configs_options_and_no_others(name):
    told = {param.name for param in COMMANDS[name].params} - {"token", "format", "quiet", "dry_run", "help"}
    assert told == {each.name for each in fields(CONFIGS[name])}


@pytest.mark.parametrize("name", CONFIGS)
def test_defaults_and_helps_are_the_fields(name):
    by_name = {param.name: param for param in COMMANDS[name].params}
    for each in fields(CONFIGS[name]):
        option, param = each.metadata[OPTION], by_name[each.name]
        assert option.help == param.help
        assert param.required is (each.default is MISSING and (name != "port" or bool(option.argument)))
        if not option.argument:
            assert flag_of(each) in param.opts


def test_an_unknown_choice_is_refused():
    with pytest.raises(TypeError, match="no_such"):
        PortConfig("a", "b", "c", no_such=1)


def test_settings_are_spelled_for_who_reads_them():
    error = PortError(f"name the right one with {setting('base')}")
    assert str(error) == "name the right one with base="
    with spelling(lambda name: f"--{name}"):
        assert str(error) == "name the right one with --base"
    quoted = PortError(f"org/name: {error.message}")
    with spelling(lambda name: f"--{name}"):
        assert str(quoted) == "org/name: name the right one with --base"


def test_words_choose_what_a_config_does():
    config = PortConfig("a", "b", "c", eval_n=5, form="lora", streaming=True, method_options=("steps=2", "rtol=0.1"))
    names = {each.name for each in fields(config)} - {"source", "target", "dataset"}
    found = words_of(config, names)
    assert set(found) == {"--eval-n", "5", "--streaming", "--as", "lora", "--set", "steps=2", "rtol=0.1"}
    assert found.count("--set") == 2
    assert words_of(PortConfig("a", "b", "c"), names) == []


WITHOUT_DATA = {
    "port": ("a/b", "--to", "c/d"),
    "compare": ("a/b", "--to", "c/d"),
    "eval": ("a/b",),
}


@pytest.mark.parametrize("name", WITHOUT_DATA)
def test_a_missing_dataset_is_the_same_sentence_in_every_command(name, capsys, monkeypatch):
    ran = hf_bico(capsys, monkeypatch, name, *WITHOUT_DATA[name])
    said = "samples of the task: a Hub dataset, a folder or a file (csv, json, jsonl, parquet)"
    assert (ran.code, ran.out, ran.err) == (2, "", f"Error: --dataset is missing: {said}\n")


def test_whatever_is_missing_is_said_with_what_it_is(capsys, monkeypatch):
    for words, said in {
        ("check",): "SOURCE is missing: the fine-tune: org/name",
        ("port",): "SOURCE is missing: the fine-tune: org/name",
        ("check", "a/b"): "--to is missing: the new base model",
        ("fleet",): "PLAN is missing: a YAML file",
        ("align", "a/b", "c/d", "--dataset", "e/f"): "--output is missing: a folder to write the maps to",
    }.items():
        assert_refused(hf_bico(capsys, monkeypatch, *words), said)
