"""Images seen again: turned, scaled and moved a little, in another light and with noise."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_bico.core.collect import Batch, samples_in
from hf_bico.core.errors import PortError

TURN, SCALE, SHIFT, LIGHT, NOISE = 0.17, 0.1, 0.1, 0.15, 0.1
"""At most: radians, share of the size, share of half the side, share of the pixels' values; share of their spread."""


def viewed(batches: Iterable[Batch], view: int) -> Iterator[Batch]:
    """Yield the batches with every image changed at random, alike for both models; the rest of a batch stays.

    A change follows from the number of the sample and that of the view alone, not from the batch a sample is in.

    Raises:
        PortError: a batch has no images.
    """
    first = 0
    for batch in batches:
        yield Batch(_part(batch.base, first, view), _part(batch.target, first, view), batch.meeting)
        first += samples_in(batch.base) or 0


def _part(part: Any, first: int, view: int) -> Any:
    """Return one model's part of a batch with its images changed."""
    if _is_images(part):
        return _changed(part, first, view)
    items = dict(part) if isinstance(part, Mapping) else dict(enumerate(part)) if isinstance(part, tuple | list) else {}
    if not any(map(_is_images, items.values())):
        raise PortError("views are of images, and these samples have none: leave views out")
    made = {key: _changed(item, first, view) if _is_images(item) else item for key, item in items.items()}
    return made if isinstance(part, Mapping) else tuple(made.values())


def _is_images(item: Any) -> bool:
    return isinstance(item, Tensor) and item.ndim == 4 and item.is_floating_point()


def _changed(images: Tensor, first: int, view: int) -> Tensor:
    """Return images (n, C, H, W) of the samples from number `first` on."""
    return torch.stack([_one(image, (first + i << 16) + view) for i, image in enumerate(images)])


def _one(image: Tensor, seed: int) -> Tensor:
    """Return one image (C, H, W), changed as the seed says."""
    generator = torch.Generator().manual_seed(seed)
    turn, scale, right, down, light = (2 * torch.rand(5, generator=generator) - 1).tolist()
    size = 1 + SCALE * scale
    cos, sin = size * math.cos(TURN * turn), size * math.sin(TURN * turn)
    affine = torch.tensor([[cos, -sin, SHIFT * right], [sin, cos, SHIFT * down]])
    wide = image[None].to(torch.promote_types(image.dtype, torch.float32))
    grid = F.affine_grid(affine[None].to(wide), list(wide.shape), align_corners=False)
    moved: Tensor = F.grid_sample(wide, grid, padding_mode="border", align_corners=False)[0]
    noise = torch.randn(image.shape, generator=generator).to(wide)
    made: Tensor = moved * (1 + LIGHT * light) + NOISE * wide.std() * noise
    return made.to(image)
