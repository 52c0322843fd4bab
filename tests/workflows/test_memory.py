"""A port within a memory: in groups of layers, the port of all at once, also after an interruption; or a refusal."""

from pathlib import Path

import pytest
import torch
import transformers
from huggingface_hub import cached_assets_path
from safetensors.torch import load_file
from support.commands import assert_refused, hf_bico, json_of
from support.memory import BARE, least
from support.tasks import KINDS, write_world

from hf_bico import PortError
from hf_bico.core import collect
from hf_bico.io import kept, workspace
from hf_bico.io.hub import Hub
from hf_bico.reports import estimate
from hf_bico.workflows import align, session
from hf_bico.workflows.config import AlignConfig, PortConfig
from hf_bico.workflows.port import run

WEIGHTS = "open_clip_model.safetensors"
PORT = ("port", "demo/ft", "--to", "demo/plus", "--dataset", "demo/task", "--method", "weighted", "-n", "20")
PORT += ("--only", "linear", "--eval-n", "8")


@pytest.fixture(autouse=True)
def nothing_in_use(monkeypatch):
    """Counts a port's own tensors alone: these models are small beside the process."""
    for module in (estimate, align):
        monkeypatch.setattr(module, "held", lambda device: 0)
    for change in BARE:
        monkeypatch.setattr(*change)


def config(output: Path | None = None, **changes) -> PortConfig:
    given = {"method": "weighted", "n": 20, "only": "linear", "eval_n": 8, "output": output}
    return PortConfig("demo/ft", "demo/plus", "demo/task", **given | changes)


@pytest.fixture(scope="module")
def tight(world):
    return least(config())


def written(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / WEIGHTS)


