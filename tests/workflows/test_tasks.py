"""Every task end to end: a port to the base's twin answers as the fine-tune does, under a head that is carried."""

import pytest
import torch
import transformers
from support.tasks import KINDS, asked, task_of, words, write_world

from hf_bico.io.hub import Hub
from hf_bico.tasks.scores import METRICS
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.port import run


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    made = {}

    def world(kind: str):
        if kind not in made:
            made[kind] = write_world(tmp_path_factory.mktemp(kind), kind)
        return made[kind]

    return world


def ported(root, out, **changed):
    config = {"base": str(root / "base"), "n": 66, "method": "bico", "allow_regression": True, "output": out}
    return run(PortConfig(*(str(root / part) for part in ("ft", "plus", "task")), **config | changed), Hub())


@pytest.mark.parametrize("kind", KINDS)
def test_a_port_to_a_twin_answers_as_the_fine_tune_does(kind, worlds, tmp_path):
    root = worlds(kind)
    outcome = ported(root, tmp_path / "out", method_options=("rtol=1e-6",))
    own, theirs = (outcome.report["evaluation"][what] for what in ("ported", "source"))
    assert own["metric"] == KINDS[kind].metric
    assert own["value"] == pytest.approx(theirs["value"], abs=0.02)
    assert METRICS[own["metric"]].says in (tmp_path / "out" / "README.md").read_text()
    cls = getattr(transformers, KINDS[kind].cls)
    theirs, ours = (cls.from_pretrained(folder) for folder in (root / "ft", tmp_path / "out"))
    assert ours.config.problem_type == theirs.config.problem_type and ours.config.id2label == theirs.config.id2label
    task, samples = task_of(root / "task", theirs)
    answers = []
    for model in (theirs, ours):
        objective = asked(model, words(), task)
        with torch.no_grad():
            answers.append(model(**objective.encode(samples).inputs)[0])
    assert (answers[0] - answers[1]).norm() < 0.03 * answers[0].norm()
