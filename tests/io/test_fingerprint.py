"""Fingerprints: of what is stored, not of how."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import save_file

from hf_bico.core.errors import PortError
from hf_bico.io.checkpoints import SafeTensors
from hf_bico.io.fingerprint import LOOKED_AT, Fingerprint, fingerprint

TENSORS = {
    "b.weight": torch.arange(300.0).reshape(20, 15),
    "a": torch.randn(7, dtype=torch.bfloat16),
    "count": torch.tensor(3),
    "mask": torch.tensor([True, False]),
    "none": torch.zeros(0, 4),
    "small": torch.randn(5).to(torch.float8_e4m3fn),
}


def of(folder, tensors, *cuts, full=True):
    """The fingerprint of tensors saved in shards that begin at `cuts`."""
    names, paths = list(tensors), []
    for i, (start, stop) in enumerate(zip((0, *cuts), (*cuts, len(names)), strict=True)):
        paths.append(folder / f"{len(list(folder.iterdir()))}-{i}.safetensors")
        save_file({name: tensors[name] for name in names[start:stop]}, paths[-1])
    return fingerprint(SafeTensors(*paths), full)


def test_it_is_what_the_words_say(tmp_path):
    """By hand, for one small and one large tensor."""
    large = torch.arange(200, dtype=torch.float32)
    found = of(tmp_path, {"z": large, "y": torch.tensor([1.5, 2.5])})
    header = b"y\0F32\0(2,)\nz\0F32\0(200,)\n"
    start = hashlib.sha256(header).digest()
    y, z = torch.tensor([1.5, 2.5]).numpy().tobytes(), large.numpy()
    few = z[[i * 199 // 63 for i in range(64)]].tobytes()
    assert found == Fingerprint(
        hashlib.sha256(header).hexdigest(),
        hashlib.sha256(start + y + few).hexdigest(),
        hashlib.sha256(start + y + z.tobytes()).hexdigest(),
    )


def test_shards_and_order_do_not_matter(tmp_path):
    first = of(tmp_path, TENSORS)
    assert first == of(tmp_path, TENSORS, 1, 4) == of(tmp_path, dict(reversed(TENSORS.items())), 2)
    assert of(tmp_path, TENSORS, full=False) == Fingerprint(first.header, first.sample)


@pytest.mark.parametrize("name", TENSORS)
def test_every_tensor_counts(tmp_path, name):
    """Its name, its dtype, its shape and its last element."""
    first, tensor = of(tmp_path, TENSORS), TENSORS[name]
    others = [
        {**{key: t for key, t in TENSORS.items() if key != name}, f"{name}_": tensor},
        TENSORS | {name: tensor.to(torch.float64)},
        TENSORS | {name: tensor[None]},
    ]
    for other in others:
        found = of(tmp_path, other)
        assert not {found.header, found.sample, found.full} & {first.header, first.sample, first.full}
        assert not found.matches(first)
    if tensor.numel():
        changed = tensor.clone().double()
        changed.view(-1)[-1] = 1 - changed.view(-1)[-1]
        found = of(tmp_path, TENSORS | {name: changed.to(tensor.dtype)})
        assert found.header == first.header
        assert found.sample != first.sample
        assert not found.matches(first)


def test_only_the_full_one_sees_every_element(tmp_path):
    changed = TENSORS["b.weight"].clone()
    changed[0, 1] = 7  # 299 / 63 apart: not looked at
    assert LOOKED_AT == 64
    first, found = of(tmp_path, TENSORS), of(tmp_path, TENSORS | {"b.weight": changed})
    assert found.matches(first)
    assert not found.matches(first, full=True)
    assert first.matches(first, full=True)


def test_what_was_not_read_matches_nothing(tmp_path):
    first = of(tmp_path, TENSORS)
    bare = Fingerprint(first.header, first.sample)
    assert bare.matches(first)
    assert not bare.matches(first, full=True)
    assert not bare.matches(bare, full=True)


def test_records(tmp_path):
    for found in (of(tmp_path, TENSORS), of(tmp_path, TENSORS, full=False)):
        assert Fingerprint.of_record(json.loads(json.dumps(found.record()))) == found


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"header": "0" * 64},
        {"header": "0" * 64, "sample": 3},
        {"header": "0" * 64, "sample": "x" * 64},
        {"header": "0" * 64, "sample": "0" * 64, "other": "0" * 64},
    ],
)
def test_no_record(data):
    with pytest.raises(PortError, match="fingerprint"):
        Fingerprint.of_record(data)
