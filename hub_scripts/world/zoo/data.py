"""The zoo's tasks as dataset folders: parquet files of train, validation and test, and a card.

Images are those of tasks.py. Texts are crops of docstrings, 8 to 40 words, of sections that no other split has; those
of the test split come from files that no model has seen. `code` holds functions of Python packages without their
docstrings; `heading` asks for the heading of a section in words.
"""

from __future__ import annotations

import ast
import re
import sysconfig
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from hub_scripts.world.text.corpus import held_out
from hub_scripts.world.text.tasks import KINDS, TOPICS
from hub_scripts.world.zoo.text import sections
from hub_scripts.world.zoo.training import ZOO, digest
from hub_scripts.world.zoo.vit import VIT_TASKS

SPLITS = {"train": 3000, "validation": 300, "test": 600}
WORDS = (8, 40)
CODE_PACKAGES = ("networkx", "scipy", "sklearn")
CODE_LENGTH = (200, 700)
RUN = 8
HEADINGS = {
    "opening": " Summary",
    "parameters": " Parameters",
    "returns": " Returns",
    "examples": " Examples",
    "notes": " Notes",
    "references": " References",
}
ASKED = " This section is called"
Row = dict[str, object]


@dataclass(frozen=True)
class TextTask:
    """Rows of a split, and the names of the classes where there are any."""

    rows: Callable[[str], list[Row]]
    classes: tuple[str, ...] = ()


def split_of(package: str, document: int, held: bool) -> str:
    """Test: files held out of pre-training; validation: one document in ten of the others."""
    return "test" if held else "validation" if document % 10 == 7 else "train"


def crops(split: str, classes: list[Callable[[str, str], bool]], seed: int) -> Iterator[tuple[str, int]]:
    """(crop, class), the classes in turn, without repeats; a class is given by (package, heading) → bool."""
    rng = np.random.default_rng([seed, list(SPLITS).index(split)])
    pools = [
        [
            line.split()
            for package, document, held, heading, line in sections()
            if of(package, heading) and split_of(package, document, held) == split
        ]
        for of in classes
    ]
    pools = [[words for words in pool if len(words) >= WORDS[0]] for pool in pools]
    seen, label = set(), 0
    while True:
        words = pools[label][rng.integers(len(pools[label]))]
        count = int(rng.integers(WORDS[0], min(WORDS[1], len(words)) + 1))
        start = int(rng.integers(len(words) - count + 1))
        text = " ".join(words[start : start + count])
        if text not in seen:
            seen.add(text)
            yield text, label
            label = (label + 1) % len(classes)


def taken(pairs: Iterator[tuple[str, int]], split: str, seed: int) -> list[Row]:
    """As many rows as the split has, shuffled."""
    rows = [{"text": text, "label": label} for (text, label), _ in zip(pairs, range(SPLITS[split]), strict=False)]
    return [rows[i] for i in np.random.default_rng([seed, 99]).permutation(len(rows))]


def topic(split: str) -> list[Row]:
    """Which package a crop is from."""
    return taken(crops(split, [lambda p, h, t=t: p == t for t in TOPICS], 1), split, 1)


def kind(split: str) -> list[Row]:
    """Which section of a docstring a crop is from."""
    return taken(crops(split, [lambda p, h, k=k: h in k for k in KINDS.values()], 2), split, 2)


def shuffle(split: str) -> list[Row]:
    """Whether a run of RUN words of the crop is in another order."""
    rng, both = np.random.default_rng([3, list(SPLITS).index(split)]), lambda p, h: p in TOPICS and h != "References"
    pairs = ((shuffled(text, rng) if label else text, label) for text, label in crops(split, [both, both], 3))
    return taken(pairs, split, 3)


def shuffled(text: str, rng: np.random.Generator) -> str:
    words = text.split()
    start = int(rng.integers(len(words) - RUN + 1))
    run = [words[start + i] for i in rng.permutation(RUN)]
    return " ".join([*words[:start], *run, *words[start + RUN :]])


def heading(split: str) -> list[Row]:
    """The crop and a question as the prompt, the heading of its section as the completion."""
    names = list(HEADINGS.values())
    return [{"prompt": f"{row['text']}{ASKED}", "completion": names[row["label"]]} for row in kind(split)]


