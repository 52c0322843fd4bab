"""Tokenizers and token streams of the zoo's text models, from the docstrings of text.corpus as strings."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from hub_scripts.world.places import WEIGHTS
from hub_scripts.world.text.corpus import END, MASK, PAD, SPECIAL, TOKENIZER, docstrings, held_out, stream, versions
from hub_scripts.world.text.corpus import sections as split
from hub_scripts.world.zoo.training import ZOO, digest, file_digest

OTHER = WEIGHTS / "zoo-tokenizer.json"
"""The second vocabulary, lm-c's."""
OTHER_SIZE = 1536
CLS = "<s>"


@cache
def sections() -> list[tuple[str, int, bool, str, str]]:
    """(package, document, held out, heading, text in one line) of all docstrings; kept for the next time."""
    path = ZOO / f"sections-{digest(sorted(versions().items()))}.json"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        found = [
            (package, document, held_out(file), heading, line)
            for document, (package, file, text) in enumerate(docstrings())
            for heading, line in split(text)
        ]
        path.write_text(json.dumps(found))
    return [tuple(row) for row in json.loads(path.read_text())]


@cache
def documents(held_out: bool) -> list[tuple[str, str]]:
    """(package, text) of whole docstrings, their sections joined by a space."""
    found: dict[int, tuple[str, list[str]]] = {}
    for package, document, held, _, line in sections():
        if held == held_out:
            found.setdefault(document, (package, []))[1].append(line)
    return [(package, " ".join(lines)) for package, lines in found.values()]


def train_other() -> Tokenizer:
    """A byte-level BPE of another size, which joins digits; of the documents that are not held out."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=OTHER_SIZE,
        special_tokens=list(SPECIAL),
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator((text for _, text in documents(False)), trainer)
    return tokenizer


def other_stream() -> np.ndarray:
    """(n,) uint16, as text.corpus.stream under the second vocabulary; kept for the next time."""
    path = ZOO / f"stream-{file_digest(OTHER)}.npy"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        coded = Tokenizer.from_file(str(OTHER)).encode_batch([text for _, text in documents(False)])
        np.save(path, np.concatenate([np.array([*one.ids, END], dtype=np.uint16) for one in coded]))
    return np.load(path)


def stream_of(tokenizer: str) -> np.ndarray:
    """The training documents under the vocabulary `first` or `other`."""
    return other_stream() if tokenizer == "other" else stream()


def write_tokenizer(folder: Path, kind: str) -> None:
    """Tokenizer files of `bert` (first vocabulary, with a CLS token behind it), `first` or `other`."""
    from transformers import PreTrainedTokenizerFast

    inner, options = Tokenizer.from_file(str(OTHER if kind == "other" else TOKENIZER)), {}
    if kind == "bert":
        inner.add_special_tokens([CLS])
        pair = [(CLS, inner.token_to_id(CLS)), (SPECIAL[END], END)]
        inner.post_processor = processors.TemplateProcessing(
            single=f"{CLS} $A {SPECIAL[END]}",
            pair=f"{CLS} $A {SPECIAL[END]} $B:1 {SPECIAL[END]}:1",
            special_tokens=pair,
        )
        options = {"cls_token": CLS, "sep_token": SPECIAL[END], "mask_token": SPECIAL[MASK]}
    else:
        options = {"eos_token": SPECIAL[END]}
    PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=SPECIAL[PAD],
        model_max_length=128,
        clean_up_tokenization_spaces=False,
        **options,
    ).save_pretrained(folder)
