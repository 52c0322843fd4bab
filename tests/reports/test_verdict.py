"""The verdict, and the records of the world that its limits were chosen by."""

import pytest

from hf_bico.reports.verdict import FITTED, GOOD_FROM, POOR_BELOW, RECORDS, Grade, Signs, Trial, grade, judge

# The verdict


@pytest.mark.parametrize(
    ("recovered", "verdict"),
    [
        (1.0, "good"),
        (GOOD_FROM, "good"),
        (GOOD_FROM - 1e-9, "uncertain"),
        (0.0, "uncertain"),
        (POOR_BELOW, "uncertain"),
        (POOR_BELOW - 1e-9, "poor"),
        (-5.0, "poor"),
    ],
)
def test_the_verdict_goes_by_what_a_port_in_small_recovered(recovered, verdict):
    signs = Signs(0.9, 0.2, 0.5, 0.8, recovered)
    found = judge(signs, Trial(10.0, 10.0 - 8 * recovered, 2.0), FITTED)
    assert found.grade == verdict
    assert f"{recovered:.0%} of the way" in found.reasons[0]


def test_the_naive_copy_is_named_where_it_did_better():
    """And taken where it is good itself; of texts the record says less."""
    signs = Signs(0.9, 0.2, 0.5, 0.8, 0.1)
    for naive, instead, told in ((4.0, "naive", True), (9.1, None, True), (9.5, None, False)):
        found = judge(signs, Trial(10.0, 9.2, 2.0, naive=naive), FITTED)
        assert found.instead == instead
        assert any("the naive copy is better" in reason for reason in found.reasons) == told
    for texts in (False, True):
        found = judge(signs, Trial(10.0, 9.2, 2.0), FITTED, texts=texts)
        assert any("of images" in reason for reason in found.reasons) == texts


def test_without_a_gap_there_is_nothing_to_gain():
    found = Trial(1.0, 0.9, 0.995)
    assert found.recovered is None
    assert Trial(1.0, 0.9, 0.5).recovered == pytest.approx(0.2)
    verdict = judge(Signs(1, 0, 0, 1, found.recovered), found, 50)
    assert verdict.grade is Grade.POOR
    assert "nothing to gain" in verdict.reasons[0]
    assert judge(Signs(1, 0, 0, 1, None), None, 50).grade is Grade.UNCERTAIN


@pytest.fixture(scope="module")
def fit():
    from hub_scripts.world.vision import check_fit

    yield check_fit


def test_the_records_are_those_of_the_world(fit):
    rows = fit.measured()
    assert len(rows) == 3 * 7 * 8
    for each, some in fit.graded(rows).items():
        ports, gained, median = fit.record(some)
        assert (ports, gained, round(median, 2)) == RECORDS[each]
        assert all(grade(float(row["recovered"])) is each for row in some)
    ports = fit.load()
    for row in rows[::13]:
        gap, points = fit.outcome(ports, row["source"], row["target"], row["task"])
        assert (float(row["gap"]), float(row["points"])) == pytest.approx((gap, points), abs=1e-4)


def test_the_page_shows_what_the_rows_say(fit):
    page = fit.PAGE.read_text(encoding="utf-8")
    assert fit.fill(page, fit.tables(fit.measured())) == page
