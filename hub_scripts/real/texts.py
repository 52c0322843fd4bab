"""Real texts with real answers, from Debian's package descriptions: what a package is for, and what it is in German.

Of every source one package is taken, and no libraries, docs or data; where its texts go is the hash of its source's
name, so that no list's order is in the splits.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from hub_scripts.real.packages import kept, package_lists, read_list

CLASSES = (
    "games", "science", "sound", "video", "web", "net", "editors", "graphics", "math", "database", "admin", "mail",
)  # fmt: skip
SECTIONS, GERMAN = "sections", "german"
ABOUT = {
    SECTIONS: "What a package is for, in twelve classes. A text is the short description and two sentences of the long "
    "one, its class the package's section.",
    GERMAN: "The German short description of a package (`anchor`) and the English one (`positive`).",
}
TEST = {SECTIONS: 1500, GERMAN: 1000}
SENTENCES = 2
OTHER = re.compile(r"^lib|-(doc|docs|data|dev|common|dbg|dbgsym|examples|l10n|i18n)$|-(doc|data|l10n|lang)-")
"""Names of packages that are no programs."""
CARD = """---
license: other
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-00000-of-00001.parquet
  - split: test
    path: data/test-00000-of-00001.parquet
---
# Debian's packages: {task}

{about} {sizes}. Made by `hub_scripts/real/texts.py`.
"""
Row = dict[str, object]
Record = dict[str, str]


def dataset(task: str) -> Path:
    """Return SECTIONS or GERMAN as a dataset folder, made once.

    Raises:
        NotToBeHad: apt's lists cannot be fetched.
    """
    return kept(task, lambda folder: _write(task, folder))


def rows(task: str, split: str) -> list[Row]:
    """Return the rows of a split: text and label, or anchor and positive."""
    import datasets

    return list(datasets.Dataset.from_parquet(str(dataset(task) / "data" / f"{split}-00000-of-00001.parquet")))


def other_texts() -> list[tuple[str, str]]:
    """Return (short, long) descriptions of packages whose section is none of CLASSES: texts that no task has.

    Raises:
        NotToBeHad: apt's lists cannot be fetched.
    """
    told = descriptions("en")
    found = {_two(told.get(name, "")) for _, name, _ in chosen(records(), lambda section: section not in CLASSES)}
    return sorted(pair for pair in found if pair[1])


def records() -> list[Record]:
    """Return the packages of apt's lists."""
    files = sorted(package_lists().glob("*_Packages*"))
    return [record for file in files for record in paragraphs(read_list(file))]


def descriptions(language: str) -> dict[str, str]:
    """Return every package's description in a language."""
    files = sorted(package_lists().glob(f"*_Translation-{language}*"), reverse=True)  # the release counts: it is last
    key = f"Description-{language}"
    return {r["Package"]: r[key] for file in files for r in paragraphs(read_list(file)) if key in r}


def sections_of(some: Iterable[Record], told: dict[str, str]) -> dict[str, list[Row]]:
    """Return the splits of SECTIONS."""
    found = [
        (source, text_of(told.get(name, "")), section) for source, name, section in chosen(some, CLASSES.__contains__)
    ]
    return split_of(
        SECTIONS, [(source, {"text": text, "label": CLASSES.index(section)}) for source, text, section in found if text]
    )


def german_of(some: Iterable[Record], english: dict[str, str], german: dict[str, str]) -> dict[str, list[Row]]:
    """Return the splits of GERMAN: packages whose descriptions are translated, and not by the same words."""
    found = []
    for source, name, _ in chosen(some, lambda section: True):
        pair = tuple(told.get(name, "").partition("\n")[0].strip() for told in (german, english))
        if all(pair) and pair[0] != pair[1]:
            found.append((source, dict(zip(("anchor", "positive"), pair, strict=True))))
    return split_of(GERMAN, found)


def split_of(task: str, found: Iterable[tuple[str, Row]]) -> dict[str, list[Row]]:
    """Return rows of sources as splits; of rows with the same last text (or the same text) one is kept."""
    last = "text" if task == SECTIONS else "positive"
    some = {row[last]: (hashlib.sha256(source.encode()).hexdigest(), row) for source, row in reversed(list(found))}
    ordered = [row for _, row in sorted(some.values(), key=lambda pair: pair[0])]
    return {"train": ordered[TEST[task] :], "test": ordered[: TEST[task]]}


def chosen(some: Iterable[Record], wanted: Callable[[str], bool]) -> Iterator[tuple[str, str, str]]:
    """Yield (source, package, section): for every source the package of its name, else the first by the alphabet."""
    best: dict[str, tuple[bool, str, str]] = {}
    for record in some:
        name, section = record["Package"], record.get("Section", "")
        if wanted(section) and not OTHER.search(name):
            source = record.get("Source", name).split()[0]
            best[source] = min(best.get(source, (True, "~", "")), (name != source, name, section))
    yield from ((source, name, section) for source, (_, name, section) in sorted(best.items()))


def text_of(description: str) -> str:
    """Return the short description and the first sentences of the long one; "" where there is no long one."""
    short, long = _two(description)
    return f"{short}. {long}" if long else ""


def _two(description: str) -> tuple[str, str]:
    short, _, long = description.partition("\n")
    words = " ".join(line.strip() for line in long.splitlines() if line.strip() != ".")
    return short.strip().rstrip("."), " ".join(re.split(r"(?<=[.!?])\s+", words.strip())[:SENTENCES])


def paragraphs(text: str) -> Iterator[Record]:
    """Yield the records of a file in Debian's format; lines that go on keep their line breaks."""
    for block in text.split("\n\n"):
        record: Record = {}
        key = ""
        for line in block.splitlines():
            if line[:1] in (" ", "\t"):
                record[key] += "\n" + line[1:]
            else:
                key, _, value = line.partition(":")
                record[key] = value.strip()
        if "Package" in record:
            yield record


def _write(task: str, folder: Path) -> None:
    import datasets

    english = descriptions("en")
    splits = sections_of(records(), english) if task == SECTIONS else german_of(records(), english, descriptions("de"))
    text, names = datasets.Value("string"), list(CLASSES)
    columns = {
        SECTIONS: {"text": text, "label": datasets.ClassLabel(names=names)},
        GERMAN: {"anchor": text, "positive": text},
    }
    (folder / "data").mkdir()
    for name, some in splits.items():
        made = datasets.Dataset.from_list(some, features=datasets.Features(columns[task]))
        made.to_parquet(folder / f"data/{name}-00000-of-00001.parquet")
    sizes = ", ".join(f"{len(some)} {name}" for name, some in splits.items())
    (folder / "README.md").write_text(CARD.format(task=task, about=ABOUT[task], sizes=sizes), encoding="utf-8")