def require_same(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize("form", ["model", "delta"])
def test_a_port_in_groups_writes_what_one_does(world, tight, tmp_path, form):
    outcomes = [
        run(config(tmp_path / name, memory=most, form=form), Hub())
        for name, most in (("once", None), ("groups", tight))
    ]
    names = [path.name for path in (tmp_path / "once").glob("*.safetensors")]
    assert names
    for name in names:
        require_same(*(load_file(tmp_path / folder / name) for folder in ("groups", "once")))
    once, groups = (outcome.report for outcome in outcomes)
    assert groups["estimate"]["groups"] > once["estimate"]["groups"] == 1
    assert groups["moved"] == once["moved"]
    assert groups["beside"] == once["beside"]
    assert not any(cached_assets_path("hf_bico", namespace="ports").iterdir())


def test_an_interrupted_port_goes_on_with_the_group_it_was_in(world, tight, tmp_path, monkeypatch):
    monkeypatch.setattr(workspace, "EVERY", 0.0)
    passed, right = [], collect._add_batch
    run(config(tmp_path / "once"), Hub())

    def add(seen, *given):
        if len(passed) == 4:  # three batches of the first group, one of the second
            passed.append(None)
            raise KeyboardInterrupt
        passed.append([part for part, _ in seen.parts()])
        right(seen, *given)

    monkeypatch.setattr(collect, "_add_batch", add)
    chosen = config(tmp_path / "out", memory=tight)
    with pytest.raises(KeyboardInterrupt):
        run(chosen, Hub())
    report = run(chosen, Hub()).report
    passes = [each for each in passed if each]
    assert len(passes) == 3 * report["estimate"]["groups"]  # none twice
    assert passes[3] != passes[2]
    require_same(written(tmp_path / "out"), written(tmp_path / "once"))


def test_changes_of_groups_that_moved_are_on_disk(world, tight, tmp_path, monkeypatch):
    files, right = [], kept.write_part
    monkeypatch.setattr(workspace, "write_part", lambda path, part: (files.append(path.name), right(path, part)))
    report = run(config(tmp_path / "out", memory=tight), Hub()).report
    assert len(set(files)) == len(files) == 2 * report["estimate"]["groups"]  # the naive copy's are the others


def test_a_dry_run_and_a_check_tell_the_groups_and_count_their_passes(world, tight, capsys, monkeypatch):
    once, groups = (
        json_of(capsys, monkeypatch, *PORT, "--dry-run", *more)["estimate"] for more in ((), ("--memory", tight))
    )
    assert groups["groups"] > once["groups"] == 1
    assert groups["passes_flops"] == groups["groups"] * once["passes_flops"]
    assert groups["moments_flops"] == once["moments_flops"]
    assert groups["moments_bytes"] < once["moments_bytes"]
    assert groups["memory_bytes"] <= int(tight) < once["memory_bytes"]
    said = hf_bico(capsys, monkeypatch, *PORT, "--dry-run", "--memory", tight).out
    assert f"in {groups['groups']} groups of layers" in said
    words = ("check", "demo/ft", "--to", "demo/plus", "--method", "weighted", "--only", "linear", "--memory", tight)
    assert "groups of layers" in hf_bico(capsys, monkeypatch, *words).out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--memory", "3kB"), ("--memory is too little", "even with one block of layers at a time", "--batch-size")),
        (("--memory", "3kB", "--method", "auto"), ("auto looks at all layers at once", "--method bico")),
        (("--memory", "much"), ("--memory 'much' is not a size", "40GB")),
        (("--memory", "-1GB"), ("is not a size",)),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(world, capsys, monkeypatch, more, said):
    for words in ((*PORT, *more), (*PORT, *more, "--dry-run")):
        assert_refused(hf_bico(capsys, monkeypatch, *words), *said)


def test_maps_in_groups_are_those_of_all_at_once(world, tmp_path, monkeypatch):
    passed, right = [], align.gather
    monkeypatch.setattr(align, "gather", lambda *given, **how: (passed.append(how["group"]), right(*given, **how))[1])
    found = []
    for name, most in (("once", None), ("groups", "8.2MB")):
        given = {"output": tmp_path / name, "n": 20, "batch_size": 1, "memory": most}
        align.run(AlignConfig(base="demo/base", target="demo/plus", dataset="demo/task", **given), Hub())
        files = (tmp_path / name).glob("*.safetensors")
        found.append({key: tensor for path in files for key, tensor in load_file(path).items()})
    assert len(passed) > 4  # one or two towers at once, and the same in groups
    require_same(*found)


@pytest.mark.parametrize("kind", KINDS)
def test_models_of_text_stay_in_the_dtype_of_their_files(tmp_path, monkeypatch, kind):
    """They count half as much, and the port is that of float32 but for what bfloat16 rounds."""
    root, dtypes, right = write_world(tmp_path, kind), [], session.asked_of
    for folder in ("base", "ft", "plus"):
        name = KINDS[kind].cls if folder == "ft" or kind == "hidden" else "BertModel"
        getattr(transformers, name).from_pretrained(root / folder, dtype=torch.bfloat16).save_pretrained(root / folder)
    monkeypatch.setattr(
        session, "asked_of", lambda plan, loaded: (dtypes.append(loaded.model.dtype), right(plan, loaded))[1]
    )
    paths, found, sizes = [str(root / part) for part in ("ft", "plus", "task")], [], []
    for dtype in ("float32", "stored"):
        given = {"base": str(root / "base"), "n": 24, "eval_n": 12, "method": "bico", "allow_regression": True}
        report = run(PortConfig(*paths, **given, model_dtype=dtype, output=tmp_path / dtype), Hub()).report
        assert ("--model-dtype stored" in report["command"]) == (dtype == "stored")
        found.append(load_file(tmp_path / dtype / "model.safetensors"))
        sizes.append(report["estimate"]["weights_bytes"])
    assert set(dtypes[: len(dtypes) // 2]) == {torch.float32}
    assert set(dtypes[len(dtypes) // 2 :]) == {torch.bfloat16}
    assert sizes[0] == 2 * sizes[1]
    before = load_file(root / "plus" / "model.safetensors")
    keys = [key for key in found[0] if key.removeprefix("bert.") in before]
    own = {key: before[key.removeprefix("bert.")].float() for key in keys}
    apart, moved = (
        sum(float((a[key].float() - b[key].float()).square().sum()) for key in keys) ** 0.5
        for a, b in (found, (found[0], own))
    )
    assert apart < 0.5 * moved


def test_other_models_are_held_in_float32(world):
    with pytest.raises(PortError, match="model_dtype= stored is of models of text alone"):
        run(config(model_dtype="stored"), Hub())
    with pytest.raises(PortError, match="model_dtype= 'half': give float32 or stored"):
        run(config(model_dtype="half"), Hub())