def code(split: str) -> list[Row]:
    """Functions as text; those of held-out files are the test split's."""
    rng, found = np.random.default_rng(4), {name: [] for name in SPLITS}
    for place, (file, text) in enumerate(functions()):
        found[split_of("", place, held_out(file))].append(text)
    rows = found[split]
    return [{"text": rows[i]} for i in rng.permutation(len(rows))[: SPLITS[split]]]


@cache
def functions() -> tuple[tuple[str, str], ...]:
    """(file, source) of functions without their docstrings, an indent as one tab, without repeats."""
    return tuple(_functions())


def _functions() -> Iterator[tuple[str, str]]:
    site, seen = Path(sysconfig.get_paths()["purelib"]), set()
    for package in CODE_PACKAGES:
        for path in sorted((site / package).rglob("*.py"), key=lambda p: p.relative_to(site).as_posix()):
            for text in _functions_of(path.read_text(encoding="utf-8", errors="replace")):
                if CODE_LENGTH[0] <= len(text) <= CODE_LENGTH[1] and text not in seen:
                    seen.add(text)
                    yield path.relative_to(site).as_posix(), text


def _functions_of(source: str) -> Iterator[str]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    lines = source.splitlines()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            kept = lines[node.lineno - 1 : node.end_lineno]
            if ast.get_docstring(node) is not None:
                first, last = node.body[0].lineno - node.lineno, node.body[0].end_lineno - node.lineno
                kept = kept[:first] + kept[last + 1 :]
            text = textwrap.dedent("\n".join(line for line in kept if line.strip()))
            yield re.sub(r"^(?: {4})+", lambda m: "\t" * (len(m[0]) // 4), text, flags=re.MULTILINE)


TEXT_TASKS = {
    "topic": TextTask(topic, TOPICS),
    "kind": TextTask(kind, tuple(KINDS)),
    "shuffle": TextTask(shuffle, ("as written", "shuffled")),
    "code": TextTask(code),
    "heading": TextTask(heading),
}
CARD = """---
license: other
configs:
- config_name: default
  data_files:
{files}
---
# {task}

{about}
Made by `hub_scripts/world/zoo/data.py` from what is installed: {sizes}.
"""


def dataset(task: str) -> Path:
    """The folder of a task, made where it is not there: data/SPLIT-00000-of-00001.parquet and README.md."""
    import datasets

    folder = ZOO / "data" / task
    if (folder / "README.md").is_file():
        return folder
    datasets.disable_progress_bars()
    (folder / "data").mkdir(parents=True, exist_ok=True)
    sizes, files = {}, []
    for split in SPLITS:
        table, name = _table(task, split), f"data/{split}-00000-of-00001.parquet"
        table.to_parquet(folder / name)
        sizes[split] = len(table)
        files.append(f"  - split: {split}\n    path: {name}")
    about = TEXT_TASKS[task].rows.__doc__ if task in TEXT_TASKS else "Images and their classes, see tasks.py."
    card = CARD.format(
        task=task,
        about=about,
        files="\n".join(files),
        sizes=", ".join(f"{count} {split}" for split, count in sizes.items()),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    return folder


def _table(task: str, split: str):
    """A split as a `datasets.Dataset`."""
    import datasets

    if task in VIT_TASKS:
        return _image_table(task, split)
    rows, classes = TEXT_TASKS[task].rows(split), TEXT_TASKS[task].classes
    features = {key: datasets.Value("string") for key in rows[0]}
    if classes:
        features["label"] = datasets.ClassLabel(names=list(classes))
    return datasets.Dataset.from_list(rows, features=datasets.Features(features))


def _image_table(task: str, split: str):
    import datasets
    from PIL import Image

    from hub_scripts.world.vision.tasks import TASKS, pixels

    images, labels = pixels(task, split)
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=list(TASKS[task].classes)))
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    return datasets.Dataset.from_dict({"image": pictures, "label": labels.tolist()}, features=features)


def rows(task: str, split: str) -> list[Row]:
    """A text task's rows as they lie in the folder."""
    import datasets

    return list(datasets.Dataset.from_parquet(str(dataset(task) / "data" / f"{split}-00000-of-00001.parquet")))


def told(task: str) -> str:
    """A digest of a task's training split."""
    return digest(rows(task, "train")) if task in TEXT_TASKS else digest(task)
