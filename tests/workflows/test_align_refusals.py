"""Maps that do not serve a port are refused in one line, and nothing is written."""

import hashlib
import json
import shutil

import pytest
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file
from support.alignments import WEIGHTS, aligned, ported, same, tuned_from
from support.commands import assert_refused, hf_bico
from support.world import config, write_model

from hf_bico.core.errors import PortError
from hf_bico.io.maps import shards as files
from hf_bico.io.maps.files import MAPS_FILE

PORT = ("port", "demo/ft", "--to", "demo/plus", "--dataset", "demo/task", "-n", "20")


@pytest.fixture(scope="module")
def maps(world, tmp_path_factory):
    """The folder of an alignment."""
    folder = tmp_path_factory.mktemp("maps") / "maps"
    aligned(folder)
    return folder


def edited(change):
    """A damage that changes the JSON."""

    def damage(folder):
        said = json.loads((folder / MAPS_FILE).read_text())
        change(said)
        (folder / MAPS_FILE).write_text(json.dumps(said))

    return damage


def with_nan(folder):
    """A factor that is NaN in a file that is as its record says."""
    name = "maps-00001.safetensors"
    tensors = load_file(folder / name)
    tensors[next(key for key in tensors if key.startswith("00003.left"))][0, 0] = float("nan")
    save_file(tensors, folder / name)
    file = {"bytes": (folder / name).stat().st_size, "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()}
    edited(lambda said: said["files"].update({name: file}))(folder)


def cut_short(folder):
    place = folder / "maps-00001.safetensors"
    place.write_bytes(place.read_bytes()[:-8])


def flipped(folder):
    place = folder / "maps-00001.safetensors"
    raw = bytearray(place.read_bytes())
    raw[-5] ^= 1
    place.write_bytes(raw)


DAMAGES = {
    "missing": (lambda folder: (folder / "maps-00001.safetensors").unlink(), "maps-00001.safetensors is missing"),
    "cut": (cut_short, "maps-00001.safetensors has"),
    "flipped": (flipped, "maps-00001.safetensors is not what was written"),
    "NaN": (with_nan, "NaN or Inf in the map of block 0 attention output (00003.left"),
    "no JSON": (lambda folder: (folder / MAPS_FILE).unlink(), "there are no maps"),
    "broken": (lambda folder: (folder / MAPS_FILE).write_text("{"), "is no JSON in UTF-8"),
    "a list": (lambda folder: (folder / MAPS_FILE).write_text("[]"), "is a list, where a JSON object"),
    "schema": (edited(lambda said: said.update(schema=99)), "has schema 99; this version reads up to 2"),
    "outside": (
        edited(lambda said: said["files"].update({"../maps-00001.safetensors": {"bytes": 1, "sha256": "x"}})),
        "'../maps-00001.safetensors' is not a file of maps",
    ),
    "elsewhere": (
        edited(lambda said: said["maps"][0]["left"].update(file="../../etc/passwd")),
        "'../../etc/passwd' is not one of its files",
    ),
    "another tensor": (edited(lambda said: said["maps"][0]["left"].update(tensor="x")), "x of maps-00001.safetensors"),
    "another shape": (
        edited(lambda said: said["maps"][4].update(left=said["maps"][4]["right"] | {"tensor": "00000.right"})),
        "00000.right is (48, 32), not (192, 128)",
    ),
    "scale": (edited(lambda said: said["maps"][0].update(scale=float("inf"))), "maps.0.scale is inf"),
    "zero": (edited(lambda said: said["maps"][0].update(scale=0.0)), "block 0 q has the scale 0.0"),
    "bare": (
        edited(lambda said: said["maps"][0].update(right=None)),
        "block 0 q has no factor for a side that is 32 wide in one base and 48 in the other",
    ),
    "lacking": (edited(lambda said: said["maps"].pop(0)), "have none of block 0 q: leave those blocks out"),
    "otherwise": (
        edited(lambda said: said["maps"][0].update(source="block 1 q")),
        "block 0 q takes from block 0 q, in the maps from block 1 q",
    ),
    "path": (
        edited(lambda said: said["matching"]["paths"].update({"": [0, 5, 1]})),
        "source blocks that do not exist",
    ),
    "wide": (edited(lambda said: said["maps"][0].update(shapes=[[1, 2], [3, 4]])), "in the maps (3, 4) of (1, 2)"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_maps_are_refused(maps, tmp_path, capsys, monkeypatch, name):
    damage, told = DAMAGES[name]
    shutil.copytree(maps, tmp_path / "maps")
    damage(tmp_path / "maps")
    ran = hf_bico(capsys, monkeypatch, *PORT, "--maps", tmp_path / "maps", "--output", tmp_path / "out")
    assert_refused(ran, "maps", told)
    assert [path.name for path in tmp_path.iterdir()] == ["maps"]


def test_all_that_is_damaged_is_named(world, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "SHARD", 100_000)
    aligned(tmp_path / "maps")
    used = {True: set(), False: set()}
    for row in json.loads((tmp_path / "maps" / MAPS_FILE).read_text())["maps"]:
        used[bool(row["blocks"][1])] |= {row[side]["file"] for side in ("left", "right")}
    first, second, *_ = sorted(used[True] - used[False])  # of later blocks alone
    for name in (first, second):
        (tmp_path / "maps" / name).unlink()
    with pytest.raises(PortError, match=rf"{first}\S+ {second} is missing"):
        ported(tmp_path / "out", maps=str(tmp_path / "maps"))
    own = ported(tmp_path / "own", layers="0")
    assert same(own, ported(tmp_path / "over", maps=str(tmp_path / "maps"), layers="0"))


def test_other_bases_are_refused_and_named(world, maps, tmp_path, capsys, monkeypatch):
    """Whatever they are called: one weight less, and it is another base."""
    large, tensors = config(48, 3, 40), load_file(world / "plus" / WEIGHTS)
    tensors["visual.proj"][0, 1] += 1e-3
    write_model(tmp_path / "plus", large, tensors)
    words = ("port", "demo/ft", "--dataset", "demo/task", "-n", "20", "--output", tmp_path / "out", "--maps", maps)
    commits = [HfApi().model_info(f"demo/{name}").sha for name in ("base", "plus")]
    ran = hf_bico(capsys, monkeypatch, *words, "--to", tmp_path / "plus")
    assert_refused(ran, f"to demo/plus@{commits[1]}, and plus (local folder) holds other weights")
    write_model(tmp_path / "base", config(32, 2, 32), seed=5)
    tuned_from(tmp_path, tmp_path / "ft")
    ran = hf_bico(
        capsys, monkeypatch, "port", tmp_path / "ft", *words[2:], "--to", "demo/plus", "--base", tmp_path / "base"
    )
    assert_refused(ran, f"from demo/base@{commits[0]}, and base (local folder) holds other weights")
    ran = hf_bico(capsys, monkeypatch, *words, "--to", "demo/base", "--base", "demo/plus")
    assert_refused(
        ran,
        f"lead from demo/base@{commits[0]} to demo/plus@{commits[1]}",
        f"this port goes from demo/plus@{commits[1]} to demo/base@{commits[0]}",
    )
    assert not (tmp_path / "out").exists()
    shutil.copytree(world / "plus", tmp_path / "copy")
    assert hf_bico(capsys, monkeypatch, *words, "--to", tmp_path / "copy").code == 0  # the same weights elsewhere


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--method", "bico"), "leave out --method"),
        (("--set", "centred=true"), "leave out --set"),
        (("--bank", "BANK"), "leave out --bank"),
        (("--matching", "cka"), "leave out --matching"),
    ],
)
def test_maps_bring_how_they_are_made(maps, tmp_path, capsys, monkeypatch, words, told):
    (tmp_path / "bank").write_text("one\ntwo\n")
    words = [str(tmp_path / "bank") if word == "BANK" else word for word in words]
    ran = hf_bico(capsys, monkeypatch, *PORT, "--maps", maps, *words, "--output", tmp_path / "out")
    assert_refused(ran, "--maps brings", told)
    with pytest.raises(PortError, match="were made by bico, not by theseus"):
        ported(tmp_path / "out", maps=str(maps), method="theseus")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--method", "few-shot"), "few-shot cannot be kept"),
        (("--method", "transfusion"), "transfusion cannot be kept"),
        (("--method", "gradfix"), "gradfix cannot be kept"),
        (("--method", "naive"), "naive cannot be kept"),
        (("--set", "steps=2"), "with steps = 2 they are estimated anew"),
        (("--method", "weighted", "--set", "steps=3"), "weighted cannot be kept"),
        (("--head", "ridge"), "--head ridge is not for a model of zero-shot"),
    ],
)
def test_methods_without_maps_are_refused(world, tmp_path, capsys, monkeypatch, words, told):
    ran = hf_bico(
        capsys,
        monkeypatch,
        "align",
        "demo/base",
        "demo/plus",
        "--dataset",
        "demo/task",
        *words,
        "--output",
        tmp_path / "maps",
    )
    assert_refused(ran, told, "zero-shot" if "--head" in words else "take one of bico, weighted, theseus, input-only")
    assert not list(tmp_path.iterdir())


def test_a_port_over_few_blocks_maps_says_which_it_lacks(world, tmp_path):
    aligned(tmp_path / "maps", layers="0")
    with pytest.raises(PortError, match=r"have none of block 1 q, .* leave those blocks out"):
        ported(tmp_path / "out", maps=str(tmp_path / "maps"))
    own = ported(tmp_path / "own", layers="0")
    assert same(own, ported(tmp_path / "over", maps=str(tmp_path / "maps"), layers="0"))


def test_maps_in_other_dtypes_are_refused(world, tmp_path):
    with pytest.raises(PortError, match="int8: maps are stored in float32 or float16"):
        aligned(tmp_path / "no", map_dtype="int8")
    assert list(tmp_path.iterdir()) == []
