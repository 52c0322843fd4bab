"""Encodes images with the texts about them, as the processor of a vision-language model takes them.

The processor writes a run of tokens in the place of an image. Where two models' runs differ in length, their rows meet
as the patches do that they stand for.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_bico.core.alignment import Part, places
from hf_bico.core.errors import PortError, setting
from hf_bico.families.chat import ASSISTANT, Rendered, located, turns_of
from hf_bico.families.feeding import TEXT, UNASKED, Encoded, Row, Sample, _asked, _inputs, _padded, _spans, _tokens
from hf_bico.families.patches import Shown, cut_into, patches_of
from hf_bico.families.prefixed import given_to, prefixed, takes_answers

OWN = ("input_ids", "attention_mask", "labels")
"""What of a processor's outputs is made here."""


class Turn(NamedTuple):
    """A message of a chat about images."""

    role: str
    parts: tuple[str | None, ...]
    """Texts; None where the next image is."""


@dataclass(frozen=True)
class Sight:
    """Images, and what is said of them."""

    images: tuple[Any, ...]
    turns: tuple[Turn, ...]


class _Looked(NamedTuple):
    """A sample as one model takes it."""

    row: Row
    labels: list[int]
    shown: Shown
    others: Mapping[str, Tensor]
    """What the processor gives besides."""


def encode_sights(model: nn.Module, processor: Any, samples: Sequence[Sample], max_length: int | None) -> Encoded:
    """Encode images with a prompt and its completion, or with a chat, of which what the assistant says is asked for.

    Without a chat template they are the images, the texts one below the other, the completion and the end of sequence.

    Args:
        max_length: the most tokens beside those of images; nothing is cut.

    Raises:
        PortError: a sample does not fit the template or the processor, is too long, or has nothing to ask for.
    """
    takes = inspect.signature(model.forward).parameters
    found = [_looked(processor, sample, number, max_length) for number, sample in enumerate(samples)]
    inputs = _inputs(processor.tokenizer, [each.row for each in found])
    names = dict.fromkeys(name for each in found for name in each.others if name in takes and name not in OWN)
    for name in names:
        parts = [each.others[name] for each in found if name in each.others]
        of_tokens = all(part.shape == (1, len(each.row.ids)) for part, each in zip(parts, found, strict=False))
        inputs[name] = _padded([part[0].tolist() for part in parts], 0) if of_tokens else joined(parts)
    return Encoded(
        inputs,
        _padded([each.labels for each in found], UNASKED),
        _spans(TEXT, [each.row for each in found]),
        shown=[each.shown for each in found],
    )


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Return tensors (n, …) one after the other, each filled with zeros at the end to the size of the largest."""
    sizes = [max(part.shape[axis] for part in parts) for axis in range(1, parts[0].ndim)]
    fills = [
        [side for size, own in zip(sizes[::-1], part.shape[:0:-1], strict=True) for side in (0, size - own)]
        for part in parts
    ]
    return torch.cat([F.pad(part, fill) if any(fill) else part for part, fill in zip(parts, fills, strict=True)])


def _looked(processor: Any, sample: Sample, number: int, max_length: int | None) -> _Looked:
    """Return a sample as the processor takes it."""
    tokenizer = processor.tokenizer
    if not tokenizer.is_fast:
        raise PortError(
            "a slow tokenizer does not say where in a text a token lies, which texts with images need: add a "
            "tokenizer.json to its repo"
        )
    text, order = _rendered(processor, sample, number)
    made = _processed(processor, text, sample.inputs.images, number)
    ids, offsets = made.pop("input_ids")[0].tolist(), made.pop("offset_mapping")[0].tolist()
    swaps = made.pop("text_replacement_offsets")[0]
    expanded = _expanded(text, swaps)
    if takes_answers(processor):  # which are a text of their own
        answers, seam = made["token_type_ids"][0].tolist(), expanded.asked[0][0]
        offsets = [(start + seam * own, end + seam * own) for (start, end), own in zip(offsets, answers, strict=True)]
    tokens = _tokens((expanded.text,), offsets, [None if end == 0 else 0 for _, end in offsets])
    wanted = set(processor.image_token_ids)
    images = [patches_of(ids, offsets, swap["new_span"], wanted, number) for swap in swaps]
    runs = [
        Part(offsets[each.first][0], offsets[each.last - 1][1] - offsets[each.first][0], width=1) for each in images
    ]
    cuts = made.get("image_grid_thw")
    if cuts is not None:
        merge = processor.image_processor.merge_size
        images = [cut_into(each, tuple(cut.tolist()[1:]), merge) for each, cut in zip(images, cuts, strict=True)]
    texts, pictures = iter(expanded.parts), iter(runs)
    parts = [next(pictures) if is_image else next(texts) for is_image in order]
    came = _in_order(parts)
    row = Row(ids, None, tokens, places(tokens, [parts[i] for i in came], len(expanded.text)))
    asked = [own and token not in wanted for own, token in zip(_asked(tokenizer, expanded, row), ids, strict=True)]
    _require_fit(tokenizer, ids, sum(token not in wanted for token in ids), asked, number, max_length)
    labels = [token if own else UNASKED for token, own in zip(ids, asked, strict=True)]
    return _Looked(row, labels, Shown(tuple(came), tuple(images)), made)


def _in_order(parts: Sequence[Part]) -> list[int]:
    """Return the numbers of a sample's parts as they come in the text; what is not in it keeps its place."""
    starts: list[int] = []
    for part in parts:
        starts.append(part.start if part.start is not None else starts[-1] if starts else 0)
    return sorted(range(len(parts)), key=starts.__getitem__)


