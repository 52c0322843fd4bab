"""Laws of the parts: maps, their filling, and tokens that meet."""

import torch
import torch.nn.functional as F
from scipy.linalg import orthogonal_procrustes

from hf_bico.core import linalg
from hf_bico.core.moments import CrossMoment, resampling
from hf_bico.core.types import Tokens


def free_maps_are_scipys() -> None:
    """Completed freely, a map is orthogonal to full rank; where all is determined, it is SciPy's, cut or not."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(40, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    theirs = torch.from_numpy(orthogonal_procrustes(a.numpy(), b.numpy())[0]).T
    for options in ({}, {"free": True}, {"fill": torch.ones(6, 6, dtype=torch.float64)}):
        assert torch.allclose(linalg.polar_factor(b.T @ a, **options).factor, theirs)
    starved = b[:3].T @ a[:3]
    freed = linalg.polar_factor(starved, free=True)
    assert torch.allclose(freed.factor @ freed.factor.T, torch.eye(6, dtype=torch.float64))
    assert freed.rank == 3
    assert torch.allclose((freed.factor * starved).sum(), torch.linalg.matrix_norm(starved, "nuc"))


def filling_leaves_what_is_determined() -> None:
    """A fill serves the undetermined directions alone, and there it is the Procrustes map of the other moment."""
    generator = torch.Generator().manual_seed(1)
    a, b, x, y = (
        torch.randn(n, d, generator=generator, dtype=torch.float64) for n, d in ((4, 8), (4, 10), (40, 8), (40, 10))
    )
    cross, fill = b.T @ a, y.T @ x
    cut, filled = linalg.polar_factor(cross, rtol=1e-9), linalg.polar_factor(cross, rtol=1e-9, fill=fill)
    u, v = (torch.linalg.qr(rows.T)[0] for rows in (b, a))
    assert torch.allclose(filled.factor @ v, cut.factor @ v)
    assert torch.allclose(u.T @ filled.factor, u.T @ cut.factor)
    assert torch.allclose(filled.factor.T @ filled.factor, torch.eye(8, dtype=torch.float64))
    outside_u, outside_v = (torch.linalg.qr(q, mode="complete")[0][:, 4:] for q in (u, v))
    rest = outside_u.T @ fill @ outside_v  # in a frame of the complements, an ordinary Procrustes problem
    p, _, qt = torch.linalg.svd(rest, full_matrices=False)
    assert torch.allclose(outside_u.T @ filled.factor @ outside_v, p @ qt)
    assert filled.rank == cut.rank == 4


def tokens_meet_on_the_finer_grid() -> None:
    """Resizing A's tokens to B's grid, class token apart, is what the moments hold, whichever side is resized."""
    generator = torch.Generator().manual_seed(0)
    for small, large in (((3, 4), (6, 5)), ((6, 5), (3, 4))):
        a = torch.randn(2, 1 + small[0] * small[1], 6, generator=generator, dtype=torch.float64)
        b = torch.randn(2, 1 + large[0] * large[1], 7, generator=generator, dtype=torch.float64)
        grid = a[:, 1:].transpose(1, 2).unflatten(2, small)
        resized = F.interpolate(grid, size=large, mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)
        resized = torch.cat([a[:, :1], resized], dim=1)
        moment = CrossMoment()
        moment.add(a, b, resampling(Tokens(1, small), Tokens(1, large)))
        expected = b.flatten(0, 1).T @ resized.flatten(0, 1)
        assert torch.allclose(moment.cross, expected, rtol=1e-5, atol=1e-6 * expected.norm())
        assert abs(moment.energy_a / float(resized.square().sum()) - 1) < 1e-6
