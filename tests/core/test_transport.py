"""What is told of a change that moved: shares of squared norms, and a delta that is one in any form."""

from math import sqrt

import pytest
import torch

from hf_bico.core.errors import PortError
from hf_bico.core.transport import check_fine_tune, cosine, transport
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


def two(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {f"{name}.weight": torch.randn(40, 50, generator=generator) for name in "ab"}


SITES = [site("a", 40, 50), site("b", 40, 50)]


def test_the_cosine_is_of_all_weights_as_one_vector():
    base, tau = two(0), two(1)
    before, after = (
        torch.cat([each.flatten() for each in d.values()]) for d in (base, {k: base[k] + tau[k] for k in base})
    )
    assert cosine(tau, base, SITES) == pytest.approx(float(torch.cosine_similarity(before, after, dim=0)), rel=1e-5)


@pytest.mark.parametrize("size", [0.02, 1.0, 1.5, 5.0])
def test_a_fine_tune_may_be_larger_than_its_base(size):
    """‖τ‖ alone is no reason to doubt: of unrelated models it is √2 of the base, of a trained one it may be more."""
    base, other = two(0), two(1)
    tau = {key: size * tensor for key, tensor in other.items()}
    assert check_fine_tune(tau, base, SITES) == pytest.approx(size, rel=0.05)
    assert cosine(tau, base, SITES) == pytest.approx(1 / sqrt(1 + size**2), abs=0.05)


def test_weights_that_have_nothing_in_common_are_refused_unless_trusted():
    base, other = two(0), two(1)
    tau = {key: other[key] - base[key] for key in base}
    with pytest.raises(
        PortError, match=r"not the base of that fine-tune: the cosine of their weights is -?0\.0"
    ) as found:
        check_fine_tune(tau, base, SITES)
    assert "trust_base=" in str(found.value)
    assert check_fine_tune(tau, base, SITES, trusted=True) == pytest.approx(sqrt(2), rel=0.05)
    with pytest.raises(PortError, match="nothing to port"):
        check_fine_tune({key: 0 * tensor for key, tensor in tau.items()}, base, SITES, trusted=True)
