"""English prose that every machine with our dependencies has: their docstrings, as tokens of a small BPE.

A document is one docstring. Documents of every fifth source file are held out: neither the tokenizer nor a base nor
a fine-tune sees them. The text follows the installed versions; `weights/t5-README.md` names those of the weights.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from hub_scripts.world.places import CACHE, WEIGHTS

PACKAGES = {
    "matplotlib": "matplotlib",
    "networkx": "networkx",
    "numpy": "numpy",
    "pandas": "pandas",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "sympy": "sympy",
    "torch": "torch",
}
"""Folder in site-packages → distribution."""
SHORTEST = 200
"""Characters below which a docstring is no document."""
VOCABULARY = 2048
SPECIAL = ("<pad>", "</s>", "<mask>")
PAD, END, MASK = range(3)
TOKENIZER = WEIGHTS / "t5-tokenizer.json"
SECTION = re.compile(r"^ *([A-Z][A-Za-z]+(?: [A-Z][a-z]+)?) *\n *[-=~]{3,} *$", re.MULTILINE)
"""A numpydoc heading: a line of one or two words, underlined."""


@dataclass(frozen=True)
class Piece:
    """One section of a docstring; the first has no heading."""

    package: str
    document: int
    held_out: bool
    section: str
    ids: np.ndarray
    """(n,) uint16"""


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(distribution) for name, distribution in PACKAGES.items()}


def docstrings() -> Iterator[tuple[str, str, str]]:
    """(package, file, docstring) without repeats, in an order that depends on names alone."""
    site, seen = Path(sysconfig.get_paths()["purelib"]), set()
    for package in PACKAGES:
        for path in sorted((site / package).rglob("*.py"), key=lambda p: p.relative_to(site).as_posix()):
            for text in _of_file(path):
                if text not in seen:
                    seen.add(text)
                    yield package, path.relative_to(site).as_posix(), text


def _of_file(path: Path) -> Iterator[str]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError, ValueError):
        return
    for node in ast.walk(tree):
        text = ast.get_docstring(node) if isinstance(node, kinds) else None
        if text and len(text) >= SHORTEST:
            yield text


def held_out(file: str) -> bool:
    """One file in five, by a hash of its name, so that no other package moves it."""
    return hashlib.sha256(file.encode()).digest()[0] % 5 == 0


def sections(text: str) -> Iterator[tuple[str, str]]:
    """(heading, body in one line) of a docstring."""
    parts = SECTION.split(text)
    for heading, body in zip(["", *parts[1::2]], parts[::2], strict=True):
        line = " ".join(body.split())
        if line:
            yield heading, line


def train_tokenizer() -> Tokenizer:
    """A byte-level BPE of the documents that are not held out."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel()]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    texts = (line for _, file, text in docstrings() if not held_out(file) for _, line in sections(text))
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


@cache
def pieces() -> list[Piece]:
    """All sections of all documents as tokens; kept in `.world/` for the next time."""
    told = f"{sorted(versions().items())} {TOKENIZER.read_text()}"
    path = CACHE / f"text-{hashlib.sha256(told.encode()).hexdigest()[:12]}.npz"
    if not path.is_file():
        CACHE.mkdir(exist_ok=True)
        np.savez_compressed(path, **_tokenized())
    with np.load(path) as kept:
        data = {key: kept[key] for key in kept.files}
    packages, ends = list(PACKAGES), np.cumsum(data["length"])
    return [
        Piece(packages[p], int(d), bool(h), str(s), data["ids"][end - n : end])
        for p, d, h, s, n, end in zip(
            data["package"], data["document"], data["held_out"], data["section"], data["length"], ends, strict=True
        )
    ]


def _tokenized() -> dict[str, np.ndarray]:
    tokenizer, rows, ids = Tokenizer.from_file(str(TOKENIZER)), [], []
    packages = list(PACKAGES)
    for document, (package, file, text) in enumerate(docstrings()):
        for heading, line in sections(text):
            ids.append(np.array(tokenizer.encode(line).ids, dtype=np.uint16))
            rows.append((packages.index(package), document, held_out(file), heading, len(ids[-1])))
    columns = dict(
        zip(
            ("package", "document", "held_out", "section", "length"),
            map(np.array, zip(*rows, strict=True)),
            strict=True,
        )
    )
    return columns | {"ids": np.concatenate(ids)}


def stream() -> np.ndarray:
    """(n,) The documents that are not held out, one after the other, each ended by END."""
    parts, last = [], None
    for piece in pieces():
        if not piece.held_out:
            if last not in (None, piece.document):
                parts.append(np.array([END], dtype=np.uint16))
            parts.append(piece.ids)
            last = piece.document
    return np.concatenate(parts)


@cache
def documents(held_out: bool) -> list[tuple[str, np.ndarray]]:
    """(package, ids) of whole documents."""
    found: dict[int, tuple[str, list[np.ndarray]]] = {}
    for piece in pieces():
        if piece.held_out == held_out:
            found.setdefault(piece.document, (piece.package, []))[1].append(piece.ids)
    return [(package, np.concatenate(ids)) for package, ids in found.values()]
