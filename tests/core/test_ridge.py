"""A layer's regression: from the rows and from sums over them alike, in whatever parts they come."""

import pytest
import torch

from hf_bico.core.ridge import GRID, Regression

WIDTH, TOKENS = 40, 5
"""Columns of X beside that of ones, and rows of a sample."""


def problem(samples, outputs=6, seed=0):
    """X with unequal columns, R = X W + noise, the sample of every row, an anchor for W and b; float64."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    n = samples * TOKENS
    x = draw(n, WIDTH) * torch.logspace(0, -2, WIDTH, dtype=torch.float64)
    wanted = x @ draw(WIDTH, outputs) / 10 + 0.1 * draw(n, outputs)
    return x, wanted, torch.arange(n) // TOKENS, draw(outputs, WIDTH + 1) / 100


def solved(ridge, x, wanted, sample, anchor, parts=1, *, summed=False):
    regression = Regression(ridge, one_more=True)
    for part in zip(*(each.tensor_split(parts) for each in (x, wanted, sample)), strict=True):
        regression.add(*part)
    for held in regression.rows if summed else ():
        regression._sum(*held)
    regression.rows = [] if summed else regression.rows
    assert bool(regression.rows) != bool(regression.folds)
    return regression.solved(anchor)


@pytest.mark.parametrize("samples", [7, 8, 9], ids=["fewer rows than columns", "one row less", "more rows"])
@pytest.mark.parametrize("ridge", [0.01, 3.0])
def test_nothing_near_is_better(samples, ridge):
    x, wanted, sample, anchor = problem(samples)
    d, found = solved(ridge, x, wanted, sample, anchor)
    x = torch.cat([x, torch.ones(len(x), 1)], 1).double()
    m = x.square().sum(0).mean()
    gradient = (d @ x.T - wanted.T) @ x + ridge * m * (d - anchor)
    assert found == ridge
    assert gradient.norm() < 1e-9 * (wanted.T @ x).norm()


@pytest.mark.parametrize("outputs", [6, 50], ids=["every output", "mixtures of them"])
@pytest.mark.parametrize("ridge", [None, 0.3])
@pytest.mark.parametrize("seed", range(4))
def test_rows_give_what_sums_over_them_give(outputs, ridge, seed):
    given = problem(7, outputs, seed)
    d, found = solved(ridge, *given)
    expected, same = solved(ridge, *given, summed=True)
    assert found == same
    torch.testing.assert_close(d, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("samples", [7, 20])
def test_parts_do_not_matter(samples):
    given = problem(samples)
    whole, in_parts = solved(None, *given), solved(None, *given, parts=4)
    assert whole[1] == in_parts[1]
    torch.testing.assert_close(*(d for d, _ in (whole, in_parts)), rtol=1e-9, atol=1e-11)


def test_the_penalty_is_the_one_that_predicts_samples_not_seen():
    """Of rows that follow an exact law the least; a great one where answers have nothing to do with them."""
    x, _, sample, _ = problem(7)
    law = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x[:, 10:] = 0
    assert solved(None, x, x @ law.T, sample, torch.zeros(3, WIDTH + 1))[1] == GRID[0]
    noise = torch.randn(len(x), 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert solved(None, x, noise, sample, torch.zeros(3, WIDTH + 1))[1] >= 10


def test_nothing_added_is_said_and_rows_of_zeros_leave_the_anchor():
    with pytest.raises(ValueError, match="no calibration samples"):
        Regression(None, one_more=False).solved(torch.ones(2, 3))
    for rows in (2, 8):
        regression = Regression(None, one_more=False)
        regression.add(torch.zeros(rows, 3), torch.zeros(rows, 2), torch.arange(rows))
        assert torch.equal(regression.solved(torch.ones(2, 3))[0], torch.ones(2, 3).double())
