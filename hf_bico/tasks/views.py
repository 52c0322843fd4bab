"""Other views of a sample, which leave its answer: of an image a crop, a turn, its brightness, noise; of a text words
that are dropped, and a span of it; of a sound its loudness, noise.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import pi
from operator import length_hint
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from hf_bico.core.collect import Batch, samples_in
from hf_bico.core.errors import PortError
from hf_bico.families.sights import Sight
from hf_bico.families.sounds import Sound
from hf_bico.tasks.samples import Sample

TURN, SHIFT, ZOOM, BRIGHTNESS, NOISE = 10.0, 0.08, 0.2, 0.2, 0.02
"""Of images: the most degrees, shares of a side, of a side that is cropped, of brightness; the noise's deviation."""
SPREAD = 0.1
"""Of pixels that a script has normalised: the noise's deviation in theirs."""
DROPPED, SPAN = 0.1, 0.7
"""Of texts: the share of words that is dropped, and the least share of it that a span keeps."""


def seed_of(sample: int, view: int) -> int:
    """Return the seed of one view of one sample; torch's generator on the CPU looks at 32 bits of it alone."""
    return (view * 2_654_435_761 + sample) % 2**32


def pixels_seen(pixels: Tensor, seeds: list[int]) -> Tensor:
    """Return another view of each of some images of one size, (n, C, H, W) in [0, 1]: cropped, turned and shifted a
    little, brighter or darker, with noise. They are not flipped: a letter or a road sign is another one then.
    """
    moved, noise = _moved(pixels, seeds)
    return (moved + NOISE * noise).clamp(0, 1)


def _moved(pixels: Tensor, seeds: list[int]) -> tuple[Tensor, Tensor]:
    """Return images (n, C, H, W) cropped, turned, shifted and lit, and standard normal noise of their shape."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    drawn = torch.stack([torch.rand(5, generator=each) for each in generators])
    angle = (2 * drawn[:, 0] - 1) * TURN * pi / 180
    zoom, shift = 1 - ZOOM * drawn[:, 1], (2 * drawn[:, 2:4] - 1) * 2 * SHIFT
    height, width = pixels.shape[-2:]
    sine = zoom * angle.sin()
    rows = [
        torch.stack([zoom * angle.cos(), -sine * height / width, shift[:, 0]], -1),
        torch.stack([sine * width / height, zoom * angle.cos(), shift[:, 1]], -1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1).to(pixels), list(pixels.shape), align_corners=False)
    moved = F.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)
    light = (1 + BRIGHTNESS * (2 * drawn[:, 4] - 1))[:, None, None, None]
    noise = torch.stack([torch.randn(pixels.shape[1:], generator=each) for each in generators])
    return moved * light.to(pixels), noise.to(pixels)


def image_seen(image: Image.Image, seed: int) -> Image.Image:
    """Return another view of an RGB image, of its size."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    seen = (pixels_seen(pixels, [seed])[0].permute(1, 2, 0) * 255).round().to(torch.uint8)
    return Image.fromarray(seen.numpy())


def text_seen(text: str, seed: int) -> str:
    """Return a span of a text's words with some of them dropped; at least one is left."""
    words = text.split()
    generator = torch.Generator().manual_seed(seed)
    share, first = torch.rand(2, generator=generator).tolist()
    count = max(1, round(len(words) * (SPAN + (1 - SPAN) * share)))
    start = int(first * (len(words) - count + 1))
    span = words[start : start + count]
    kept = [
        word
        for word, drawn in zip(span, torch.rand(count, generator=generator).tolist(), strict=True)
        if drawn >= DROPPED
    ]
    return " ".join(kept or span)


LOUDNESS, HISS = 0.2, 0.05
"""Of sounds: the most share by which they are louder, and the noise's deviation in theirs."""


def sound_seen(sound: Sound, seed: int) -> Sound:
    """Return another view of a sound, of its length."""
    generator = np.random.default_rng(seed)
    gain, noise = 1 + LOUDNESS * generator.uniform(-1, 1), generator.standard_normal(len(sound.samples))
    samples = gain * (sound.samples + HISS * sound.samples.std() * noise)
    return replace(sound, samples=samples.astype(np.float32))


def sample_seen(sample: Sample, seed: int) -> Sample:
    """Return another view of a sample; a prompt and a chat stay, for every word of theirs may be the question."""
    return replace(sample, inputs=_seen(sample.inputs, seed, asked=_is_in_the_words(sample.label)))


def _is_in_the_words(label: Any) -> bool:
    """Return whether an answer depends on every word: a completion, or places of a text."""
    return isinstance(label, str) or (isinstance(label, tuple) and any(isinstance(part, tuple) for part in label))


def _seen(inputs: Any, seed: int, *, asked: bool) -> Any:
    if isinstance(inputs, Image.Image):
        return image_seen(inputs, seed)
    if isinstance(inputs, Sound):
        return sound_seen(inputs, seed)
    if isinstance(inputs, Sight):
        return replace(inputs, images=tuple(image_seen(image, seed) for image in inputs.images))
    if isinstance(inputs, str) and not asked:
        return text_seen(inputs, seed)
    if isinstance(inputs, tuple) and not asked and all(isinstance(text, str) for text in inputs):
        return tuple(text_seen(text, seed) for text in inputs)
    return inputs


@dataclass(frozen=True)
class Seen:
    """One view of a script's own batches: of every image in them, alike for both models; the rest of a batch stays."""

    batches: Iterable[Batch]
    number: int
    """Which view."""

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches; a sample's view does not depend on the batch that it is in.

        Raises:
            PortError: a batch has no images.
        """
        first = 0
        for batch in self.batches:
            base, target = (_part_seen(part, first, self.number) for part in (batch.base, batch.target))
            yield Batch(base, target, batch.meeting)
            first += samples_in(batch.base) or 0

    def __length_hint__(self) -> int:
        return length_hint(self.batches)


def _part_seen(part: Any, first: int, view: int) -> Any:
    """Return one model's part of a batch with its images, of the samples from number `first` on, seen again."""
    several = part if isinstance(part, tuple | list) else [part]
    items = dict(part) if isinstance(part, Mapping) else dict(enumerate(several))
    images = {key: item for key, item in items.items() if _is_images(item)}
    if not images:
        raise PortError("views are of images, and these batches have none: leave views out")
    for key, item in images.items():
        wide = item.to(torch.promote_types(item.dtype, torch.float32))
        moved, noise = _moved(wide, [seed_of(first + i, view) for i in range(len(item))])
        items[key] = (moved + SPREAD * wide.std(dim=(1, 2, 3), keepdim=True) * noise).to(item)
    if isinstance(part, Mapping):
        return items
    return tuple(items.values()) if isinstance(part, tuple | list) else items[0]


def _is_images(item: Any) -> bool:
    return isinstance(item, Tensor) and item.ndim == 4 and item.is_floating_point()
