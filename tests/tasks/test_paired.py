"""Two models on the same samples: what of their answers differs, and whether that is more than chance."""

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr

from hf_bico.tasks.paired import PARTS, Answered, by_class, joined, paired, shown_difference
from hf_bico.tasks.scores import METRICS, Score


def answered(right: list[int], metric: str = "accuracy") -> Answered:
    values = torch.tensor(right, dtype=torch.float)[:, None]
    return Answered.of(Score.of(int(values.sum()), len(right)), values)


VALUES = {
    "accuracy": (lambda v: Score.of(int(v.sum()), len(v)), lambda n: torch.randint(0, 2, (n, 1)).float()),
    "perplexity": (lambda v: Score.perplexity(v[:, 0], v[:, 1]), lambda n: torch.rand(n, 3) + 1),
    "micro F1": (
        lambda v: Score.several(*v.chunk(2, -1)),
        lambda n: torch.cat([torch.randn(n, 3), torch.ones(n, 3)], -1),
    ),
    "MRR@10": (
        lambda v: Score.retrieval(*v.chunk(2, -1)),
        lambda n: torch.nn.functional.normalize(torch.randn(n, 2, 4), dim=-1).flatten(1),
    ),
    "pearson": (lambda v: Score.correlation(*v.unbind(-1)), lambda n: torch.randn(n, 2)),
    "spearman": (lambda v: Score.correlation(*v.unbind(-1), "spearman"), lambda n: torch.randn(n, 2)),
    "word error rate": (Score.errors, lambda n: torch.randint(1, 9, (n, 4)).float()),
}


@pytest.mark.parametrize("metric", VALUES)
def test_a_scores_parts_give_the_score(metric):
    torch.manual_seed(0)
    score, values = VALUES[metric]
    values = values(40)
    found = Answered.of(score(values), values)
    assert found.score.metric == metric
    assert joined(metric, *np.array(found.parts).T) == pytest.approx(found.score.value, rel=1e-6)


def test_what_parts_are_of_is_a_metric():
    assert set(PARTS) <= set(METRICS)


def test_flips_and_mcnemar_are_counted_by_hand():
    """Of ten samples the model alone has five right, the other one: p of 1 or fewer, or 5 or more, of 6 coins."""
    other = answered([1, 1, 1, 0, 0, 0, 0, 0, 0, 1])
    model = answered([1, 1, 1, 1, 1, 1, 1, 1, 0, 0])
    found = paired(model, other, "zero_shot")
    assert (found.won, found.lost) == (5, 1)
    assert found.difference == pytest.approx(0.4)
    assert found.p == pytest.approx(2 * (1 + 6) / 2**6)
    assert not found.certain
    assert paired(other, model, "source").difference == pytest.approx(-0.4)


def test_a_model_does_not_differ_from_itself():
    model = answered([1, 0, 1, 1])
    found = paired(model, model, "naive")
    assert (found.difference, found.low, found.high, found.won, found.lost, found.p) == (0, 0, 0, 0, 0, 1)
    assert not found.certain


def test_the_interval_is_of_pairs_not_of_two_samples():
    """Two models that are right on the same nine tenths differ by little, however many are right."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2, 400)
    model = base.copy()
    model[:20] = 1
    found = paired(answered(model.tolist()), answered(base.tolist()), "zero_shot")
    assert found.low > 0 and found.certain  # two intervals of 400 answers each overlap by far
    assert found.high - found.low < 0.04


def test_the_bootstrap_covers_the_truth():
    """Of pairs whose true difference is 0.1, the interval holds it about 95 times in 100."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(60):
        base = rng.random(150) < 0.5
        model = np.where(rng.random(150) < 0.2, True, base)  # adds 0.2 × 0.5
        found = paired(answered(model.astype(int).tolist()), answered(base.astype(int).tolist()), "zero_shot")
        held += found.low <= 0.1 <= found.high
    assert 52 <= held <= 60


def test_correlations_are_resampled_as_pairs():
    torch.manual_seed(0)
    wanted = torch.randn(200)
    good, bad = (torch.stack([wanted + s * torch.randn(200), wanted], -1) for s in (0.3, 1.5))
    a, b = (Answered.of(Score.correlation(*v.unbind(-1)), v) for v in (good, bad))
    found = paired(a, b, "naive")
    truth = pearsonr(*good.T.numpy())[0] - pearsonr(*bad.T.numpy())[0]
    assert found.difference == pytest.approx(truth, rel=1e-4)
    assert found.low < truth < found.high and found.certain
    assert found.won is None and found.p is None


def test_scores_of_other_kinds_are_not_compared():
    spoken = torch.rand(4, 4) + 1
    assert paired(answered([1, 0, 1, 1]), Answered.of(Score.errors(spoken), spoken), "source") is None
    unit = torch.eye(4)
    agree = Answered.of(Score.agreement(unit, unit), unit)
    assert agree.parts is None and paired(agree, agree, "source") is None


def test_every_class_has_its_own_change():
    before, after = answered([1, 1, 0, 0, 0]), answered([1, 0, 1, 1, 0])
    found = by_class(after, before, [0, 0, 2, 2, 2], ["a", "b", "c"])
    assert [(each.name, each.n, each.before, each.after) for each in found] == [
        ("a", 2, 1.0, 0.5),
        ("c", 3, 0.0, pytest.approx(2 / 3)),
    ]


def test_answers_are_read_back_as_they_were():
    model = answered([1, 0, 1])
    assert Answered.from_plain(model.to_plain()) == model


def test_a_share_differs_by_points():
    found = paired(answered([1, 1, 1, 1]), answered([1, 1, 1, 0]), "naive")
    assert shown_difference(found, "accuracy").startswith("+25.0 points (")
