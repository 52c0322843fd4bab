"""Images with texts end to end: a port to the base's twin gives the fine-tune back, from Hub to Hub."""

import pytest
import torch
import transformers
from support.sights import KINDS, asked_of, processor_of, write_world
from support.twins import distance

from hf_bico.io.hub import Hub
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.port import run


def ported(root, out, **changed):
    config = {"base": str(root / "base"), "n": 24, "method": "bico", "allow_regression": True, "output": out}
    return run(PortConfig(*(str(root / part) for part in ("ft", "plus", "task")), **config | changed), Hub())


@pytest.mark.parametrize("kind", KINDS)
def test_a_twin_gives_the_fine_tune_back(kind, tmp_path):
    expected = write_world(tmp_path, kind)
    outcome = ported(tmp_path, tmp_path / "out", method_options=("rtol=1e-6",))
    cls = getattr(transformers, f"{KINDS[kind].cls}ForConditionalGeneration")
    models = {name: cls.from_pretrained(tmp_path / name).eval() for name in ("ft", "plus", "out")}
    before, after = models["plus"].state_dict(), models["out"].state_dict()
    delta = {key: after[key] - before[key] for key in after if expected[key].any()}
    assert distance(delta, {key: expected[key] for key in delta}) < 0.05
    objective, samples = asked_of(models["ft"], processor_of(kind), tmp_path / "task", "test")
    with torch.no_grad():
        theirs, ours = (objective.answers(models[name], objective.encode(samples)) for name in ("ft", "out"))
    assert (theirs - ours).norm() < 0.03 * theirs.norm()
    own, source = (outcome.report["evaluation"][what] for what in ("ported", "source"))
    assert own["metric"] == "exact match"
    assert own["also"]["perplexity"] == pytest.approx(source["also"]["perplexity"], rel=0.02)
