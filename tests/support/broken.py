"""Commands that are broken on the way, and what must be so after each: whole or not there, once or not, one line."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import HfApi
from support import little
from support.faulty import Proxy
from support.forked import Ran, Runner
from support.hub import Hub

OURS = ("hf_bico.json", "README.md", "recipe.yaml", "hf_bico_maps.json", "scores.png", "matching.png")
"""Files that hold times, the repo's or the folder's name, or are drawn with the fonts that were found, of which the
first process of a new home makes a list; all others are the same bit by bit."""
ASIDE = ("Note: ", "Warning: ", "HTTP Error ", "Retrying in ")
"""What lines before the last may begin with: notes, and in Python what the Hub's client logs."""
SMALL = ("--dataset", "demo/little-task", "-n", "4", "--batch-size", "2")
PORT = ("port", "demo/little-ft", "--to", "demo/little-plus", "--method", "bico", "--allow-regression", *SMALL)
ALIGN = ("align", "demo/little-base", "demo/little-plus", *SMALL)
DELTA = "demo/little-delta"
WORK = {"port": PORT, "align": ALIGN, "load": ("load", DELTA)}
"""Name → words; `load` opens a delta by `from_pretrained`."""


def publish(api: HfApi, root: Path) -> None:
    """Put a Llama of a few hundred weights on the Hub: its base, a fine-tune, a new base, and texts."""
    base = little.llama()
    models = {"base": base, "ft": little.tuned(base), "plus": little.llama(1), "task": None}
    for name, model in models.items():
        folder, kind = root / name, "model" if model else "dataset"
        if model:
            little.write(model, folder)
            (folder / "README.md").write_text("---\nbase_model: demo/little-base\nlicense: mit\n---\n" * (name == "ft"))
        else:
            little.write_texts(folder)
        api.create_repo(f"demo/little-{name}", repo_type=kind)
        api.upload_folder(folder_path=folder, repo_id=f"demo/little-{name}", repo_type=kind)


class Clean(NamedTuple):
    """What a command makes that nothing breaks."""

    files: Mapping[str, str]
    """Name → sha256, "" for those that differ from run to run."""
    out: str


class Broken:
    """Runs commands in the runner's folder, through the proxy; a repo's name is used once."""

    def __init__(self, runner: Runner, proxy: Proxy, hub: Hub) -> None:
        self.runner, self.proxy, self.hub = runner, proxy, hub
        self.root, self.out, self.home = runner.root, runner.root / "out", runner.root / "home"
        self.warm = runner.root.parent / "warm"
        self.numbers, self.clean = count(), {}

    def start(self) -> None:
        """Make the delta, fill a cache, and see what clean runs make."""
        ran = self.runner.run(*PORT, "--as", "delta", "--push-to", DELTA, tell=True)
        assert ran.code == 0, ran
        for name in WORK:
            self.forget()
            ran, _ = self.do(name, tell=True)
            assert ran.code == 0, ran
            self.clean[name] = Clean(self._files(), ran.out if name == "load" else "")
        shutil.copytree(self.home, self.warm, symlinks=True)

    def do(self, name: str, repo: str | None = None, **how: Any) -> tuple[Ran, str]:
        """Run a command that pushes to a new repo, or to this one."""
        repo = repo or f"demo/broken-{next(self.numbers)}"
        return self.runner.run(*self.words(name, repo), **how), repo

    def words(self, name: str, repo: str, out: str = "out") -> tuple[str, ...]:
        return WORK[name] if name == "load" else (*WORK[name], "--output", out, "--push-to", repo)

    def forget(self, *, cold: bool = False) -> None:
        """Take away all that commands left, and the cache too, or put the warm one there."""
        for place in (self.out, *self.root.glob(".*"), *(self.root / "tmp").iterdir()):
            shutil.rmtree(place, ignore_errors=True)
        if cold:
            shutil.rmtree(self.home, ignore_errors=True)
        elif self.warm.exists():
            shutil.rmtree(self.home, ignore_errors=True)
            shutil.copytree(self.warm, self.home, symlinks=True)

    def _files(self) -> dict[str, str]:
        """Name → sha256 of what is in the output folder."""
        if not self.out.exists():
            return {}
        return {
            path.relative_to(self.out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self.out.rglob("*")
            if path.is_file()
        }

    def commits(self, repo: str) -> list[dict[str, str]]:
        """The commits to a repo but its first, each as name → sha256; the last one first, read where the Hub has it."""
        place = self.hub.root / "models" / repo
        if not (place / "repo.json").exists():
            return []
        found, oid = [], json.loads((place / "repo.json").read_text())["refs"]["refs/heads/main"]
        while oid:
            commit = json.loads((place / "commits" / f"{oid}.json").read_text())
            files = {name: file["sha256"] for name, file in commit["files"].items() if name != ".gitattributes"}
            found, oid = [*found, files], commit["parent"]
        return found[:-1]

    def assert_whole(self, name: str, files: Mapping[str, str]) -> None:
        right = self.clean[name].files
        assert files.keys() == right.keys()
        odd = [each for each in right if each not in OURS and files[each] != right[each]]
        assert odd == [], odd

    def assert_nothing_half(self, name: str, repo: str, most: int = 1) -> int:
        """The output is whole or not there, and so is each commit; how many there are."""
        if self.out.exists():
            self.assert_whole(name, self._files())
        commits = self.commits(repo)
        assert len(commits) <= most
        for files in commits:
            self.assert_whole(name, files)
        return len(commits)

    def outcome(self, name: str, ran: Ran, repo: str) -> str:
        """What a command that met a fault came to: "right", or "one line"; nothing else may be."""
        commits = self.assert_nothing_half(name, repo)
        if ran.code == 0:
            assert "Traceback" not in ran.err, ran
            assert name == "load" or (self.out.exists() and commits == 1), ran
            assert name != "load" or ran.out == self.clean[name].out
            return "right"
        assert_one_line(ran, 2, quiet=name != "load")
        assert ran.error.startswith("Error: "), ran
        return "one line"

    def assert_rerun_is_right(self, name: str, repo: str) -> None:
        """The same command, with nothing in its way, makes what a clean run makes, and leaves nothing else."""
        before = self.commits(repo)
        shutil.rmtree(self.out, ignore_errors=True)
        ran, _ = self.do(name, repo)
        assert ran.code == 0, ran
        assert ran.out == self.clean[name].out or name != "load"
        if name != "load":
            assert self.out.exists()
            assert self.assert_nothing_half(name, repo, len(before) + 1) == len(before) + 1
        self.assert_no_litter()

    def assert_no_litter(self) -> None:
        """No file of ours is left but results; downloads that were cut short are the client's, for `hf cache prune`."""
        assert {path.name for path in self.root.iterdir()} <= {"out", "home", "tmp", "b1", "b2"}
        assert list(self.home.glob("assets/hf_bico/ports/*")) == []
        left = [path.name for path in (self.root / "tmp").iterdir()]
        assert left == [], left


def assert_one_line(ran: Ran, code: int, *, quiet: bool = True) -> None:
    """A command ended with this code and one line, before which are stages and notes alone.

    Args:
        quiet: whether the libraries below are, as on the command line; in Python the client logs as it likes.
    """
    assert ran.code == code, ran
    assert ran.out == "", ran
    assert "Traceback" not in ran.err, ran
    *before, last = ran.err.strip().splitlines() or [""]
    assert not quiet or all(line.endswith(" …") or line.startswith(ASIDE) for line in before if line), ran
    assert last and len(last) < 1000, ran
