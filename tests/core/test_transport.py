"""What is told of a change that moved: shares of squared norms, and a delta that is one in any form."""

import pytest
import torch

from hf_bico.core.transport import transport
from hf_bico.core.types import BilinearMap, Pair, Site, Slice, Tokens


def site(name: str, d_out: int, d_in: int) -> Site:
    return Site(name, "only", 0, Slice(f"{name}.weight"), None, d_out, d_in, name, Tokens(1))


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_what_is_kept_is_a_share_of_the_squared_norm(scale):
    """Of τ = diag(3, 4) a map that drops the second direction keeps 9/25, whatever its own scale."""
    pair, tau = Pair(site("a", 2, 2), site("b", 2, 2)), {"a.weight": torch.diag(torch.tensor([3.0, 4.0]))}
    drops = BilinearMap(torch.eye(2), torch.diag(torch.tensor([1.0, 0.0])), scale=scale)
    result = transport(tau, [(pair, drops)], {"b.weight": torch.zeros(2, 2)})
    (moved,) = result.moved
    assert (moved.norm, moved.kept) == (pytest.approx(5.0), pytest.approx(9 / 25))
    assert torch.allclose(result.delta["b.weight"], scale * torch.diag(torch.tensor([3.0, 0.0])))
