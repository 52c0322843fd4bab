"""Pictures of every kind become the 8-bit RGB that the same picture has in 8 bits."""

import io

import datasets
import numpy as np
import pytest
from PIL import Image
from support.datasets import opened

from hf_bico.core.errors import PortError
from hf_bico.tasks.pictures import as_rgb
from hf_bico.tasks.samples import read_task, samples_of

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOUR = np.stack([GREY, GREY.T, 255 - GREY], -1)
WHITE = {"I;16": 257, "I": 257, "F": 1 / 255}


@pytest.mark.parametrize("mode", WHITE)
def test_more_bits_are_scaled_not_cut_off(mode):
    kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
    wide = Image.fromarray((GREY.astype(float) * WHITE[mode]).astype(kind))
    assert wide.mode == mode
    assert np.array_equal(np.asarray(as_rgb(wide))[..., 0], GREY)


def test_numbers_that_fit_8_bits_stay():
    assert np.array_equal(np.asarray(as_rgb(Image.fromarray(GREY.astype(np.int32))))[..., 1], GREY)


@pytest.mark.parametrize("mode", ["RGBA", "P", "LA", "L", "1"])
def test_other_modes_are_as_pillow_reads_them(mode):
    image = Image.fromarray(COLOUR).convert(mode)
    assert np.array_equal(np.asarray(as_rgb(image)), np.asarray(image.convert("RGB")))


def test_a_print_in_cmyk_keeps_its_colours():
    image = Image.fromarray(COLOUR)
    assert np.abs(np.asarray(as_rgb(image.convert("CMYK"))).astype(int) - COLOUR).max() <= 2


def written(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    place = io.BytesIO()
    image.save(place, kind, **options)
    return place.getvalue()


def of(folder, pictures: list[bytes]):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = {"image": [{"bytes": each, "path": None} for each in pictures], "label": [0] * len(pictures)}
    (folder / "data").mkdir(parents=True)
    place = folder / "data" / "train-00000-of-00001.parquet"
    datasets.Dataset.from_dict(rows, features=features.copy()).to_parquet(place)
    dataset = opened(folder)
    split = dataset.split("train")
    return split, read_task(dataset, split, {}, None)


def test_a_picture_taken_sideways_is_turned_and_a_truncated_one_is_named(tmp_path):
    exif = Image.Exif()
    exif[Image.ExifTags.Base.Orientation] = 6  # the camera was held a quarter turn to the left
    whole = written(Image.fromarray(COLOUR))
    split, task = of(tmp_path, [whole, written(Image.fromarray(COLOUR), exif=exif), whole[: len(whole) // 2]])
    upright, turned = samples_of(split, [0, 1], task)
    assert np.array_equal(np.asarray(turned.inputs), np.rot90(np.asarray(upright.inputs), -1))
    with pytest.raises(PortError, match="the image of row 2 cannot be read"):
        list(samples_of(split, [0, 2], task))
