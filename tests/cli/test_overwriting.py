"""--overwrite replaces an earlier result, once the new one is whole, and nothing else."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file
from support.commands import TINY_PORT, assert_refused, hf_bico

from hf_bico import PortError
from hf_bico.io import stages, writer
from hf_bico.io.writer import require_apart, require_room, staged

OURS = json.dumps({"schema": 4, "hf_bico": "0.1.0"})


@pytest.fixture
def old(tmp_path) -> Path:
    """An earlier result, with a file that no new one has."""
    place = tmp_path / "out"
    place.mkdir()
    (place / "hf_bico.json").write_text(OURS)
    (place / "old").write_text("old")
    return place


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("exchanges", [True, False])
def test_the_old_is_there_until_the_new_is_whole(old, exchanges, monkeypatch):
    if not exchanges:
        monkeypatch.setattr(stages, "_exchanged", lambda *_: False)
    with staged(old, overwrite=True) as stage:
        stage.mkdir()
        (stage / "new").write_text("new")
        assert names(old) == {"hf_bico.json", "old"}
    assert names(old) == {"new"}
    assert names(old.parent) == {"out"}


@pytest.mark.parametrize("exchanges", [True, False])
def test_the_old_stays_if_the_new_fails(old, exchanges, monkeypatch):
    if not exchanges:
        monkeypatch.setattr(stages, "_exchanged", lambda *_: False)
    with pytest.raises(KeyboardInterrupt), staged(old, overwrite=True) as stage:
        stage.mkdir()
        raise KeyboardInterrupt
    assert names(old) == {"hf_bico.json", "old"} and names(old.parent) == {"out"}


def test_the_old_is_put_back_where_the_new_cannot_be_moved(old, monkeypatch):
    monkeypatch.setattr(stages, "_exchanged", lambda *_: False)
    right = Path.rename

    def rename(self, to):
        if Path(to) == old and self.name != ".before":
            raise OSError(5, "no")
        return right(self, to)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(PortError, match="was not written"), staged(old, overwrite=True) as stage:
        stage.mkdir()
    assert names(old) == {"hf_bico.json", "old"} and names(old.parent) == {"out"}


def test_linux_exchanges_folders_in_one_step(old, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    if not stages._exchanged(old, other):
        pytest.skip("neither the system nor the disk exchanges folders in one step here")
    assert names(other) == {"hf_bico.json", "old"} and names(old) == set()


NOT_OURS = {
    "no record": lambda place: (place / "hf_bico.json").unlink(),
    "a record of another's": lambda place: (place / "hf_bico.json").write_text('{"schema": 4}'),
    "a record that is none": lambda place: (place / "hf_bico.json").write_text("[1"),
    "a repository": lambda place: (place / ".git").mkdir(),
}


@pytest.mark.parametrize("name", NOT_OURS)
def test_what_is_no_result_is_not_replaced(old, name):
    NOT_OURS[name](old)
    with pytest.raises(PortError, match=r"is no result of hf-bico, and is not replaced.*output="):
        require_room(old, 0, overwrite=True)
    with pytest.raises(PortError, match="not a new or empty folder") as error:
        require_room(old, 0)
    assert "overwrite" not in str(error.value)


def test_a_link_and_the_folder_that_one_is_in_are_not_replaced(old, monkeypatch):
    (old.parent / "link").symlink_to(old)
    with pytest.raises(PortError, match="not a new or empty folder"):
        require_room(old.parent / "link", 0, overwrite=True)
    (old / "inside").mkdir()
    for here in (old, old / "inside"):
        monkeypatch.chdir(here)
        with pytest.raises(PortError, match="not a new or empty folder"):
            require_room(old, 0, overwrite=True)


@pytest.mark.parametrize("record", writer.RECORDS)
def test_a_result_is_replaced_if_that_is_asked_for(old, record):
    (old / "hf_bico.json").rename(old / record)
    require_room(old, 0, overwrite=True)
    with pytest.raises(PortError, match="or replace it with overwrite="):
        require_room(old, 0)


def test_what_is_read_is_not_replaced(old):
    require_apart(old, ("org/name", None, "", old.parent))
    for each in (old, str(old / "hf_bico.json"), old.parent / "elsewhere" / ".." / "out"):
        (old.parent / "elsewhere").mkdir(exist_ok=True)
        with pytest.raises(PortError, match="is read from it"):
            require_apart(old, ("org/name", each))


def test_a_port_over_a_port(pushed, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(pushed[0], "out")
    Path("out/old").touch()
    words = (*TINY_PORT, "-n", "20", "--output", "out")
    assert_refused(hf_bico(capsys, monkeypatch, *words), "not a new or empty folder", "or replace it with --overwrite")
    mine = (*words, "--base", "./out", "--overwrite")
    assert_refused(hf_bico(capsys, monkeypatch, *mine), "out would be replaced, and ./out is read from it")
    assert Path("out/old").exists()
    ran = hf_bico(capsys, monkeypatch, *words, "--alpha", "0.5", "--overwrite")
    assert ran.code == 0, ran.err
    assert names(Path("out")) == names(pushed[0])
    assert json.loads(Path("out/hf_bico.json").read_text())["method"]["alpha"] == 0.5
    assert "overwrite" not in Path("out/recipe.yaml").read_text()


def test_a_task_vector_and_a_sum_are_replaced(world, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    extract = ("extract", "demo/ft", "--base", "demo/base", "--output", "x.safetensors")
    apply = ("apply", "x.safetensors", "--to", "demo/base", "--output", "sum")
    for words in (extract, apply):
        assert hf_bico(capsys, monkeypatch, *words).code == 0
        assert_refused(hf_bico(capsys, monkeypatch, *words))
        assert hf_bico(capsys, monkeypatch, *words, "--overwrite").code == 0
    first = load_file("sum/open_clip_model.safetensors")
    assert hf_bico(capsys, monkeypatch, *apply, "--alpha", "0", "--overwrite").code == 0
    again = load_file("sum/open_clip_model.safetensors")
    assert any((again[key] != first[key]).any() for key in first)
    Path("x.safetensors").write_text("mine")
    assert_refused(hf_bico(capsys, monkeypatch, *extract, "--overwrite"), "is no task vector, and is not replaced")
    assert Path("x.safetensors").read_text() == "mine"
