"""Every kind of fault at every kind of request: what comes of it is right, or one line, and a rerun is right."""

import re
from functools import cache

import pytest
from support.broken import WORK, Broken
from support.fault_kinds import KINDS, fault
from support.faulty import faulty

IDS = {
    r"[0-9a-f]{64}": "OID",
    r"[0-9a-f]{40}": "COMMIT",
    r"demo/broken-\d+": "demo/new",
    r"little-(ft|base|plus)": "MODEL",
}
IDS |= {r"(README\.md|[\w.]+\.json)$": "SMALL"}
"""Patterns of what differs between requests of one kind, and what stands for it."""
PUSHING = ("whoami", "demo/new", "create", "yaml")
"""Parts of requests that a command with a warm cache makes too."""


def kind_of(line: str) -> tuple[str, str]:
    """A request's method, and its path as a pattern."""
    method, path = line.split(" ", 1)
    path = path.split("?")[0]
    for pattern, word in IDS.items():
        path = re.sub(pattern, word, path)
    return method, path


def pattern_of(path: str) -> str:
    """What the paths of a kind match."""
    found = re.escape(path)
    for pattern, word in IDS.items():
        found = found.replace(re.escape(word), pattern.removesuffix("$"))
    return rf"^{found}(\?|$)"


@cache
def requests(broken: Broken) -> list[tuple[str, str, str]]:
    """Work, method and path of every kind of request of clean runs with nothing in the cache."""
    found = []
    for work in WORK:
        broken.forget(cold=True)
        broken.proxy.seen.clear()
        assert broken.do(work)[0].code == 0
        found += [(work, *each) for each in dict.fromkeys(map(kind_of, broken.proxy.seen))]
    assert len(found) > 30
    return found


@pytest.fixture(scope="module")
def other(broken):
    """Another server, which has nothing to do with the Hub."""
    with faulty("http://127.0.0.1:9") as found:
        found.faults += [fault("a page to log in", ".*", ".*", 10**9, "")]
        yield found.url.replace("127.0.0.1", "localhost")


def chosen(kind: str, every: bool, all_of_them: list) -> list:
    """The requests that meet a kind of fault: all, or one, another for each kind; every other time a port's."""
    number = list(KINDS).index(kind)
    if every:
        return list(enumerate(all_of_them))
    port = [each for each in enumerate(all_of_them) if each[1][0] == "port"]
    rest = [each for each in enumerate(all_of_them) if each[1][0] != "port"]
    some = rest if number % 2 else port
    return [some[(number * 5 + len(some) // 3) % len(some)]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_ends_right_or_in_one_line(ready, other, every, note, kind):
    for place, (work, method, path) in chosen(kind, every, requests(ready)):
        times = 1 + 99 * ((place + list(KINDS).index(kind)) % 2)
        where = f"{work}: {kind} at {method} {path}, {times} times"
        ready.forget(cold=not any(part in path for part in PUSHING))
        ready.proxy.faults[:] = [met := fault(kind, method, pattern_of(path), times, other)]
        ran, repo = ready.do(work)
        ready.proxy.faults.clear()
        try:
            assert met.struck
            outcome = ready.outcome(work, ran, repo)
            if outcome != "right":
                ready.assert_rerun_is_right(work, repo)
        except AssertionError as error:
            note(kind, f"{work}: {method} {path}", "wrong")
            error.add_note(f"{where}\n{ran.err[-3000:]}")
            if not every:
                raise
            print(f"WRONG {where}: {error}"[:3000], ran.err[-1500:], sep="\n")
        else:
            note(kind, f"{work}: {method} {path}", outcome)
