"""Maps between two bases, made once: a port over them is the port that makes its own."""

import hashlib
import json
import shlex
import weakref
from dataclasses import replace
from pathlib import Path

import datasets
import pytest
import torch
from huggingface_hub import HfApi, ModelCard, hf_hub_download
from safetensors.torch import load_file
from support.alignments import WEIGHTS, aligned, factors, ported, same, tuned_from
from support.commands import assert_refused, hf_bico
from support.world import config, write_model

from hf_bico.core import collect
from hf_bico.core.errors import PortError
from hf_bico.core.low_rank import LowRank, as_dense
from hf_bico.core.types import BilinearMap, Fit, Pair, Site, Slice, Tokens
from hf_bico.io import workspace
from hf_bico.io.hub import Hub
from hf_bico.io.maps import shards as files
from hf_bico.io.maps.files import MAPS_FILE, MapsRecord
from hf_bico.io.maps.shards import MapReader, Shards
from hf_bico.workflows import align
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.dry_run import dry_run

PORT = ("port", "demo/ft", "--to", "demo/plus", "--dataset", "demo/task", "-n", "20")


@pytest.fixture(scope="module")
def maps(world, tmp_path_factory):
    """The folder of an alignment, pushed as demo/maps."""
    folder = tmp_path_factory.mktemp("maps") / "maps"
    aligned(folder, push_to="demo/maps")
    return folder


@pytest.mark.parametrize("reference", ["folder", "repo"])
def test_a_port_over_maps_is_the_port_that_makes_its_own(world, maps, tmp_path, reference):
    """Of two fine-tunes, bit for bit: the loss under the classes' texts knows nothing of a fine-tune."""
    where = str(maps) if reference == "folder" else "demo/maps"
    for i, source in enumerate(("demo/ft", tuned_from(world, tmp_path / "ft"))):
        own, over = ported(tmp_path / f"own{i}", source), ported(tmp_path / f"over{i}", source, maps=where)
        assert same(own, over)
        assert not same(own, load_file(world / "plus" / WEIGHTS))


@pytest.mark.parametrize(
    "options",
    [
        {"method": "weighted"},
        {"method": "theseus", "method_options": ("centred=true",)},
        {"method_options": ("label_free=2",), "seed": 3},
        {"matching": "cka"},
        {"per_class": 3, "n": None, "strategy": "class-balanced"},
    ],
    ids=["weighted", "theseus", "label-free", "cka", "per class"],
)
def test_so_it_is_by_every_method_and_matching(world, tmp_path, options):
    aligned(tmp_path / "maps", **options)
    drawn = {key: value for key, value in options.items() if key not in ("method", "method_options", "matching")}
    assert same(ported(tmp_path / "own", **options), ported(tmp_path / "over", maps=str(tmp_path / "maps"), **drawn))


def test_a_search_over_maps_finds_the_same(maps, tmp_path):
    assert same(ported(tmp_path / "own", alpha="auto"), ported(tmp_path / "over", alpha="auto", maps=str(maps)))


def test_a_text_tower_that_changed_moves_over_maps(world, maps, tmp_path):
    """Its maps are made under the loss with a prompt a sample, as its own port makes them."""
    source = tuned_from(world, tmp_path / "ft", text=True)
    own, over = ported(tmp_path / "own", source), ported(tmp_path / "over", source, maps=str(maps))
    before = load_file(world / "plus" / WEIGHTS)
    changed = {key for key in own if not key.startswith("visual") and not torch.equal(own[key], before[key])}
    assert changed and all(torch.equal(own[key], over[key]) for key in changed)


def test_maps_without_labels_know_no_task(world, tmp_path):
    """Made of the same images with other labels and classes they are the same, and they serve that other task."""
    before = datasets.load_dataset(str(world / "task"))
    names = ["round or square", "striped"]
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=names))
    for split, rows in before.items():
        (tmp_path / "task" / "data").mkdir(parents=True, exist_ok=True)
        table = {"image": rows["image"], "label": [int(label > 1) for label in rows["label"]]}
        datasets.Dataset.from_dict(table, features=features).to_parquet(
            tmp_path / "task" / "data" / f"{split}-00000-of-00001.parquet"
        )
    free = {"method_options": ("label_free=1",)}
    record = aligned(tmp_path / "first", **free).record
    aligned(tmp_path / "second", dataset=str(tmp_path / "task"), **free)
    first, second = factors(tmp_path / "first"), factors(tmp_path / "second")
    assert same(first, second)
    aligned(tmp_path / "labelled", dataset=str(tmp_path / "task"))
    assert not same(first, {key: t for key, t in factors(tmp_path / "labelled").items() if key in first})
    assert record["left"] == {"text": "gradients without labels are not taken of it"}
    assert record["calibration"]["bank"]["prompts"] == 1000
    over, own = (
        ported(tmp_path / name, dataset=str(tmp_path / "task"), allow_regression=True, **options)
        for name, options in (("over", {"maps": str(tmp_path / "first")}), ("own", free))
    )
    assert same(own, over)
    source = tuned_from(world, tmp_path / "ft", text=True)
    with pytest.raises(PortError, match=r"have none of the text tower \(gradients without labels are not taken"):
        ported(tmp_path / "no", source, maps=str(tmp_path / "first"))
    assert not (tmp_path / "no").exists()


