"""Twelve classes of Debian's package descriptions: what a package is for, from what is said of it.

A text is the short description and two sentences of the long one, its class the package's section. Of every source one
package is taken, and no libraries, docs or data.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from hub_scripts.world.real.packages import kept, package_lists, read_list

CLASSES = (
    "games", "science", "sound", "video", "web", "net", "editors", "graphics", "math", "database", "admin", "mail",
)  # fmt: skip
TEST = 1500
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
# Sections of Debian's packages

{about}

{sizes}. Made by `hub_scripts/world/real/texts.py`.
"""
Row = dict[str, object]


def dataset() -> Path:
    """Return the task as a dataset folder, made once.

    Raises:
        NotToBeHad: apt's lists cannot be fetched.
    """
    return kept("sections", _write)


def rows(split: str) -> list[Row]:
    """Return the rows of a split: text and label."""
    import datasets

    return list(datasets.Dataset.from_parquet(str(dataset() / "data" / f"{split}-00000-of-00001.parquet")))


def split_of(records: Iterable[dict[str, str]], translations: dict[str, str]) -> dict[str, list[Row]]:
    """Return the splits, ordered by the hash of the package's source: no list's order is in them."""
    found, seen = [], set()
    for source, name, section in chosen(records):
        text = text_of(translations.get(name, ""))
        if text and text not in seen:
            seen.add(text)
            found.append((hashlib.sha256(source.encode()).hexdigest(), {"text": text, "label": CLASSES.index(section)}))
    ordered = [row for _, row in sorted(found, key=lambda pair: pair[0])]
    return {"train": ordered[TEST:], "test": ordered[:TEST]}


def chosen(records: Iterable[dict[str, str]]) -> Iterator[tuple[str, str, str]]:
    """Yield (source, package, section): for every source the package of its name, else the first by the alphabet."""
    best: dict[str, tuple[bool, str, str]] = {}
    for record in records:
        name, section = record["Package"], record.get("Section", "")
        if section in CLASSES and not OTHER.search(name):
            source = record.get("Source", name).split()[0]
            best[source] = min(best.get(source, (True, "~", "")), (name != source, name, section))
    yield from ((source, name, section) for source, (_, name, section) in sorted(best.items()))


def text_of(description: str) -> str:
    """Return the short description and the first sentences of the long one; "" where there is no long one."""
    short, _, long = description.partition("\n")
    words = " ".join(line.strip() for line in long.splitlines() if line.strip() != ".")
    sentences = re.split(r"(?<=[.!?])\s+", words.strip())[:SENTENCES]
    return f"{short.strip().rstrip('.')}. {' '.join(sentences)}" if words.strip() else ""


def paragraphs(text: str) -> Iterator[dict[str, str]]:
    """Yield the records of a file in Debian's format; lines that go on keep their line breaks."""
    for block in text.split("\n\n"):
        record: dict[str, str] = {}
        key = ""
        for line in block.splitlines():
            if line[:1] in (" ", "\t"):
                record[key] += "\n" + line[1:]
            else:
                key, _, value = line.partition(":")
                record[key] = value.strip()
        if "Package" in record:
            yield record


def _write(folder: Path) -> None:
    import datasets

    lists = package_lists()
    records = [record for file in sorted(lists.glob("*_Packages*")) for record in paragraphs(read_list(file))]
    translations = {
        record["Package"]: record["Description-en"]
        for file in sorted(lists.glob("*_Translation-en*"), reverse=True)  # the release last, so that it counts
        for record in paragraphs(read_list(file))
        if "Description-en" in record
    }
    (folder / "data").mkdir()
    splits = split_of(records, translations)
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=list(CLASSES)))
    for name, some in splits.items():
        datasets.Dataset.from_list(some, features=features).to_parquet(folder / f"data/{name}-00000-of-00001.parquet")
    sizes = ", ".join(f"{len(some)} {name}" for name, some in splits.items())
    about = __doc__.split("\n\n", 1)[1].strip()
    (folder / "README.md").write_text(CARD.format(about=about, sizes=sizes), encoding="utf-8")
