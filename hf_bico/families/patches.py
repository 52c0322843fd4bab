"""Which rows of images meet: those of the patches that lie at the same place of the image."""

from collections.abc import Callable, Mapping, Sequence
from math import isqrt
from typing import NamedTuple

import torch
from torch import Tensor

from hf_bico.core.errors import PortError
from hf_bico.core.linalg import grid_resample
from hf_bico.families.feeding import TEXT, Encoded
from hf_bico.families.layout import MERGED, PATCHES


class Patches(NamedTuple):
    """The tokens [first, last) of a row that stand for an image."""

    first: int
    last: int
    grid: tuple[int, int] | None
    """How they lie in the image; None where that is not known, or tokens of another kind are among them."""
    cut: tuple[int, int] | None = None
    """Height and width of the image in patches, of a model that takes images of any size."""

    @property
    def tokens(self) -> int:
        return self.last - self.first


class Shown(NamedTuple):
    """Where the images of a sample lie in its row."""

    order: tuple[int, ...]
    """The numbers of the sample's texts and images as they come in the row."""
    images: tuple[Patches, ...]


def patches_of(
    ids: Sequence[int], offsets: Sequence[tuple[int, int]], span: tuple[int, int], wanted: set[int], number: int
) -> Patches:
    """Return the tokens of an image, which lie in the characters `span`."""
    own = [
        place
        for place, (token, (start, end)) in enumerate(zip(ids, offsets, strict=True))
        if token in wanted and span[0] <= start < end <= span[1]
    ]
    if not own:
        raise PortError(f"sample {number} has an image that the processor gives no tokens")
    first, last = own[0], own[-1] + 1
    side = isqrt(len(own))
    return Patches(first, last, (side, side) if side**2 == len(own) == last - first else None)


def cut_into(image: Patches, cut: tuple[int, int], merge: int) -> Patches:
    """Return the tokens of an image that is cut into `cut` patches, merge × merge of which are one token."""
    grid = cut[0] // merge, cut[1] // merge
    return image._replace(grid=grid if grid[0] * grid[1] == image.tokens else None, cut=cut)


def meeting_of_images(found: Mapping[str, Tensor], a: Encoded, b: Encoded) -> dict[str, Tensor]:
    """Return P (n, T_B, T_A) of the texts with the rows of images by where they lie in the image; and, of models that
    take images of any size, P (1, ΣT_B, ΣT_A) of the patches of all images, where they are cut differently.

    Raises:
        PortError: an image has another number of rows in either model, and no grid says which of them meet.
    """
    text = found[TEXT].clone()
    for p, own, theirs in zip(text, a.shown, b.shown, strict=True):
        if own.order != theirs.order:
            raise PortError(
                "the two models' chat templates put images and texts in another order, so their rows cannot be paired"
            )
        for x, y in zip(own.images, theirs.images, strict=True):
            p[y.first : y.last] = 0
            p[:, x.first : x.last] = 0
            p[y.first : y.last, x.first : x.last] = _of_image(x, y)
    met = {**found, TEXT: text}
    cuts = [[image for each in side.shown for image in each.images] for side in (a, b)]
    if all(image.cut and image.grid for side in cuts for image in side):
        both = list(zip(*cuts, strict=True))
        if any(x.cut != y.cut for x, y in both):
            block_diag: Callable[..., Tensor] = torch.block_diag  # torch's has no annotations
            met[PATCHES] = block_diag(*(_of_patches(x, y) for x, y in both))[None]
            met[MERGED] = block_diag(*(_of_image(x, y) for x, y in both))[None]
    return met


def _of_image(x: Patches, y: Patches) -> Tensor:
    """Return P between the tokens of an image in A's text and in B's."""
    if x.grid is not None and y.grid is not None and x.grid != y.grid:
        return grid_resample(x.grid, y.grid, prefix=(0, 0))
    if x.tokens != y.tokens:
        raise PortError(
            f"an image is {x.tokens} tokens of the base's text and {y.tokens} of the target's, and lies on no grid in "
            "both, so its rows cannot be paired: give their processors the same sizes"
        )
    return torch.eye(y.tokens)


def _of_patches(x: Patches, y: Patches) -> Tensor:
    """Return P between the patches of an image as A cuts it and as B does, in the order in which they are merged."""
    assert x.cut and y.cut
    raster = grid_resample(x.cut, y.cut, prefix=(0, 0))
    return raster[_merged_order(y)][:, _merged_order(x)]


def _merged_order(image: Patches) -> Tensor:
    """Return the number in reading order of every patch: those that are merged follow one another."""
    assert image.cut and image.grid
    (height, width), (tall, wide) = image.cut, image.grid
    numbers = torch.arange(height * width).reshape(tall, height // tall, wide, width // wide)
    return numbers.permute(0, 2, 1, 3).flatten()