def test_blocks_matched_by_hand_stay_so(tmp_path, world):
    """The port goes by the maps' own matching, a block that none takes among it."""
    (tmp_path / "pairs.yaml").write_text("'': {0: 1, 1: null, 2: 0}\ntext: {0: 0}\n")
    aligned(tmp_path / "maps", matching=str(tmp_path / "pairs.yaml"))
    own = ported(tmp_path / "own", matching=str(tmp_path / "pairs.yaml"))
    assert same(own, ported(tmp_path / "over", maps=str(tmp_path / "maps")))
    assert not same(own, ported(tmp_path / "paper"))


def test_a_tower_that_cannot_be_seen_is_left_out_and_told(world, tmp_path):
    """Texts that the two bases cut otherwise: their text towers have no maps, their vision towers have."""
    longer = config(48, 3, 40)
    longer["model_cfg"]["text_cfg"]["context_length"] = 14
    write_model(tmp_path / "plus", longer, seed=4)
    record = aligned(tmp_path / "maps", target=str(tmp_path / "plus")).record
    assert record["left"].keys() == record["matching"]["paths"].keys() ^ {"", "text"} == {"text"}
    assert "cut a text into different tokens" in record["left"]["text"]
    assert "cut a text into different tokens" in (tmp_path / "maps" / "README.md").read_text()
    assert len(record["maps"]) == 19
    assert sorted(record["files"]) == [path.name for path in sorted((tmp_path / "maps").glob("*.safetensors"))]
    there = {"target": str(tmp_path / "plus")}
    assert same(ported(tmp_path / "own", **there), ported(tmp_path / "over", maps=str(tmp_path / "maps"), **there))


def test_a_dry_run_over_maps_reads_the_record_alone(maps, monkeypatch):
    fetched = []
    monkeypatch.setattr(
        Hub,
        "fetch",
        lambda self, pinned, names, right=Hub.fetch: (fetched.extend(names), right(self, pinned, names))[1],
    )
    plan, cost = dry_run(PortConfig("demo/ft", "demo/plus", "demo/task", n=20, maps="demo/maps"), Hub())
    assert (cost.method, cost.passes_flops, cost.moments_bytes) == ("bico", 0, 0)
    assert MAPS_FILE in fetched and not [name for name in fetched if name.endswith(".safetensors")]
    assert len(plan.models.pairs) == 26


def test_one_map_is_held_at_a_time(world, tmp_path, monkeypatch):
    """As they are made and as they are read; the one before may still have its name."""
    seen, most = [], []

    def watched(right):
        def wrapped(*args):
            found = right(*args)
            seen.append(weakref.ref(next(each for each in (*args, found) if isinstance(each, BilinearMap))))
            most.append(sum(ref() is not None for ref in seen))
            return found

        return wrapped

    monkeypatch.setattr(Shards, "add", watched(Shards.add))
    monkeypatch.setattr(MapReader, "read", watched(MapReader.read))
    aligned(tmp_path / "maps")
    ported(tmp_path / "out", maps=str(tmp_path / "maps"))
    assert len(most) == 26 + 19
    assert max(most) <= 2


def test_blocks_may_be_left_out(maps, tmp_path):
    some = {"layers": "0,2", "skip": "2"}
    assert same(ported(tmp_path / "own", **some), ported(tmp_path / "over", maps=str(maps), **some))


def test_interrupted_it_goes_on_where_it_was(maps, tmp_path, monkeypatch):
    monkeypatch.setattr(workspace, "EVERY", 0.0)
    done, right = [], collect._add_batch

    def add(*args):
        if len(done) == 2:
            done.append("stop")
            raise KeyboardInterrupt
        done.append("batch")
        right(*args)

    monkeypatch.setattr(collect, "_add_batch", add)
    with pytest.raises(KeyboardInterrupt):
        aligned(tmp_path / "maps")
    assert not list(tmp_path.iterdir())
    aligned(tmp_path / "maps")
    assert len(done) == 2 + 1 + 1 + 3  # of either tower's three
    assert same(factors(maps), factors(tmp_path / "maps"))


