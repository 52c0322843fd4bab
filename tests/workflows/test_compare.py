"""Methods side by side: the same numbers as port by port, from one collection."""

import json

import pytest
import torch
import transformers
from huggingface_hub import cached_assets_path
from support.commands import hf_bico, json_of
from support.repos import write_family
from support.twins import Samples, random_fine_tune, tiny_clip
from support.world import config, fine_tune, write_model

from hf_bico import BiCo, Naive, port
from hf_bico.core import collect
from hf_bico.core.compare import compare
from hf_bico.core.methods import FewShot, GradFix, Theseus
from hf_bico.io.hub import Hub
from hf_bico.tasks.evaluation import Evaluator
from hf_bico.workflows.compare import run
from hf_bico.workflows.config import CompareConfig
from hf_bico.workflows.live import class_scores, job_of

WORDS = ("demo/ft", "--to", "demo/plus", "--dataset", "demo/task")


@pytest.fixture
def collected(monkeypatch):
    """A list that grows by one with every batch that is collected."""
    batches = []
    right = collect._add_batch
    monkeypatch.setattr(collect, "_add_batch", lambda *args: (batches.append(1), right(*args))[1])
    return batches


def test_the_numbers_are_those_of_single_ports(world, capsys, monkeypatch, collected, tmp_path):
    data = json_of(
        capsys,
        monkeypatch,
        "compare",
        *WORDS,
        "-n",
        "10",
        "-n",
        "20",
        "--seeds",
        "2",
        "--method",
        "bico",
        "--method",
        "naive",
        "--method",
        "gradient-only",
        "--alpha",
        "1",
        "--alpha",
        "20",
        "--output",
        tmp_path / "out",
    )
    assert len(collected) == 2 * (2 + 3)  # batches of 8: once a (N, seed), whatever the methods
    assert len(data["rows"]) == 2 * 2 * 3 * 2
    assert len({row["score"] for row in data["rows"]}) > 2
    for method, n, seed, alpha in (("bico", 10, 1, 20), ("gradient-only", 20, 0, 20), ("bico", 20, 1, 1)):
        own = ("-n", n, "--seed", seed, "--method", method, "--alpha", alpha)
        alone = json_of(capsys, monkeypatch, "port", *WORDS, *own)
        ours = {
            name: row
            for row in data["rows"]
            if (row["n"], row["seed"], row["alpha"]) == (n, seed, alpha)
            for name in [row["method"]]
        }
        scores = alone["evaluation"]
        assert ours[method]["score"] == scores["ported"]["value"]
        assert ours["naive"]["score"] == scores["naive"]["value"]
        assert ours[method]["recovered"] == pytest.approx(scores["recovered"])
        assert data["evaluation"]["zero_shot"] == scores["zero_shot"]
        assert data["evaluation"]["source"] == scores["source"]
        drawn = next(draw for draw in data["calibration"] if (draw["n"], draw["seed"]) == (n, seed))
        assert drawn["start"] == scores["zero_shot"]
        assert drawn["content_sha256"] == alone["calibration"]["content_sha256"]
    assert json.loads((tmp_path / "out" / "compare.json").read_text()) == data
    assert not any(cached_assets_path("hf_bico", namespace="ports").iterdir())
    assert (tmp_path / "out" / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert "](compare.png)" in (tmp_path / "out" / "compare.md").read_text()


def test_a_method_is_compared_with_itself_under_other_options(world, capsys, monkeypatch, collected):
    """Each row is that of the method alone with those options, and one collection serves them all."""
    few = ("-n", "10", "--seeds", "1", "--alpha", "20")
    both = ("--method", "theseus", "--method", "theseus centred=true rtol=0.1")
    data = json_of(capsys, monkeypatch, "compare", *WORDS, *few, *both, "--set", "theseus:rtol=0.2")
    assert len(collected) == 2
    names = ["theseus", "theseus centred=true rtol=0.1"]
    assert [row["method"] for row in data["rows"]] == names
    told = [(data["methods"][name]["centred"], data["methods"][name]["rtol"]) for name in names]
    assert told == [(False, 0.2), (True, 0.1)]
    alone = ("--method", "theseus", "--set", "theseus:centred=true", "--set", "theseus:rtol=0.1")
    (row,) = json_of(capsys, monkeypatch, "compare", *WORDS, *few, *alone)["rows"]
    scores = [each["score"] for each in data["rows"]]
    assert scores[1] == row["score"]


def test_a_probe_has_its_own_goal_in_every_draw(tmp_path):
    """Fine-tunes of features answer by a probe of the draw's samples: every draw says what its gap is measured to."""
    write_family(tmp_path, "bert")
    torch.manual_seed(0)  # the pooler that a file lacks
    for name in ("base", "ft", "plus"):
        transformers.BertModel.from_pretrained(tmp_path / name).save_pretrained(tmp_path / f"bare-{name}")
        transformers.AutoTokenizer.from_pretrained(tmp_path / name).save_pretrained(tmp_path / f"bare-{name}")
    source, base, target = (str(tmp_path / f"bare-{name}") for name in ("ft", "base", "plus"))
    data = run(
        CompareConfig(
            source,
            target,
            str(tmp_path / "task"),
            base=base,
            head="probe",
            methods=("bico", "naive"),
            sizes=(12, 40),
            seeds=2,
        ),
        Hub(),
    )
    draws = {(draw["n"], draw["seed"]): draw for draw in data["calibration"]}
    goals = [draw["reference"]["value"] for draw in draws.values()]
    assert len(draws) == 4 and len(set(goals)) > 1
    assert data["reference"]["value"] == pytest.approx(sum(goals) / 4)
    assert data["evaluation"]["source"]["value"] == pytest.approx(sum(goals) / 4)  # the source is the goal
    for row in data["rows"]:
        draw = draws[row["n"], row["seed"]]
        start, goal = (draw[name]["value"] for name in ("start", "reference"))
        assert draw["source"] == draw["reference"]
        if row["recovered"] is not None:
            assert row["recovered"] == pytest.approx((row["score"] - start) / (goal - start))


def test_means_and_spreads_over_the_seeds(world, capsys, monkeypatch):
    data = json_of(capsys, monkeypatch, "compare", *WORDS, "-n", "8", "--method", "bico", "--alpha", "30")
    scores = torch.tensor([row["score"] for row in data["rows"]], dtype=torch.float64)
    gaps = torch.tensor([row["recovered"] for row in data["rows"]], dtype=torch.float64)
    assert len(scores) == 3
    (entry,) = data["summary"]
    assert entry["score"] == pytest.approx(float(scores.mean()))
    assert entry["recovered"] == pytest.approx(float(gaps.mean()))
    assert entry["recovered_spread"] == pytest.approx(float(gaps.std()))
    way = data["evaluation"]["source"]["value"] - data["evaluation"]["zero_shot"]["value"]
    assert float(gaps[0]) == pytest.approx((float(scores[0]) - data["evaluation"]["zero_shot"]["value"]) / way)
    assert data["reference"]["what"] == "the source's own score"


def test_a_refusal_stands_in_its_row(world, capsys, monkeypatch, tmp_path):
    """GradFix needs equal shapes: it says so where they are not, and has a score where they are."""
    words = ("-n", "8", "--seeds", "1", "--method", "gradfix", "--method", "naive")
    rows = {row["method"]: row for row in json_of(capsys, monkeypatch, "compare", *WORDS, *words)["rows"]}
    assert "needs layers of equal shapes: block 0 q is 48 × 48" in rows["gradfix"]["refusal"]
    assert rows["gradfix"]["score"] is None
    assert rows["naive"]["refusal"] is None
    ran = hf_bico(capsys, monkeypatch, "compare", *WORDS, *words, "--output", tmp_path / "out")
    assert ran.code == 0, ran.err
    written = (tmp_path / "out" / "compare.md").read_text()
    for text in (ran.out, written):
        assert text.count("gradfix needs layers of equal shapes: block 0 q is 48 × 48") == 1
        assert "(1) gradfix needs layers" in text
    assert "| gradfix | 1 | 8 | refused | – | (1) |" in written
    assert "the source's own score" in written

    small = config(32, 2, 32)
    tensors = write_model(tmp_path / "same", small, seed=5)
    write_model(tmp_path / "same-ft", small, fine_tune(small, tensors, seed=6))
    data = json_of(
        capsys,
        monkeypatch,
        "compare",
        "demo/ft",
        "--to",
        tmp_path / "same",
        "--dataset",
        "demo/task",
        *words,
        "--target-tuned",
        tmp_path / "same-ft",
        "--set",
        "gradfix:sign=vote",
    )
    assert data["reference"]["what"] == "the target's own fine-tune"
    assert data["methods"]["gradfix"] == {"sign": "vote"}
    for row in data["rows"]:
        assert row["refusal"] is None
        assert 0 <= row["score"] <= 1


def test_an_interrupted_comparison_picks_up_where_it_was(world, capsys, monkeypatch):
    words = ("compare", *WORDS, "-n", "8", "--seeds", "2", "--method", "bico", "--method", "naive")
    whole = json_of(capsys, monkeypatch, *words)
    right, scored = Evaluator.per_sample, []

    def per_sample(*args):
        if len(scored) == 5:
            scored.append("stop")
            raise KeyboardInterrupt
        scored.append("score")
        return right(*args)

    monkeypatch.setattr(Evaluator, "per_sample", per_sample)
    assert hf_bico(capsys, monkeypatch, *words).code == 130
    data = json_of(capsys, monkeypatch, *words)
    assert scored.count("score") == 1 + 2 * (1 + 2)  # the source; of every draw the target and each cell
    assert [row["score"] for row in data["rows"]] == [row["score"] for row in whole["rows"]]
    assert not any(cached_assets_path("hf_bico", namespace="ports").iterdir())


def test_every_method_has_a_row_unless_named(world, capsys, monkeypatch):
    from hf_bico.core.methods import METHODS

    ran = hf_bico(capsys, monkeypatch, "compare", *WORDS, "--per-class", "1", "--seeds", "1", "--eval-n", "4")
    assert ran.code == 0, ran.err
    assert "4 (1 a class)" in ran.out
    assert all(name in ran.out for name in METHODS)
    table, _, _ = ran.out.partition("\n(1) ")
    assert max(map(len, table.splitlines())) <= 80
    assert len(table.strip().splitlines()) == 2 + len(METHODS)  # no row is broken


@pytest.fixture(scope="module")
def live():
    base, target = tiny_clip(), tiny_clip(48, 3, seed=4, size=40)
    samples = Samples.make(20)
    return {
        "tuned": random_fine_tune(base),
        "base": base,
        "target": target,
        "calibration": samples.batches(8, target_size=40),
        "loss": samples.loss,
    }, samples


def norm_of_change(target):
    """A score that tells deltas apart: the distance from what the model was."""
    before = {key: tensor.clone() for key, tensor in target.state_dict().items()}
    return lambda model: sum(float((tensor - before[key]).norm()) for key, tensor in model.state_dict().items())


def test_live_rows_are_live_ports(live, collected):
    """Methods of different label-free draws do not mix, and few-shot, naive and paths collect for themselves."""
    job, _ = live
    general = class_scores(Samples.make(3, seed=8).head)
    methods = {
        "bico": BiCo(),
        "two draws": BiCo(label_free=2),
        "three": BiCo(label_free=3),
        "path": BiCo(steps=2),
        "theseus": Theseus(centred=True),
        "naive": Naive(),
        "few-shot": FewShot(steps=2, rate=1e-3),
    }
    score = norm_of_change(job["target"])
    rows = compare(job_of(**job, scores=(general, general)), methods, 20, score, alphas=(1.0, -2.0))
    assert len(collected) == 3 + 3 + 3  # what all share, three draws, the path's second step
    assert [(row.method, row.alpha) for row in rows] == [(name, a) for name in methods for a in (1.0, -2.0)]
    for row in rows:
        state = {key: tensor.clone() for key, tensor in job["target"].state_dict().items()}
        alone = port(**job, scores=(general, general), method=methods[row.method])
        expected = sum(float((row.alpha * change).norm()) for change in alone.delta.values())
        assert row.score == pytest.approx(expected, rel=1e-5), row
        assert all(torch.equal(state[key], tensor) for key, tensor in job["target"].state_dict().items())
        assert (row.shared_seconds > 0) == (row.method not in ("naive", "few-shot"))


def test_live_refusals_leave_the_others_alone(live):
    job, _ = live
    methods = {"free": BiCo(label_free=1), "gradfix": GradFix(), "naive": Naive()}
    free, gradfix, naive = compare(job_of(**job), methods, 20, norm_of_change(job["target"]))
    assert "no general scores" in free.refusal
    assert "equal shapes" in gradfix.refusal
    assert naive.refusal is None
    assert naive.score > 0


def test_live_search_is_the_least_of_its_losses(live):
    job, _ = live
    (row,) = compare(job_of(**job), {"bico": BiCo()}, 20, lambda model: 0.0, alphas=("auto",))
    delta = port(**job, method=BiCo()).delta
    before = {key: tensor.clone() for key, tensor in job["target"].state_dict().items()}
    for alpha, loss in row.search:
        job["target"].load_state_dict(before | {key: before[key] + alpha * change for key, change in delta.items()})
        with torch.no_grad():
            whole = sum(float(job["loss"](job["target"], batch.target)) for batch in job["calibration"])
        assert loss == pytest.approx(whole / 20)
    job["target"].load_state_dict(before)
    assert row.scale == min(row.search, key=lambda each: each[1])[0]
    assert [alpha for alpha, _ in row.search] == sorted({alpha for alpha, _ in row.search})
