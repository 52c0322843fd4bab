"""Prompts and answers about images as PaliGemma's processor takes them: apart from one another, without a template."""

import inspect
from collections.abc import Sequence
from typing import Any

from hf_bico.core.alignment import Part
from hf_bico.families.chat import Rendered


def takes_answers(processor: Any) -> bool:
    """Return whether a processor takes answers apart from what is asked, as PaliGemma's does."""
    return "suffix" in inspect.signature(type(processor).__call__).parameters


def prefixed(processor: Any, asked: Sequence[str | None], said: str) -> Rendered:
    """Return a prompt and its answer as PaliGemma's processor writes them: the token of the beginning comes after the
    last image, and a line ends before the answer.
    """
    begin, end = processor.tokenizer.bos_token, processor.tokenizer.eos_token
    last = max(place for place, part in enumerate(asked) if part is None)
    text, parts = "", []
    for place, part in enumerate(asked):
        if part is not None:
            parts.append(Part(len(text), len(part)))
        text += processor.image_token if part is None else part
        text += begin if place == last else ""
    parts.append(Part(len(text) + 1, len(said)))
    return Rendered(
        f"{text}\n{said}{end}", parts, [(len(text) + 1, len(text) + 1 + len(said) + len(end))], special=False
    )


def given_to(processor: Any, text: Rendered) -> dict[str, list[str]]:
    """Return the texts that a processor is called with."""
    if not takes_answers(processor):
        return {"text": [text.text]}
    seam, (begin, end) = text.asked[0][0], (processor.tokenizer.bos_token, processor.tokenizer.eos_token)
    seen = text.text.rfind(processor.image_token, 0, seam) + len(processor.image_token)  # the processor writes `begin`
    asked = text.text[:seen] + text.text[seen + len(begin) : seam - 1]
    return {"text": [asked], "suffix": [text.text[seam:].removesuffix(end)]}
