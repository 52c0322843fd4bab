"""The verdict on a finished port: every word, both ways up, and what is not pushed."""

import pytest
from scipy.stats import binom

from hf_bico.reports.worth import (
    FEWEST,
    LEVEL,
    WORKS_FROM,
    Scored,
    at_chance,
    may_be_chance,
    refusal_of,
    resting,
    worth,
)
from hf_bico.tasks.scores import Score

START, GOAL = Score.of(400, 1000), Score.of(900, 1000)


def scored(ported: Score, start: Score = START, goal: Score | None = GOAL, **baselines: Score) -> Scored:
    return Scored(goal, start, ported, baselines)


def perplexity(value: float, **also: float) -> Score:
    names = {name.replace("_", " "): each for name, each in also.items()}
    return Score(value, 0.95 * value, 1.05 * value, 100, "perplexity", names)


@pytest.mark.parametrize(
    ("right", "word", "pushed"),
    [
        (950, "works", True),
        (650, "works", True),  # half of the way
        (649, "partly", True),
        (401, "partly", True),
        (400, "no gain", False),
        (399, "harmful", False),
        (0, "harmful", False),
    ],
)
def test_the_word_goes_by_the_way_to_the_source(right, word, pushed):
    found = worth(scored(Score.of(right, 1000)), classes=10)
    assert (found.word, found.pushable) == (word, pushed)
    assert (refusal_of(found) is None) == pushed
    assert f"{right / 10:.1f}%" in found.reason
    assert WORKS_FROM == 0.5


@pytest.mark.parametrize(("value", "word"), [(9.0, "works"), (15.0, "works"), (18.0, "partly"), (25.0, "harmful")])
def test_perplexity_is_better_lower(value, word):
    assert worth(scored(perplexity(value), perplexity(20.0), perplexity(10.0))).word == word


def test_any_metric_that_is_worse_is_harm():
    """Also beside a main metric that gained, and the other way round a gain in another metric alone is one."""
    start, goal = Score.of(10, 100, "exact match", {"perplexity": 5.0}), Score.of(90, 100, "exact match", {})
    lost = worth(scored(Score.of(60, 100, "exact match", {"perplexity": 5.5}), start, goal))
    assert (lost.word, lost.pushable) == ("harmful", False)
    assert "5.5 (perplexity), worse than the new base without it (5)" in lost.reason
    assert worth(scored(Score.of(60, 100, "exact match", {"perplexity": 4.5}), start, goal)).word == "works"
    assert worth(scored(Score.of(10, 100, "exact match", {"perplexity": 4.5}), start, goal)).word == "partly"


def test_nothing_carried_over_is_no_gain_whatever_the_scores():
    for alpha, why in ((0.0, "α = 0"), (1.0, "is zero")):
        found = worth(scored(Score.of(800, 1000)), alpha=alpha, unchanged=True)
        assert (found.word, found.pushable) == ("no gain", False)
        assert why in found.reason


def test_a_better_baseline_is_named_with_its_method_and_scale():
    """The case that was met: naive 97.7, the port 86.7; of several the best one is named."""
    ported, naive = Score.of(867, 1000), Score.of(977, 1000)
    found = worth(scored(ported, naive=naive))
    assert (found.word, found.pushable) == ("works", False)
    assert found.next == "the naive copy is better: use --method naive"
    assert "the naive copy scores 97.7%" in found.reason and "86.7%" in found.reason
    found = worth(scored(ported, naive=Score.of(880, 1000), bico=naive), alpha=0.75)
    assert found.next == "the port by bico is better: use --method bico --alpha 0.75"
    assert worth(scored(ported, naive=ported)).pushable
    assert worth(scored(ported, naive=Score.of(866, 1000))).pushable
    lower = worth(scored(perplexity(15.0), perplexity(20.0), perplexity(10.0), naive=perplexity(12.0)))
    assert "--method naive" in lower.next and not lower.pushable