def test_half_of_the_bytes_give_the_same_port_but_for_rounding(world, maps, tmp_path):
    """float16 has 11 bits: what it rounds off a port is about 2⁻¹¹ of it, less than a delta's bfloat16."""
    aligned(half := tmp_path / "half", map_dtype="float16")
    large, small = (sum(path.stat().st_size for path in each.glob("*.safetensors")) for each in (maps, half))
    assert 0.5 < small / large < 0.55
    whole, rounded = (ported(tmp_path / each.name / "port", "demo/ft", maps=str(each)) for each in (maps, half))
    plus = load_file(world / "plus" / WEIGHTS)
    off, change = (
        sum(float((each[key] - start[key]).double().square().sum()) for key in each) ** 0.5
        for each, start in ((rounded, whole), (whole, plus))
    )
    assert 0 < off < 2**-10 * change


def site(name: str, d_out: int, d_in: int) -> Site:
    return Site(name, name, 0, Slice(name), None, d_out, d_in, "in", Tokens(1))


@pytest.mark.parametrize("size", [4 * 40, 4 * 60, 4 * 100, 4 * 150])
def test_what_is_read_is_what_was_written(tmp_path, monkeypatch, size):
    """Factors, fits and scales; a shared factor lies there once; no file is larger than it may be."""
    monkeypatch.setattr(files, "SHARD", size)
    shapes = [((3 + i, 5), (4 + i, 6)) for i in range(4)] + [((8, 5), (8, 6)), ((8, 6), (9, 6))]
    pairs = [Pair(site(f"a{i}", *a), site(f"b{i}", *b)) for i, (a, b) in enumerate(shapes)]
    shared = torch.randn(6, 5)
    made = [
        BilinearMap(
            torch.randn(b.d_out, a.d_out),
            shared if i < 3 else torch.randn(6, 5),
            Fit(2, 3, 0.25),
            Fit(1, 5, 0.125),
            0.5**i,
        )
        for i, (a, b) in enumerate(pairs)
    ]
    made[3] = replace(made[3], left=LowRank(torch.randn(7, 2), torch.randn(2, 6)))
    made[4] = BilinearMap(None, torch.randn(6, 5), None, Fit(1, 1, 0.0))
    made[5] = BilinearMap(torch.randn(9, 8), None, Fit(1, 1, 0.0), None)
    shards = Shards(tmp_path)
    for pair, map_ in zip(pairs, made, strict=True):
        shards.add(pair, map_)
        assert sum(tensor.nbytes for tensor in shards._waiting.values()) <= max(size, 4 * 72)  # the largest factor
    shards.flush()
    stored = factors(tmp_path)
    assert sorted(shards.files) == sorted(path.name for path in tmp_path.iterdir())
    assert len(shards.files) > 1
    assert (
        len(stored) == 6 + 3
    )  # lefts of all but one map, of which one is a product; rights: one of three maps, and of two more
    assert all(
        sum(tensor.nbytes for tensor in load_file(tmp_path / name).values()) <= max(size, 4 * 72)
        for name in shards.files
    )
    shards.add(pairs[0], made[0])
    shards.flush()
    shards.forget_after(len(pairs))
    assert factors(tmp_path).keys() == stored.keys() and len(shards.rows) == len(pairs)
    mark = {"header": "0" * 64, "sample": "0" * 64, "full": None}
    base = {"name": "x", "commit": None, "fingerprint": mark}
    record = MapsRecord.read(
        json.dumps(
            {
                "schema": 2,
                "source": base,
                "target": base,
                "method": {"name": "m", "citation": "c", "summary": "s", "options": {}},
                "matching": {"rule": "index", "paths": {"": [0]}},
                "calibration": {},
                "left": {},
                "files": shards.files,
                "maps": shards.rows,
            }
        ).encode()
    )
    entries = [record.entries[b.name] for _, b in pairs]
    shelf = MapReader(tmp_path, record, entries, "cpu")
    for map_, found in zip(made, map(shelf.read, entries), strict=True):
        assert (found.output_fit, found.input_fit, found.scale) == (map_.output_fit, map_.input_fit, map_.scale)
        for ours, theirs in ((found.left, map_.left), (found.right, map_.right)):
            assert type(ours) is type(theirs)
            assert ours is None or torch.equal(as_dense(ours), as_dense(theirs))


