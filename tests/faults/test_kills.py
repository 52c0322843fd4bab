"""A port is stopped at 50 points of its work, by count of what it does to disk and network (`support.events`)."""

import shutil

import pytest
from support.broken import Broken, assert_one_line

POINTS, IN_A_ROW = 50, 5
"""Points, and how many kills in a row a rerun has to go on from."""
CODES = {"SIGKILL": 137, "SIGTERM": 143, "SIGINT": 130}
SAYS = {"SIGTERM": "Terminated; nothing was left half-written", "SIGINT": "Interrupted; nothing was left half-written"}
FEW = 10
"""Points in continuous integration, of the signals that a process can answer."""


def points_of(total: int, number: int) -> list[int]:
    """Events to strike at, spread over all of them."""
    return [1 + total * place // number for place in range(number)]


@pytest.fixture(scope="module")
def total(broken: Broken) -> dict[bool, int]:
    """How many events a clean port has, with a cold cache and with a warm one."""
    found = {}
    for cold in (True, False):
        broken.forget(cold=cold)
        ran, _ = broken.do("port", tell=True)
        assert ran.code == 0
        found[cold] = len(ran.events)
    assert found[True] > found[False] > 200
    return found


@pytest.mark.parametrize("cold", [True, False], ids=["cold", "warm"])
@pytest.mark.parametrize("name", CODES)
def test_a_port_that_is_stopped(ready, total, every, note, name, cold):
    """Half of the points are in a port that downloads all, half in one that need not."""
    number = (POINTS if every else 2 * FEW if name == "SIGKILL" else FEW) // 2
    points = points_of(total[cold], number)
    for first in range(0, number, IN_A_ROW):
        ready.forget(cold=cold)
        repo = None
        for point in points[first : first + IN_A_ROW]:
            shutil.rmtree(ready.out, ignore_errors=True)
            if cold:
                shutil.rmtree(ready.home / "hub", ignore_errors=True)
            before = len(ready.commits(repo)) if repo else 0
            ran, repo = ready.do("port", repo, at=point, then=name)
            assert_stopped(ready, ran, repo, name, before)
            note(name, "port", "stopped" if ran.code else "right")
        ready.assert_rerun_is_right("port", repo)


def assert_stopped(broken: Broken, ran, repo: str, name: str, before: int) -> None:
    """Nothing is half there; a process that could speak said one line, and left nothing beside its output."""
    commits = broken.assert_nothing_half("port", repo, before + 1)
    if ran.code == 0:  # it was done but for the last words
        assert broken.out.exists() and commits == before + 1
        return
    assert ran.code == CODES[name], ran
    if name != "SIGKILL":
        assert_one_line(ran, CODES[name])
        assert ran.error == SAYS[name], ran
        assert {path.name for path in broken.root.iterdir()} <= {"out", "home", "tmp"}
