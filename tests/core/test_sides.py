"""One side of a map as a matrix: what it does to rows, however it is kept."""

import pytest
import torch

from hf_bico.core.sides import matrix, permutes, whole_side
from hf_bico.core.types import BilinearMap

D = 12
GENERATOR = torch.Generator().manual_seed(0)
ORDER = torch.eye(D, dtype=torch.float64)[torch.randperm(D, generator=GENERATOR)]
TURN = torch.linalg.qr(torch.randn(D, D, dtype=torch.float64, generator=GENERATOR))[0]
CENTRED = torch.eye(D, dtype=torch.float64) - 1 / D
"""What a gradient behind a LayerNorm determines."""
PADDED = torch.cat([ORDER, torch.zeros(3, D)])


@pytest.mark.parametrize(
    ("factor", "permuted"),
    [
        *((factor, True) for factor in (None, ORDER, ORDER @ CENTRED, PADDED, ORDER[:9])),
        *((factor, False) for factor in (TURN, TURN @ CENTRED, ORDER @ TURN[:, :9] @ TURN[:, :9].T)),
    ],
)
@pytest.mark.parametrize("side", ["out", "in"])
def test_a_side_is_the_matrix_that_its_rows_are_multiplied_by(factor, permuted, side):
    map_ = BilinearMap(*((factor, TURN) if side == "out" else (TURN, factor)))
    rows = torch.randn(5, D, dtype=torch.float64, generator=GENERATOR)
    assert torch.allclose(rows @ matrix(map_, side, D).T, whole_side(map_, side)(rows))
    assert permutes(map_, side, D) is permuted
