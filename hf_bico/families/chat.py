"""Chats as text for a causal model: where the messages lie in it, and which of it the assistant says."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any

from hf_bico.core.alignment import Part
from hf_bico.core.errors import PortError

Messages = Sequence[Mapping[str, Any]]
"""The messages of a chat in order, each with "role" and "content"."""
ASSISTANT = "assistant"
MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True)
class Rendered:
    """A sample as text for a causal model, and which of it the model is asked to predict."""

    text: str
    parts: Sequence[Part]
    """Where the sample's own texts lie; the rest is the template's."""
    asked: Sequence[tuple[int, int]]
    """Characters [start, end) that the model is asked to predict."""
    every: bool = False
    """Whether all tokens are asked for, special ones too."""
    special: bool = True
    """Whether the tokenizer's own special tokens are still to be added."""
    close: bool = False
    """Whether the end of sequence is still to be added."""


def rendered_chat(tokenizer: Any, messages: Messages, number: int) -> Rendered:
    """Return a chat rendered by the tokenizer's template; without one, a line "role: content" per message.

    Args:
        number: the sample's, for errors.

    Raises:
        PortError: a message's content is not text, or the template refuses the chat.
    """
    if not messages or not all(isinstance(message.get("content"), str) for message in messages):
        raise PortError(f"sample {number} has no message, or one whose content is not text: leave it out")
    if not tokenizer.chat_template:
        return _plain(messages)

    def render(some: Messages, prompt: bool = False) -> str:
        text: str = tokenizer.apply_chat_template(
            [dict(each) for each in some], tokenize=False, add_generation_prompt=prompt
        )
        return text

    import jinja2

    try:
        text = render(messages)
        parts = _located(render, messages, text)
        asked = _marked(tokenizer, messages) or _turns(render, messages, text, parts)
    except (jinja2.TemplateError, ValueError) as error:
        raise PortError(
            f"sample {number} does not fit the tokenizer's chat template: {' '.join(str(error).split())}"
        ) from error
    return Rendered(text, parts, asked, special=False)


def _plain(messages: Messages) -> Rendered:
    """Return a chat rendered without a template: a line "role: content" per message."""
    lines = [f"{message['role']}: {message['content'].strip()}" for message in messages]
    ends = list(accumulate(len(line) + 1 for line in lines))  # just after each line's newline
    text = "\n".join(lines)
    sizes = [len(message["content"].strip()) for message in messages]
    starts = [end - 1 - size for end, size in zip(ends, sizes, strict=True)]
    parts = [Part(start, size) for start, size in zip(starts, sizes, strict=True)]
    asked = [
        (start - 1, min(end, len(text)))
        for message, start, end in zip(messages, starts, ends, strict=True)
        if message["role"] == ASSISTANT
    ]
    return Rendered(text, parts, asked, close=messages[-1]["role"] == ASSISTANT)


def _located(render: Callable[[Messages], str], messages: Messages, text: str) -> list[Part]:
    """Return where the messages' contents, stripped, lie in the rendered text.

    The template is given marks in their place, lest a short content be found in the template's own words. If it does
    more to a content than strip it, the rendered text is searched for the contents in order.
    """
    contents = [message["content"] for message in messages]
    marks = [f"\ue000{number}\ue001" for number in range(len(contents))]
    pattern = render([{**message, "content": mark} for message, mark in zip(messages, marks, strict=True)])
    for given in (contents, [content.strip() for content in contents]):
        starts, whole = [], pattern
        for mark, content in zip(marks, given, strict=True):
            starts.append(whole.find(mark) + len(content) - len(content.lstrip()))
            whole = whole.replace(mark, content)
        if whole == text and all(mark in pattern for mark in marks):
            return [Part(start, len(content.strip())) for start, content in zip(starts, contents, strict=True)]
    parts, reached = [], 0
    for content in map(str.strip, contents):
        start = text.find(content, reached)
        parts.append(Part(None if start < 0 else start, len(content)))
        reached = reached if start < 0 else start + len(content)
    return parts


def _marked(tokenizer: Any, messages: Messages) -> list[tuple[int, int]]:
    """Return the characters that the template marks as the assistant's ({% generation %}); none if it has no marks."""
    if not tokenizer.is_fast or not MARKS.search(tokenizer.get_chat_template()):
        return []
    made = tokenizer.apply_chat_template(
        [dict(each) for each in messages],
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
        tokenizer_kwargs={"return_offsets_mapping": True},
    )
    runs = groupby(zip(made["offset_mapping"], made["assistant_masks"], strict=True), key=lambda each: each[1])
    spans = [[span for span, _ in run] for own, run in runs if own]
    return [(run[0][0], run[-1][1]) for run in spans]


def _turns(render: Callable[..., str], messages: Messages, text: str, parts: Sequence[Part]) -> list[tuple[int, int]]:
    """Return the characters of every assistant's turn, from the end of the generation prompt to the end of the turn.

    Where the template renders a turn differently once others follow, only the message's content is returned.
    """
    import jinja2

    found = []
    for number, (message, part) in enumerate(zip(messages, parts, strict=True)):
        if message["role"] != ASSISTANT:
            continue
        try:
            head, whole = render(messages[:number], True), render(messages[: number + 1])
        except (jinja2.TemplateError, ValueError):  # the template allows no chat that begins or ends like this
            head = whole = ""
        if whole and whole.startswith(head) and text.startswith(whole):
            found.append((len(head), len(whole)))
        elif part.start is not None:
            found.append((part.start, part.start + part.length))
    return found
