"""Images seen again: alike for both models and in whatever batch, in their sample's fold, and of images alone."""

import pytest
import torch
from support.laws.models import job, noise_tau, pairs, samples, statistics

from hf_bico import PortError
from hf_bico.core.collect import Batch
from hf_bico.core.methods import method_of
from hf_bico.core.side_by_side import SideBySide
from hf_bico.tasks.views import Seen


def images(batches):
    return torch.cat([batch.base[0] for batch in batches])


def test_a_view_is_a_little_change_that_no_batch_matters_to():
    plain = samples(6)
    first, again, second = (images(Seen(plain.batches(size), k)) for size, k in ((6, 0), (4, 0), (6, 1)))
    assert torch.equal(first, again)
    assert not torch.allclose(first, second, atol=0.1)
    seen = images(plain.batches(6))
    assert 0 < (first - seen).square().mean() < 2 * seen.var()


def test_both_models_see_the_same_view():
    (batch,) = samples(3).batches(3)
    (made,) = Seen([Batch({"pixel_values": batch.base[0], "labels": batch.base[1]}, batch.target)], 0)
    assert torch.equal(made.base["pixel_values"], made.target[0])
    assert made.base["labels"] is batch.base[1]


def test_a_view_is_held_out_with_its_sample():
    work = job("own", "wide", noise_tau("own"), n=5, batch=3)
    with SideBySide(work, statistics("own", "wide", 5, 3), views=2) as passes:
        sites = next(iter(passes))
        by_name = {pair.target.name: pair for pair in pairs("own", "wide")}
        found = [rows.sample.unique().tolist() for rows in passes.rows([by_name[site.name] for site in sites])]
    assert found == [[0, 1, 2], [3, 4]] * 3


def test_samples_without_images_are_refused():
    with pytest.raises(PortError, match="views are of images"):
        list(Seen([Batch({"input_ids": torch.ones(2, 3)}, torch.ones(2, 3))], 0))
    with pytest.raises(PortError, match="0 or more"):
        method_of("response", ["views=-1"])