def test_a_difference_inside_the_interval_is_said_to_be_uncertain():
    assert "uncertain" in worth(scored(Score.of(399, 1000))).reason
    assert "uncertain" in worth(scored(Score.of(401, 1000))).reason
    assert "uncertain" not in worth(scored(Score.of(800, 1000))).reason
    assert "uncertain" not in worth(scored(Score.of(100, 1000))).reason
    near, far = (worth(scored(Score.of(800, 1000), naive=Score.of(k, 1000))).reason for k in (805, 990))
    assert "uncertain" in near and "uncertain" not in far


RESTS = "this rests on 20 samples, and the 95 % interval is wide (38.7% – 78.1%)"


def test_a_verdict_on_few_samples_says_so():
    """Whatever the word."""
    few, start = Score.of(12, 20), Score.of(4, 20)
    for goal, better in ((Score.of(18, 20), start), (None, start), (Score.of(18, 20), Score.of(15, 20))):
        assert worth(scored(few, better, goal)).reason.endswith(f"; {RESTS}")
    assert RESTS in worth(scored(few, start, Score.of(18, 20), naive=Score.of(14, 20))).reason
    assert all("rests on" not in worth(scored(Score.of(k, 1000))).reason for k in (300, 400, 800))
    assert "rests on" not in worth(scored(few), unchanged=True).reason


@pytest.mark.parametrize(
    ("score", "wide"),
    [
        (Score.of(50, 91), True),  # ±10.0 points
        (Score.of(50, 95), False),
        (Score.of(20, 20), False),
        (Score(0.3, 0.0, 0.61, 12, "pearson"), True),
        (perplexity(2000.0), False),
        (Score(2000.0, 1700.0, 2200.0, 9, "perplexity"), True),
        (Score(2.0, 1.81, 2.19, 9, "perplexity"), False),
    ],
    ids=str,
)
def test_an_interval_is_wide_from_ten_points_on(score, wide):
    """Of what is at most 1; of a perplexity ten per cent."""
    assert score.is_wide is wide
    assert bool(resting(score)) is wide


def test_a_gap_that_nobody_knows():
    """Perplexities over other tokens have no gap; a source that is no better than the target leaves none."""
    assert worth(scored(perplexity(15.0), perplexity(20.0), None)).word == "partly"
    assert worth(scored(Score.of(450, 1000), goal=Score.of(300, 1000)), classes=10).word == "works"


def test_a_source_at_chance_is_no_measure():
    found = worth(scored(Score.of(60, 100), Score.of(24, 100), Score.of(25, 100)), classes=4)
    assert (found.word, found.pushable) == ("no gain", False)
    for words in ("chance", "id2label", "split"):
        assert words in f"{found.reason} {found.next}"
    assert worth(scored(Score.of(60, 100), Score.of(24, 100), Score.of(0, 100)), classes=4).word == "no gain"
    worse = worth(scored(Score.of(20, 100), Score.of(24, 100), Score.of(0, 100)), classes=4)
    assert worse.word == "harmful" and "chance" in worse.reason and "id2label" in worse.next
    assert worth(scored(Score.of(60, 100), Score.of(24, 100), Score.of(25, 100)), classes=0).word == "works"
    assert not at_chance(perplexity(3.0), 4)


@pytest.mark.parametrize("classes", [2, 4, 10])
@pytest.mark.parametrize("n", [FEWEST, 20, 100])
def test_chance_is_refused_as_a_binomial_test_says(n, classes):
    """The least number of right answers that chance gives in at most 5 % of draws."""
    least = next(k for k in range(n + 1) if binom.sf(k - 1, n, 1 / classes) <= LEVEL)
    assert [may_be_chance(k, n, classes) for k in (0, least - 1, least, n)] == [True, True, False, False]
    assert not may_be_chance(0, FEWEST - 1, classes)
    assert not may_be_chance(0, n, 0)


def test_a_port_that_does_harm_is_not_mended_by_a_baseline_that_does_less():
    found = worth(scored(Score.of(300, 1000), naive=Score.of(350, 1000)))
    assert (found.word, found.pushable) == ("harmful", False)
    assert "--method naive" not in found.next
    assert "--method naive" in worth(scored(Score.of(300, 1000), naive=Score.of(700, 1000))).next