def _require_fit(
    tokenizer: Any, ids: Sequence[int], words: int, asked: Sequence[bool], number: int, max_length: int | None
) -> None:
    """Refuse a sample that is too long, or has nothing to ask for: with images in it, no text is cut."""
    if max_length is not None and words > max_length:
        raise PortError(
            f"sample {number} has {words} tokens beside those of its images, and a text with images is not cut: give a "
            f"{setting('max_length')} of {words} or more, or leave the sample out"
        )
    if len(ids) > tokenizer.model_max_length:
        raise PortError(
            f"sample {number} has {len(ids)} tokens with those of its images, and the model has positions for "
            f"{tokenizer.model_max_length}: leave the sample out"
        )
    if not any(asked[1:]):
        raise PortError(f"sample {number} has nothing that is asked for: leave the sample out")


def _rendered(processor: Any, sample: Sample, number: int) -> tuple[Rendered, list[bool]]:
    """Return a sample as text with a placeholder an image; and, of its texts and images in order, which are images."""
    sight, label = sample.inputs, sample.label
    later = (Turn(ASSISTANT, (label,)),) if isinstance(label, str) else label or ()
    turns = (*sight.turns, *later)
    order = [part is None for turn in turns for part in turn.parts]
    if takes_answers(processor):
        if len(turns) != 2 or not isinstance(label, str):
            raise PortError(
                f"sample {number} is a chat, and a {type(processor).__name__} takes a prompt and its answer: give those"
            )
        return prefixed(processor, turns[0].parts, label), order
    template = processor.chat_template or processor.tokenizer.chat_template
    if not template:
        return _plain(processor, turns, later, chat=not isinstance(label, str)), order
    return _templated(processor, template, turns, len(sight.turns) if later else 0, number), order


