"""Every task end to end: a port to the base's twin answers as the fine-tune does, under a head that is carried."""

import pytest
import torch
import transformers
from huggingface_hub import HfApi, ModelCard
from support.commands import hf_bico
from support.tasks import KINDS, TAGS, asked, task_of, words, write_world

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


def test_a_port_goes_from_hub_to_hub(worlds, capsys, monkeypatch):
    root, api = worlds("tags"), HfApi()
    for part in ("base", "ft", "plus", "task"):
        kind = "dataset" if part == "task" else "model"
        api.create_repo(f"demo/tags-{part}", repo_type=kind)
        api.upload_folder(folder_path=root / part, repo_id=f"demo/tags-{part}", repo_type=kind)
    words = [
        "port",
        "demo/tags-ft",
        "--base",
        "demo/tags-base",
        "--to",
        "demo/tags-plus",
        "--dataset",
        "demo/tags-task",
    ]
    ran = hf_bico(capsys, monkeypatch, *words, "--method", "naive", "--push-to", "demo/tags-port", "--allow-regression")
    assert ran.code == 0, ran.err
    told = ModelCard.load("demo/tags-port").data
    assert (told.pipeline_tag, told.eval_results[0].metric_type) == ("token-classification", "f1")
    tagged = transformers.pipeline("token-classification", "demo/tags-port")("a port of Paris")
    assert {each["entity"] for each in tagged} <= set(TAGS)


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
