"""Pictures of any kind as the 8-bit RGB that models take."""

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

WIDE = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
"""Pillow's modes of more than 8 bits a pixel, which its own conversion cuts off at 255."""


def as_rgb(image: Image.Image) -> Image.Image:
    """Return an image as 8-bit RGB, upright: of 16 bits it is scaled (/257), not cut off at 255.

    Whole numbers of more than 8 bits are taken for 16 where they fit; fractions are taken for shares of white where
    none is above 1. Transparency is dropped, as the libraries that models are trained with do.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode in WIDE:
        image = _in_8_bits(image)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _in_8_bits(image: Image.Image) -> Image.Image:
    """Return an image of one channel of more than 8 bits as one of 8."""
    values = np.asarray(image, dtype=np.float64)
    most = values.max(initial=0.0)
    if image.mode == "F":
        white = 1.0 if most <= 1 else 255.0 if most <= 255 else most
    elif image.mode == "I" and most <= 255:
        white = 255.0
    else:
        white = 65535.0 if most <= 65535 else most
    return Image.fromarray(np.clip(np.rint(values * (255 / white)), 0, 255).astype(np.uint8), "L")


def is_broken(error: Exception) -> bool:
    """Return whether an error is of an image's own bytes, not of the disk or the network that they come from."""
    words = ("truncated", "broken", "decod", "image file", "cannot identify", "unrecognized data stream")
    return isinstance(error, UnidentifiedImageError | SyntaxError) or any(word in str(error).lower() for word in words)
