"""An interrupted port resumes with its own input alone: every field of its key counts, and nothing else does."""

import json
import shutil
from copy import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from hf_bico import PortConfig
from hf_bico.families.heads import HeadKind
from hf_bico.io.changes.forms import Form
from hf_bico.io.fingerprint import Fingerprint
from hf_bico.io.hub import Hub
from hf_bico.workflows import align, compare, port
from hf_bico.workflows.plan import make_port_plan
from hf_bico.workflows.run import Run
from hf_bico.workflows.session import open_session


def opened(**choices):
    """A port's choices, its session and its draw: all that its key is made of."""
    config = PortConfig("demo/ft", "demo/plus", "demo/task", base="demo/base", **{"n": 8, "method": "bico", **choices})
    running = Run(Hub())
    session = open_session(make_port_plan(config, Hub()), running)
    return config, session, session.draw(running.track)


def key(inputs) -> dict:
    return json.loads(json.dumps(port._key(*inputs)))


@pytest.fixture(scope="module")
def inputs(world):
    return opened()


def of_plan(change):
    """Inputs of another plan."""
    return lambda inputs: (inputs[0], replace(inputs[1], plan=change(inputs[1].plan)), inputs[2])


def of_samples(**changes):
    return of_plan(lambda plan: replace(plan, samples=replace(plan.samples, **changes)))


def of_models(change):
    return of_plan(lambda plan: replace(plan, models=change(plan.models)))


def of_scoring(**changes):
    return of_plan(lambda plan: replace(plan, scoring=replace(plan.scoring, **changes)))


def of_config(**changes):
    return lambda inputs: (replace(inputs[0], **changes), *inputs[1:])


def of_hashes(role: str):
    return lambda inputs: (inputs[0], replace(inputs[1], hashes=inputs[1].hashes | {role: "0" * 64}), inputs[2])


def of_folder(number: int):
    """Inputs whose source, base or target has another config."""

    def change(inputs):
        config, session, drawn = inputs
        name = session.plan.models.library.config_file
        folder = Path(shutil.copytree(session.folders[number], Path(config.output) / str(number)))
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | {"other": 1}))
        folders = [folder if place == number else each for place, each in enumerate(session.folders)]
        return config, replace(session, folders=tuple(folders)), drawn

    return change


def of_dataset(plan):
    lineage = plan.lineage
    return replace(plan, lineage=replace(lineage, dataset=replace(lineage.dataset, commit="f" * 40)))


def of_configuration(plan):
    other = copy(plan.samples.dataset)
    other.config = "other"
    return replace(plan, samples=replace(plan.samples, dataset=other))


def of_task(plan):
    return replace(plan, samples=replace(plan.samples, task=replace(plan.samples.task, templates=("{}",))))


def of_draw(inputs):
    return *inputs[:2], replace(inputs[2], sha256="0" * 64)


def of_more(inputs):
    """Inputs with samples without labels beside the others."""
    return inputs[0], replace(inputs[1], unlabelled=inputs[2]), inputs[2]


def of_method(plan):
    return replace(plan, method=replace(plan.method, rtol=0.5))


def of_another_method(plan):
    from hf_bico.core.methods import Naive

    class Other(Naive):
        options = plan.method.options

    return replace(plan, method=Other())


INPUTS = {
    "models": (
        of_hashes("base"),
        of_models(lambda models: replace(models, groups=frozenset())),
        of_folder(0),
        of_folder(1),
        of_folder(2),
    ),
    "method": (
        of_plan(of_another_method),
        of_plan(of_method),
        of_config(alpha=0.5),
        of_samples(size=3),
        of_models(lambda models: replace(models, head=HeadKind.PROBE)),
        of_config(polish=2),
        of_config(add_tokens=True),
        of_config(model_dtype="stored"),
        of_models(lambda models: replace(models, pairs=models.pairs[1:])),
        of_plan(lambda plan: replace(plan, storage=replace(plan.storage, form=Form.DELTA))),
    ),
    "evaluation": (
        of_plan(of_dataset),
        of_plan(of_configuration),
        of_scoring(name="other"),
        of_scoring(n=7),
        of_scoring(seed=1),
        of_scoring(dtype="bfloat16"),
        of_samples(max_length=3),
        of_config(columns="image=picture,label=label"),
        of_config(streaming=True),
    ),
    "calibration": (of_draw, of_plan(of_task), of_samples(bank=("a text",)), of_more),
}
"""Part of the key → for each of its fields, other inputs."""
FIELDS = [(part, number) for part, changes in INPUTS.items() for number in range(len(changes))]


@pytest.mark.parametrize(("part", "number"), FIELDS)
def test_every_field_of_the_key_counts(inputs, tmp_path, part, number):
    own = (replace(inputs[0], output=tmp_path), *inputs[1:])
    ours, other = key(own), key(INPUTS[part][number](own))
    assert {name for name in ours if ours[name] != other[name]} == {part}
    assert [place for place, (a, b) in enumerate(zip(ours[part], other[part], strict=True)) if a != b] == [number]


def test_every_field_has_its_other_input(inputs):
    found = key(inputs)
    assert set(found) == {*INPUTS, "hf_bico"}
    assert {part: len(found[part]) for part in INPUTS} == {part: len(changes) for part, changes in INPUTS.items()}


def test_another_version_is_another_key(inputs, monkeypatch):
    ours = key(inputs)
    monkeypatch.setattr(port, "__version__", "0.0.0")
    assert key(inputs) != ours


def test_the_same_choices_are_the_same_key(inputs):
    assert key(opened()) == key(inputs)


def test_another_draw_is_another_key(inputs):
    ours, other = key(inputs), key(opened(seed=1))
    assert ours["calibration"] != other["calibration"]


# Comparisons and alignments

HEAD = of_models(lambda models: replace(models, head=HeadKind.PROBE))
PAIRS = of_models(lambda models: replace(models, pairs=models.pairs[1:]))
OF_COMPARE = {
    "models": of_hashes("base"),
    "task": of_plan(of_task),
    "batch": of_samples(size=3),
    "head": HEAD,
    "pairs": PAIRS,
    "evaluation": of_scoring(seed=1),
}
OF_ALIGN = {
    "models": of_hashes("base"),
    "head": HEAD,
    "method": PAIRS,
    "calibration": of_samples(max_length=3),
}


def key_of_compare(inputs) -> dict:
    config, session, _ = inputs
    return compare._key(SimpleNamespace(config=config), session)


def key_of_align(inputs, digest: str = "a") -> dict:
    return align._key(*inputs[1:], [Fingerprint(digest, digest, digest)])


@pytest.mark.parametrize("part", OF_COMPARE)
def test_every_field_of_a_comparisons_key_counts(inputs, part):
    ours, other = key_of_compare(inputs), key_of_compare(OF_COMPARE[part](inputs))
    assert {name for name in ours if ours[name] != other[name]} == {part}
    assert set(ours) == {*OF_COMPARE, "hf_bico"}


@pytest.mark.parametrize("part", OF_ALIGN)
def test_every_field_of_an_alignments_key_counts(inputs, part):
    ours, other = key_of_align(inputs), key_of_align(OF_ALIGN[part](inputs))
    assert {name for name in ours if ours[name] != other[name]} == {part}
    assert set(ours) == {*OF_ALIGN, "maps", "hf_bico"}


def test_an_alignment_of_other_bases_has_another_key(inputs):
    assert key_of_align(inputs, "a") != key_of_align(inputs, "b")
