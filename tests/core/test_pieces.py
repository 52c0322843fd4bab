"""Batches that are passed in pieces."""

import torch
from support.twins import Samples, tiny_clip

from hf_bico import BiCo
from hf_bico.core import collect as collecting
from hf_bico.core import pieces
from hf_bico.core.chain import fill
from hf_bico.core.collect import Batch, Side
from hf_bico.core.moments import Statistics
from hf_bico.core.pairing import pair_sites
from hf_bico.families import family_of
from hf_bico.families.feeding import Encoded


def statistics(batches, loss, scores=None, wanted=None):
    a, b = tiny_clip(24, 2), tiny_clip(32, 2, seed=1)
    pairs = pair_sites(family_of(a).sites(a), family_of(b).sites(b))
    return fill(
        Statistics(pairs, wanted or BiCo().wanted), Side(a, loss, scores), Side(b, loss, scores), pairs, batches
    )


def test_pieces_change_no_sum(monkeypatch):
    samples, passed = Samples.make(11), []

    @pieces.by_sample
    def loss(model, batch):
        passed.append(len(batch[1]))
        return samples.loss(model, batch)

    whole = statistics(samples.batches(11), loss)
    assert passed == [11, 11]
    passed.clear()
    monkeypatch.setattr(pieces, "ROWS", 3 * 17 + 16)
    cut = statistics(samples.batches(11), loss)
    assert passed == [3] * 6 + [2] * 2  # each piece by both models before the next
    for (name, one), (_, other) in zip(whole.parts(), cut.parts(), strict=True):
        assert one.rows == other.rows
        torch.testing.assert_close(one.cross, other.cross, msg=name)


def test_a_sample_has_the_same_cotangent_in_whatever_piece(monkeypatch):
    samples, wanted = Samples.make(7), BiCo(label_free=2).wanted
    loss, scores = pieces.by_sample(samples.loss), pieces.by_sample(lambda model, batch: model.encode_image(batch[0]))
    whole = statistics(samples.batches(7), loss, scores, wanted)
    monkeypatch.setattr(pieces, "ROWS", 40)
    cut = statistics(samples.batches(7), loss, scores, wanted)
    assert whole.samples == cut.samples == 7
    for (name, one), (_, other) in zip(whole.parts(), cut.parts(), strict=True):
        torch.testing.assert_close(one.cross, other.cross, msg=name)


def test_a_loss_that_is_not_said_to_be_a_sum_is_not_cut(monkeypatch):
    samples, passed = Samples.make(6), []

    def loss(model, batch):
        passed.append(len(batch[1]))
        return samples.loss(model, batch)

    monkeypatch.setattr(pieces, "ROWS", 17)
    statistics(samples.batches(6), loss)
    assert passed == [6, 6]


def test_what_cannot_be_told_apart_is_not_cut():
    x, other = torch.zeros(6, 3), torch.zeros(5)
    assert [len(part["x"]) for part in pieces.cut({"x": x}, 6, 4)] == [4, 2]
    assert [len(part) for part in pieces.cut([x, x], 6, 2)] == [2, 2, 2]
    for part in ((x, other), {"x": x, "n": 6}, torch.tensor(1.0), "text", (x, None)):
        assert pieces.cut(part, 6, 2) is None
    assert len(collecting._pieces(Batch((x, x), (x, x)), 2)) == 3
    assert len(collecting._pieces(Batch((x, x), (x, x), {"text": torch.zeros(6, 2, 2)}), 2)) == 1


def test_an_encoded_batch_is_cut_with_its_labels():
    images, labels = torch.randn(5, 3, 4, 4), torch.arange(5)
    parts = pieces.cut(Encoded({"images": images}, labels), 5, 2)
    assert [part.labels.tolist() for part in parts] == [[0, 1], [2, 3], [4]]
    assert torch.equal(torch.cat([part.inputs["images"] for part in parts]), images)
    assert [part.labels for part in pieces.cut(Encoded({"images": images}), 5, 3)] == [None, None]
    assert pieces.cut(Encoded({"images": images}, labels, notes=["a"] * 5), 5, 2) is None


def test_texts_have_no_fixed_number_of_rows():
    a = tiny_clip(24, 1)
    pairs = pair_sites(family_of(a).sites(a), family_of(a).sites(a))
    assert pieces.piece_size(pairs, "cpu") == pieces.ROWS // 17
    assert pieces.piece_size(pairs, "meta") == pieces.ROWS // 17
    assert pieces.piece_size([], "cpu") is None
