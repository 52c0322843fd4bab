"""Other views of a sample."""

from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from hf_bico.families.feeding import Encoded
from hf_bico.tasks.batches import Batches
from hf_bico.tasks.samples import Sample
from hf_bico.tasks.views import image_seen, pixels_seen, sample_seen, seed_of, text_seen


def picture() -> torch.Tensor:
    """A bright left half."""
    pixels = torch.zeros(1, 3, 24, 32)
    pixels[..., :16] = 0.8
    return pixels


def test_views_differ_by_number_and_sample_and_come_again():
    pixels = picture().expand(2, -1, -1, -1)
    one, other = (pixels_seen(pixels, [seed_of(i, view) for i in (0, 1)]) for view in (0, 1))
    assert torch.equal(one, pixels_seen(pixels, [seed_of(i, 0) for i in (0, 1)]))
    assert torch.equal(one[1:], pixels_seen(pixels[1:], [seed_of(1, 0)]))
    assert not torch.equal(one[0], one[1]) and not torch.equal(one, other)
    assert len({seed_of(i, view) for i in range(50) for view in range(50)}) == 2500


def test_images_are_not_flipped_and_stay_what_they_are():
    for view in range(40):
        seen = pixels_seen(picture(), [seed_of(0, view)])
        assert seen.shape == picture().shape and seen.min() >= 0 and seen.max() <= 1
        left, right = seen[..., :8].mean(), seen[..., 24:].mean()
        assert left > 0.5 > 0.1 > right
        assert abs(seen - picture()).mean() > 0.005
    image = Image.fromarray((picture()[0].permute(1, 2, 0) * 255).byte().numpy())
    seen = image_seen(image, 3)
    assert (seen.size, seen.mode) == (image.size, image.mode)
    assert abs(np.array(seen) / 255 - pixels_seen(picture(), [3])[0].permute(1, 2, 0).numpy()).max() < 0.01


def test_texts_keep_a_span_in_order():
    words = [f"w{i:02}" for i in range(40)]
    lengths = set()
    for seed in range(40):
        seen = text_seen(" ".join(words), seed).split()
        places = [words.index(word) for word in seen]
        assert places == sorted(places) and len(set(places)) == len(places)
        assert places[-1] - places[0] >= 0.7 * 40 - 6
        lengths.add(len(places))
    assert len(lengths) > 5 and max(lengths) < 40
    assert text_seen("one", 3) == "one"


def test_a_question_stays_whole():
    text = " ".join(map(str, range(30)))
    assert sample_seen(Sample(text, 1), 0).inputs != text
    assert all(seen != text for seen in sample_seen(Sample((text, text), 1), 0).inputs)
    for kept in (Sample(text, "answer"), Sample(({"role": "user", "content": text},), None)):
        assert sample_seen(kept, 0) == kept


def test_both_models_see_one_view_whatever_the_batches():
    def side() -> SimpleNamespace:
        def encode(some):
            return Encoded({"images": torch.stack([torch.from_numpy(np.array(each.inputs)) for each in some])}, None)

        return SimpleNamespace(encode=encode, side=SimpleNamespace(ear=None))

    images = [Image.fromarray((picture()[0].permute(1, 2, 0) * 255).byte().numpy()) for _ in range(5)]
    samples = [Sample(image, 0) for image in images]

    def seen(size: int, view: int) -> torch.Tensor:
        parts = list(Batches(samples, (side(), side()), size).view(view))
        assert all(torch.equal(part.base.inputs["images"], part.target.inputs["images"]) for part in parts)
        return torch.cat([part.target.inputs["images"] for part in parts])

    assert torch.equal(seen(2, 1), seen(5, 1))
    assert not torch.equal(seen(2, 1), seen(2, 2))
