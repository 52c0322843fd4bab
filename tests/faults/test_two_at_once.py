"""Two commands at one moment: on one output folder, on one repo, with one cache; each ends right or in one line."""

import shutil
from pathlib import Path

import pytest
from support.broken import ALIGN, PORT, Broken, assert_one_line

ROUNDS, MANY = 2, 10
"""How often each pair starts; in continuous integration, and in all."""


@pytest.fixture
def pair(ready, request, every):
    """Runs two commands at once, some rounds; a cold cache is empty at the start of each."""

    def rounds(cold: bool, *cases):
        for number in range(MANY if every else ROUNDS):
            ready.forget(cold=cold)
            for place in ready.root.glob("b*"):
                shutil.rmtree(place)
            repos = [f"demo/broken-{next(ready.numbers)}" for _ in range(2)]
            yield ready.runner.together(*({"words": case(repos)} for case in cases)), repos, number

    yield rounds
    for place in ready.root.glob("b*"):
        shutil.rmtree(place)


def to(words: tuple[str, ...], out: str, repo: int | None):
    """A command's words, given the names of two new repos."""
    return lambda repos: [*words, "--output", out, *(() if repo is None else ("--push-to", repos[repo]))]


def whole(broken: Broken, name: str, place: Path) -> None:
    """What was written to a folder is whole."""
    kept, broken.out = broken.out, place
    try:
        assert place.exists()
        broken.assert_whole(name, broken._files())
    finally:
        broken.out = kept


def assert_each_ended(both) -> list[int]:
    for ran in both:
        assert "Traceback" not in ran.err, ran
        if ran.code:
            assert_one_line(ran, 2)
    return [ran.code for ran in both]


@pytest.mark.parametrize("cold", [True, False], ids=["cold", "warm"])
def test_on_one_folder(ready, pair, note, cold):
    for both, repos, _ in pair(cold, to(PORT, "out", 0), to(PORT, "out", 1)):
        codes = assert_each_ended(both)
        assert sorted(codes) == [0, 2]
        whole(ready, "port", ready.out)
        assert [len(ready.commits(repo)) for repo in repos] == [1 - bool(code) for code in codes]
        ready.assert_no_litter()
        note("two on one folder", "port, port", "one right, one line")


@pytest.mark.parametrize("cold", [True, False], ids=["cold", "warm"])
def test_on_one_repo(ready, pair, note, cold):
    for both, (repo, _), _ in pair(cold, to(PORT, "b1", 0), to(PORT, "b2", 0)):
        codes = assert_each_ended(both)
        commits = ready.commits(repo)
        assert 1 <= len(commits) == codes.count(0)
        for files in commits:
            ready.assert_whole("port", files)
        for place in ("b1", "b2"):
            whole(ready, "port", ready.root / place)
        assert all("kept in b" in ran.error for ran in both if ran.code)
        note("two on one repo", "port, port", "right" if codes == [0, 0] else "one right, one line")


@pytest.mark.parametrize("cold", [True, False], ids=["cold", "warm"])
@pytest.mark.parametrize("other", [("port", PORT), ("align", ALIGN)], ids=["port", "align"])
def test_with_one_cache(ready, pair, note, cold, other):
    name, words = other
    for both, repos, _ in pair(cold, to(PORT, "b1", 0), to(words, "b2", 1)):
        assert assert_each_ended(both) == [0, 0], both
        whole(ready, "port", ready.root / "b1")
        whole(ready, name, ready.root / "b2")
        assert [len(ready.commits(repo)) for repo in repos] == [1, 1]
        ran, repo = ready.do("port")  # with the cache that they left
        assert ready.outcome("port", ran, repo) == "right"
        note("two with one cache", f"port, {name}", "right")
