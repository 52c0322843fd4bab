"""Chats as text for a causal model: where the messages lie in it, and which of it the assistant says."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any

from hf_bico.core.alignment import Part
from hf_bico.core.errors import PortError
from hf_bico.core.notes import note

Messages = Sequence[Mapping[str, Any]]
"""The messages of a chat in order, each with "role" and "content"."""
ASSISTANT, USER, SYSTEM = "assistant", "user", "system"
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


def rendered_chat(tokenizer: Any, messages: Messages, number: int, first: int = 0) -> Rendered:
    """Return a chat rendered by the tokenizer's template; without one, a line "role: content" per message.

    Of a template that refuses system turns, they are put before the user turn that follows, and that is said.

    Args:
        number: the sample's, for errors.
        first: the first message that is asked for; those before it are a prompt.

    Raises:
        PortError: a message's content is not text, or the template refuses the chat.
    """
    if not messages or not all(isinstance(message.get("content"), str) for message in messages):
        raise PortError(f"sample {number} has no message, or one whose content is not text: leave it out")
    if not tokenizer.chat_template:
        return _plain(messages, first)
    import jinja2

    try:
        return _templated(tokenizer, messages, first, list)
    except (jinja2.TemplateError, ValueError) as error:
        why = " ".join(str(error).split())
        if all(message["role"] != SYSTEM for message in messages):
            raise _misfit(number, why) from error
    try:
        made = _templated(tokenizer, messages, first, folded)
    except (jinja2.TemplateError, ValueError) as error:
        raise _misfit(number, " ".join(str(error).split())) from error
    note(f"a chat template takes no system turns ({why}): they are put before the user turn that follows")
    return made


def _misfit(number: int, why: str) -> PortError:
    return PortError(f"sample {number} does not fit the tokenizer's chat template: {why}")


def folded(messages: Messages) -> list[Mapping[str, Any]]:
    """Return a chat without system turns: each is put before the user turn that follows it, a blank line between.

    Raises:
        ValueError: no user turn follows one.
    """
    found: list[Mapping[str, Any]] = []
    held: list[str] = []
    for message in messages:
        if message["role"] == SYSTEM:
            held.append(message["content"])
        elif held and message["role"] != USER:
            break
        else:
            found.append({**message, "content": "\n\n".join([*held, message["content"]])})
            held = []
    if held:
        raise ValueError("a system turn has no user turn after it")
    return found


def _templated(
    tokenizer: Any, messages: Messages, first: int, prepared: Callable[[Messages], list[Mapping[str, Any]]]
) -> Rendered:
    """Return a chat rendered by the tokenizer's template.

    Args:
        prepared: makes of messages what the template is given.
    """

    def render(some: Messages, prompt: bool = False) -> str:
        given = [dict(each) for each in prepared(some)]
        text: str = tokenizer.apply_chat_template(given, tokenize=False, add_generation_prompt=prompt)
        return text

    def filled(contents: Sequence[str]) -> str:
        return render([{**message, "content": each} for message, each in zip(messages, contents, strict=True)])

    text = render(messages)
    parts = located(filled, [message["content"] for message in messages], text)
    turns = turns_of(render, messages, text, parts, first)
    marked = _marked(tokenizer, prepared(messages))
    if first and marked:  # of the prompt nothing is asked, whatever is marked in it
        start = min((span[0] for span in turns), default=len(text))
        marked = [span for span in marked if span[1] > start]
    return Rendered(text, parts, marked or turns, special=False)


def _plain(messages: Messages, first: int) -> Rendered:
    """Return a chat rendered without a template: a line "role: content" per message."""
    lines = [f"{message['role']}: {message['content'].strip()}" for message in messages]
    ends = list(accumulate(len(line) + 1 for line in lines))  # just after each line's newline
    text = "\n".join(lines)
    sizes = [len(message["content"].strip()) for message in messages]
    starts = [end - 1 - size for end, size in zip(ends, sizes, strict=True)]
    parts = [Part(start, size) for start, size in zip(starts, sizes, strict=True)]
    asked = [
        (start - 1, min(end, len(text)))
        for number, (message, start, end) in enumerate(zip(messages, starts, ends, strict=True))
        if message["role"] == ASSISTANT and number >= first
    ]
    return Rendered(text, parts, asked, close=messages[-1]["role"] == ASSISTANT)


def located(filled: Callable[[Sequence[str]], str], contents: Sequence[str], text: str) -> list[Part]:
    """Return where the contents of a chat, stripped, lie in the rendered text.

    The template is given marks in their place, lest a short content be found in the template's own words. If it does
    more to a content than strip it, the rendered text is searched for the contents in order.

    Args:
        filled: contents → the chat rendered with these in place of its own.
    """
    marks = [f"\ue000{number}\ue001" for number in range(len(contents))]
    pattern = filled(marks)
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


def turns_of(
    render: Callable[..., str], messages: Messages, text: str, parts: Sequence[Part], first: int
) -> list[tuple[int, int]]:
    """Return the characters of every assistant's turn, from the end of the generation prompt to the end of the turn.
    Turns before the message `first` are not asked for.

    Where the template renders a turn differently once others follow, only the message's content is returned.
    """
    import jinja2

    found = []
    for number, (message, part) in enumerate(zip(messages, parts, strict=True)):
        if message["role"] != ASSISTANT or number < first:
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
