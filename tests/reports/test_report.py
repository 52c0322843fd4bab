"""Reports: what was written is read back into the same type, also of an older schema."""

import json

import pytest
import torch
from support.twins import Samples, random_fine_tune, tiny_clip

from hf_bico import PortConfig, PortError, port
from hf_bico.io.hub import Hub
from hf_bico.reports.report import PortReport
from hf_bico.tasks.objectives import ZeroShot
from hf_bico.workflows.port import run


@pytest.fixture(scope="module")
def ported(world, tmp_path_factory):
    output = tmp_path_factory.mktemp("reports") / "out"
    return run(PortConfig("demo/ft", "demo/plus", "demo/task", method="bico", n=8, eval_n=8, output=output), Hub())


@pytest.fixture(scope="module")
def live():
    a, b, samples = tiny_clip(), tiny_clip(48, 3, seed=4), Samples.make(8)
    found = port(tuned=random_fine_tune(a), base=a, target=b, calibration=samples.batches(8), loss=samples.loss)
    found.evaluate(lambda model: 0.5)
    return found


def test_a_report_is_read_back_into_the_same_type(ported, live):
    for data in (json.loads((ported.output / "hf_bico.json").read_text()), live.report):
        assert PortReport.from_json(json.loads(json.dumps(data))).to_json() == json.loads(json.dumps(data))


def test_scores_keep_their_alpha_apart_from_their_words(live):
    without, with_port = PortReport.from_json(live.report).scores
    assert (without.metric, without.alpha, without.without_port) == ("accuracy", None, True)
    assert (with_port.metric, with_port.alpha) == ("accuracy", 1.0)
    assert with_port.label == "accuracy with the port (α = 1)"


def test_what_was_published_before_is_read(ported, live):
    """Schema 3: the same keys; what was measured of a live port stood under its label."""
    data = json.loads((ported.output / "hf_bico.json").read_text()) | {"schema": 3}
    assert data.pop("verdict")["word"] == ported.verdict.word
    read = PortReport.from_json(data)
    assert read.verdict is None
    assert read.evaluation.ported.value == data["evaluation"]["ported"]["value"]
    assert read.lineage["target"].name == "demo/plus"
    old = live.report | {"schema": 3, "scores": {"accuracy with the port (α = 1)": 0.5}}
    (score,) = PortReport.from_json(old).scores
    assert (score.label, score.value, score.alpha) == ("accuracy with the port (α = 1)", 0.5, None)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"schema": 99}, "schema 99"),
        ({"schema": None}, "schema None"),
        ({"method": {"name": "bico"}}, "method"),
        ({"moved": "nothing"}, "moved"),
    ],
)
def test_what_is_no_report_is_refused(live, change, why):
    with pytest.raises(PortError, match=why):
        PortReport.from_json(live.report | change)


def test_scores_say_what_dtype_the_models_ran_in(ported, world, tmp_path, monkeypatch):
    """What is scored runs by autocast; the port itself stays as it was."""
    seen, right = [], ZeroShot.per_sample
    monkeypatch.setattr(
        ZeroShot, "per_sample", lambda *given: seen.append(torch.is_autocast_enabled("cpu")) or right(*given)
    )
    words = {"method": "bico", "n": 8, "eval_n": 8, "score_dtype": "bfloat16"}
    half = run(PortConfig("demo/ft", "demo/plus", "demo/task", **words, output=tmp_path / "half"), Hub())
    assert len(seen) >= 4
    assert all(seen)
    assert _weights(half) == _weights(ported)
    for found, dtype in ((half, "bfloat16"), (ported, None)):
        assert json.loads((found.output / "hf_bico.json").read_text())["evaluation"].get("dtype") == dtype
        card = (found.output / "README.md").read_text()
        assert ("ran in bfloat16 by autocast" in card) == ("--score-dtype bfloat16" in card) == bool(dtype)


def _weights(found):
    return [path.read_bytes() for path in sorted(found.output.glob("*.safetensors"))]