def _templated(processor: Any, template: str, turns: Sequence[Turn], first: int, number: int) -> Rendered:
    """Return a chat rendered by the template; what the assistant says from the turn `first` on is asked for."""
    import jinja2

    def render(some: Sequence[Mapping[str, Any]], prompt: bool = False) -> str:
        text: str = processor.apply_chat_template(
            [dict(each) for each in some], chat_template=template, tokenize=False, add_generation_prompt=prompt
        )
        return text

    texts = [part for turn in turns for part in turn.parts if part is not None]
    messages = _messages(turns, texts)
    try:
        text = render(messages)
        parts = located(lambda some: render(_messages(turns, some)), texts, text)
        counts = [sum(part is not None for part in turn.parts) for turn in turns]
        ends = [sum(counts[: k + 1]) - 1 for k in range(len(turns))]
        last = [parts[end] if count else Part(None, 0) for end, count in zip(ends, counts, strict=True)]
        return Rendered(text, parts, turns_of(render, messages, text, last, first), special=not _begun(processor, text))
    except (jinja2.TemplateError, TypeError, ValueError) as error:
        raise PortError(
            f"sample {number} does not fit the processor's chat template: {' '.join(str(error).split())}"
        ) from error


def _messages(turns: Sequence[Turn], texts: Sequence[str]) -> list[dict[str, Any]]:
    """Return turns as chat templates take them, with these texts in place of their own."""
    rest = iter(texts)
    return [
        {
            "role": turn.role,
            "content": [
                {"type": "image"} if part is None else {"type": "text", "text": next(rest)} for part in turn.parts
            ],
        }
        for turn in turns
    ]


def _begun(processor: Any, text: str) -> bool:
    """Return whether a rendered chat has the token already that a text begins with."""
    begin = processor.tokenizer.bos_token
    return begin is not None and text.startswith(begin)


def _plain(processor: Any, turns: Sequence[Turn], later: Sequence[Turn], *, chat: bool) -> Rendered:
    """Return turns as text without a template: of a chat a line "role: content" each, else the texts alone."""
    text, parts, asked = "", [], []
    for number, turn in enumerate(turns):
        answers = turn.role == ASSISTANT and number >= (len(turns) - len(later) if later else 0)
        start = len(text)
        text += f"{turn.role}: " if chat else ""
        start = max(len(text) - 1, 0) if chat else start
        for part in turn.parts:
            own = f"{processor.image_token}\n" if part is None else part.strip()
            if part is not None:
                parts.append(Part(len(text), len(own)))
            text += own
        last = number + 1 == len(turns)
        text += (processor.tokenizer.eos_token or "") if last and answers else "" if last else "\n" if chat else " "
        if answers:
            asked.append((start, len(text)))
    return Rendered(text, parts, asked)


def _processed(processor: Any, text: Rendered, images: Sequence[Any], number: int) -> dict[str, Any]:
    """Return what a processor makes of one sample."""
    try:
        made = processor(
            **given_to(processor, text),
            images=[list(images)],
            add_special_tokens=text.special,
            padding=False,
            return_offsets_mapping=True,
            return_text_replacement_offsets=True,
            return_tensors="pt",
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise PortError(
            f"sample {number} does not fit the {type(processor).__name__}: {' '.join(str(error).split())}"
        ) from error
    if "text_replacement_offsets" not in made or "offset_mapping" not in made:
        raise PortError(
            f"the {type(processor).__name__} of this transformers does not say where it writes images: transformers "
            "5.24 or newer does"
        )
    return dict(made)


def _expanded(text: Rendered, swaps: Sequence[Mapping[str, Any]]) -> Rendered:
    """Return a text with every image's placeholder replaced as the processor does."""
    pieces, reached = [], 0
    for swap in swaps:
        start, end = swap["span"]
        pieces += [text.text[reached:start], swap["replacement"]]
        reached = end

    def moved(at: int) -> int:
        return at + sum(len(swap["replacement"]) - len(swap["text"]) for swap in swaps if swap["span"][1] <= at)

    return Rendered(
        "".join([*pieces, text.text[reached:]]),
        [part if part.start is None else part._replace(start=moved(part.start)) for part in text.parts],
        [(moved(start), moved(end)) for start, end in text.asked],
        special=text.special,
    )
