"""What of two models can be compared, and rounding between their dtypes told from training."""

import pytest
import torch

from hf_bico.core.account import account
from hf_bico.core.difference import Difference
from hf_bico.core.errors import PortError
from hf_bico.core.notes import listening, note, noted
from hf_bico.core.rounding import is_rounding
from hf_bico.core.transport import check_fine_tune
from hf_bico.core.types import Site, Slice, Tokens

SITE = Site("q", "q", 0, Slice("q.weight"), None, 8, 8, "q", Tokens(1))
BASE = {"q.weight": torch.eye(8), "embed.weight": torch.arange(20.0).view(5, 4), "pos": torch.zeros(1, 5, 4)}


def moved(**changed: torch.Tensor) -> dict[str, torch.Tensor]:
    return BASE | {"q.weight": BASE["q.weight"] + 0.1} | {name.replace("_", "."): t for name, t in changed.items()}


@pytest.mark.parametrize("rows", [3, 8])
def test_a_vocabulary_of_another_size_is_left_with_its_shapes_and_the_rows_that_both_have(rows):
    other = torch.zeros(rows, 4)
    both = min(rows, 5)
    other[:both] = BASE["embed.weight"][:both] + 1
    tau = Difference(moved(embed_weight=other), BASE, must={"q.weight"})
    assert set(tau) == {"q.weight", "pos"} and len(tau) == 2 and "embed.weight" not in tau
    assert torch.equal(tau.shared("embed.weight"), torch.ones(both, 4))
    assert torch.equal(tau.filled("embed.weight"), torch.arange(5)[:, None].expand(5, 4).lt(both).float())
    ledger = account(tau, [], lambda key: "it belongs to the vocabulary", [SITE])
    left = {entry.key: entry for entry in ledger.left}
    assert left["embed.weight"].reason.startswith("it belongs to the vocabulary: ")
    assert f"({rows}, 4) in the fine-tuned model, (5, 4) in the base" in left["embed.weight"].reason
    assert left["embed.weight"].norm == pytest.approx((4 * both) ** 0.5)
    with pytest.raises(KeyError):
        tau["embed.weight"]


def test_positions_of_another_grid_are_left_and_a_linear_map_of_another_shape_is_another_model():
    tau = Difference(moved(pos=torch.zeros(1, 17, 4)), BASE, must={"q.weight"})
    assert tau.apart == {"pos": "(1, 17, 4) in the fine-tuned model, (1, 5, 4) in the base"}
    assert tau.shared("pos") is None and tau.filled("pos") is None
    with pytest.raises(PortError, match=r"not a fine-tune of this base.*q.weight is \(9, 8\)"):
        Difference(BASE | {"q.weight": torch.zeros(9, 8)}, BASE, must={"q.weight"})


def test_rows_of_positions_in_two_grids_do_not_meet():
    generator = torch.Generator().manual_seed(0)
    base = {"pos": torch.randn(5, 16, generator=generator)}
    tau = Difference({"pos": torch.randn(17, 16, generator=generator)}, base, must=())
    assert tau.shared("pos") is None and tau.filled("pos") is None


def rounded(kind: torch.dtype, seed: int = 0) -> torch.Tensor:
    exact = torch.randn(64, 64, generator=torch.Generator().manual_seed(seed)) * 10.0 ** torch.arange(-4, 4).repeat(8)
    return exact.to(kind)


HALVES = (torch.float16, torch.bfloat16)


@pytest.mark.parametrize("base", [torch.float32, *HALVES])
@pytest.mark.parametrize("tuned", HALVES)
def test_one_tensor_in_two_dtypes_has_no_change(tuned, base):
    a, b = rounded(tuned), rounded(base)
    assert is_rounding(a, b) == (tuned != base)
    tau = Difference({"w": a}, {"w": b})
    assert not tau["w"].any()
    assert ("w" in tau.rounded) == (tuned != base)


@pytest.mark.parametrize(("tuned", "base"), [(torch.bfloat16, torch.float16), (torch.float16, torch.float32)])
def test_a_trained_tensor_keeps_its_change_in_any_dtype(tuned, base):
    """One element that moved by more than rounding is enough."""
    a, b = rounded(torch.float32), rounded(base)
    a[3, 7] += 0.02 * a[3, 7].abs()
    tau = Difference({"w": a.to(tuned)}, {"w": b})
    assert float(tau["w"][3, 7].abs()) > 0 and not tau.rounded


@pytest.mark.parametrize("base", [torch.float32, torch.float16])
def test_what_was_rounded_before_it_was_saved_wider_has_no_change(base):
    """Loaded in bfloat16, and saved in float32."""
    a, b = rounded(torch.bfloat16).float(), rounded(base)
    tau = Difference({"w": a}, {"w": b})
    assert not tau["w"].any() and "w" in tau.rounded
    a[3, 7] *= 1 + 2**-6
    assert Difference({"w": a}, {"w": b})["w"].any()


def test_gains_that_begin_at_one_keep_a_small_change():
    ones = torch.ones(16)
    assert not is_rounding(ones + 1e-3, ones) and not is_rounding((ones + 2**-7).bfloat16().float(), ones.bfloat16())


def test_tensors_that_are_the_same_are_not_counted_as_rounded():
    tau = Difference({"w": torch.ones(4).bfloat16()}, {"w": torch.ones(4)})
    assert not tau["w"].any() and not tau.rounded


def test_a_training_below_the_rounding_of_one_dtype_is_a_change_in_it():
    a = rounded(torch.bfloat16)
    b = a.clone()
    b[0, 0] *= 1 + 2**-7
    assert not is_rounding(a, b)
    assert Difference({"w": a}, {"w": b})["w"].any()


def test_what_differs_is_said_where_no_linear_map_does():
    base = BASE | {"blocks.0.norm.weight": torch.ones(8), "blocks.1.norm.weight": torch.ones(8)}
    norms = {key: tensor + 0.05 if "norm" in key else tensor for key, tensor in base.items()}
    assert check_fine_tune(Difference(norms, base), base, [SITE]) == 0  # norms move beside the maps
    other = {**base, "blocks.0.pos": torch.zeros(3, 3), "blocks.1.pos": torch.zeros(3, 3)}
    sizes = {key: torch.ones(5, 3) if "pos" in key else tensor for key, tensor in other.items()}
    with pytest.raises(
        PortError,
        match=r"nothing in the fine-tuned model differs from its base; .* blocks\.\*\.pos, pos alone.*train these",
    ):
        check_fine_tune(Difference(sizes, other, must=()), other, [SITE])
    with pytest.raises(PortError, match=r"score\.weight alone.*fit a head to the new base"):
        check_fine_tune(Difference(base, base), base, [SITE], head=["score.weight"])
    half = {key: tensor.half() for key, tensor in (base | {"q.weight": torch.full((8, 8), 0.1)}).items()}
    wide = base | {"q.weight": torch.full((8, 8), 0.1)}
    with pytest.raises(PortError, match=r"its base in another dtype.*no more than rounding \(at most"):
        check_fine_tune(Difference(half, wide), wide, [SITE])
    with pytest.raises(PortError, match="are the same"):
        check_fine_tune(Difference(base, base), base, [SITE])


def test_a_note_is_heard_once_by_each_who_listens():
    heard: list[str] = []
    note("nobody listens")
    with listening(heard.append), noted() as lines:
        note("a")
        note("a")
        note("b")
    assert heard == lines == ["a", "b"]
    note("nobody any more")
    assert heard == ["a", "b"]