def test_the_record_says_what_the_files_hold(maps, world):
    """By hand, out of the files alone: s L τ Rᵀ is what a port adds; and the bytes are those of the formula."""
    said = json.loads((maps / MAPS_FILE).read_text())
    assert {row["target"] for row in said["maps"][:3]} == {f"block 0 {part}" for part in "qkv"}
    assert len({row["right"]["tensor"] for row in said["maps"][:3]}) == 1
    assert len({row["left"]["tensor"] for row in said["maps"][:3]}) == 3
    tensors = factors(maps)
    places = [row[side] for row in said["maps"] for side in ("left", "right")]
    used = {f"{place['file']}/{place[part]}" for place in places for part in ("tensor", "times") if part in place}
    assert used == tensors.keys()
    assert any("times" in place for place in places)  # of few samples
    assert not all("times" in place for place in places)
    for name, file in said["files"].items():
        assert hashlib.sha256((maps / name).read_bytes()).hexdigest() == file["sha256"]
    plan, _ = dry_run(PortConfig("demo/ft", "demo/plus", "demo/task", method="bico", n=20), Hub())
    assert sum(tensor.nbytes for tensor in tensors.values()) < 4 * align.numbers_of(plan.method, plan.models.pairs)
    assert said["source"]["commit"] == HfApi().model_info("demo/base").sha
    assert said["calibration"]["n"] == 20 == len(set(said["calibration"]["indices"]))
    assert said["environment"]["peak_memory_bytes"] > 0
    assert set(said["environment"]["seconds"]) >= {"load", "calibrate", "move"}
    assert str(world) not in (maps / MAPS_FILE).read_text() + (maps / "README.md").read_text()


def test_the_cards_say_what_and_how_again(maps, tmp_path, monkeypatch, capsys):
    card = ModelCard.load("demo/maps")
    card.validate()
    data = card.data.to_dict()
    assert (data["base_model"], data["library_name"], data["datasets"]) == ("demo/plus", "hf_bico", ["demo/task"])
    assert "hf-bico-maps" in data["tags"]
    assert "/demo/base)" in card.text and "--maps demo/maps" in card.text
    assert "{{" not in card.text and "{%" not in card.text
    monkeypatch.chdir(tmp_path)
    command = card.text.split("```\nhf-bico align ")[1].split("\n```")[0]
    assert hf_bico(capsys, monkeypatch, "align", *shlex.split(command)).code == 0
    assert same(factors(tmp_path / "maps"), factors(maps))

    ran = hf_bico(capsys, monkeypatch, *PORT, "--maps", "demo/maps", "--output", "out", "--format", "json")
    assert ran.code == 0, ran.err
    report, head = json.loads(ran.out), HfApi().model_info("demo/maps").sha
    digest = hashlib.sha256((maps / MAPS_FILE).read_bytes()).hexdigest()
    assert (report["method"]["name"], report["method"]["signals"]) == ("bico", [])
    assert report["method"]["options"] == {"reference": "demo/maps", "commit": head, "sha256": digest}
    assert report["method"]["maps"]["calibration"]["n"] == 20
    assert report["matching"]["rule"] == "index"
    text = (tmp_path / "out" / "README.md").read_text()
    assert f"demo/maps@{head} (sha256 {digest[:16]})" in text
    command = text.split("```\nhf-bico ")[1].split("\n```")[0]
    assert f"--maps demo/maps@{head}" in command and "--method" not in command
    assert hf_bico(capsys, monkeypatch, *shlex.split(command), "--output", "again").code == 0
    assert same(load_file("again/" + WEIGHTS), load_file("out/" + WEIGHTS))


def test_a_repo_of_the_same_maps_is_pushed_onto_and_no_other(world, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(files, "SHARD", 200_000)
    aligned(tmp_path / "first", push_to="demo/again")
    many = {name for name in HfApi().list_repo_files("demo/again") if name.startswith("maps-")}
    monkeypatch.undo()
    given = "--dataset", "demo/task", "-n", "10", "--output"
    words = ("align", "demo/base", "demo/plus", *given, tmp_path / "second", "--push-to", "demo/again")
    ran = hf_bico(capsys, monkeypatch, *words)
    assert ran.code == 0, ran.err
    assert "26 maps from demo/base to demo/plus" in ran.out
    few = {name for name in HfApi().list_repo_files("demo/again") if name.startswith("maps-")}
    assert few == {path.name for path in (tmp_path / "second").glob("maps-*")} < many
    theirs = hf_hub_download("demo/again", MAPS_FILE)
    assert json.loads((tmp_path / "second" / MAPS_FILE).read_text()) == json.loads(Path(theirs).read_text())
    for repo, pair in (("demo/plus", ("demo/base", "demo/plus")), ("demo/again", ("demo/plus", "demo/base"))):
        ran = hf_bico(capsys, monkeypatch, "align", *pair, *given, tmp_path / "third", "--push-to", repo)
        assert_refused(ran, f"{repo} holds something that is not maps from {pair[0]} to {pair[1]}")
    assert not (tmp_path / "third").exists()
