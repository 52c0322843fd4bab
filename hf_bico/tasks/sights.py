"""Images with texts: which rows of a dataset are that, and what a vision-language model is asked of them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hf_bico.core.errors import PortError
from hf_bico.families.chat import ASSISTANT, USER
from hf_bico.families.feeding import Encoded
from hf_bico.families.protocol import Loaded
from hf_bico.families.sights import Sight, Turn, encode_sights
from hf_bico.tasks.chats import SPEAKERS
from hf_bico.tasks.objectives import Completion
from hf_bico.tasks.pictures import as_rgb

MARK = "<image>"
"""What stands in a dataset's text where an image goes."""
MEND = "leave such rows out of the dataset, or name another split"


@dataclass(frozen=True)
class Seeing(Completion):
    """Next-token loss of what is said of images, scored by whether the whole answer is right."""

    def encode(self, samples: Sequence[Any]) -> Encoded:
        return encode_sights(self.side.model, processor_of(self.side), samples, self.max_length)


def processor_of(side: Loaded) -> Any:
    if side.processor is None:
        raise PortError(
            "the model's repo has no processor of images and texts that can be opened (processor_config.json, "
            "preprocessor_config.json, tokenizer.json): copy one to it"
        )
    return side.processor


def sight_of(index: int, values: Mapping[str, Any]) -> tuple[Sight, str | tuple[Turn, ...] | None]:
    """Return the images of a row with what is said before the answer, and the answer; None where a whole chat has it.

    Args:
        index: the row's, for errors.
        values: role → value: "image" or "images"; "messages", "prompt" and "completion", or "text".

    Raises:
        PortError: there is no image, no answer, or another number of images than the texts have places for.
    """
    found = values["images"] if "images" in values else [values["image"]]
    images = tuple(as_rgb(image) for image in found or () if image is not None)
    if not images:
        raise PortError(f"row {index} has no image: {MEND}")
    if "text" in values:
        return Sight(images, _placed(index, [Turn(USER, ())], len(images))), _answer(index, values["text"])
    if "messages" in values:
        turns = _placed(index, _turns(index, values["messages"]), len(images))
        if all(turn.role != ASSISTANT for turn in turns):
            raise PortError(f"row {index} has no turn of the assistant, so that nothing is asked for: {MEND}")
        return Sight(images, turns), None
    prompt, answer = values["prompt"], values["completion"]
    asked = [Turn(USER, tuple(_parts(prompt)))] if isinstance(prompt, str) else _turns(index, prompt)
    sight = Sight(images, _placed(index, asked, len(images)))
    if isinstance(answer, str) or answer is None:
        return sight, _answer(index, answer)
    later = tuple(_turns(index, answer))
    if not any(turn.role == ASSISTANT for turn in later) or any(None in turn.parts for turn in later):
        raise PortError(f"row {index} has no answer of the assistant, or one with an image in it: {MEND}")
    return sight, later


def _answer(index: int, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise PortError(f"row {index} has no answer: {MEND}")
    return value


def _turns(index: int, value: Any) -> list[Turn]:
    """Return messages as turns, whatever the dataset calls their speakers and contents."""
    turns = []
    for one in value or ():
        speaker = one.get("role") or one.get("from")
        said = one["content"] if "content" in one else one.get("value")
        parts = list(_parts(said))
        if not speaker or (not parts and said is None):
            raise PortError(f"row {index} has a message without a speaker or a content: {MEND}")
        turns.append(Turn(SPEAKERS.get(speaker, speaker), tuple(parts)))
    if not turns:
        raise PortError(f"row {index} has no messages: {MEND}")
    return turns


def _parts(said: Any) -> Iterator[str | None]:
    """Yield the texts of a content, and None where an image goes: a text with marks, or a list of parts."""
    if isinstance(said, str):
        for number, text in enumerate(said.split(MARK)):
            if number:
                yield None
            if text.strip():
                yield text.strip() if MARK in said else text
    for part in said if isinstance(said, list) else ():
        if str(part.get("type") or "text").startswith("image"):
            yield None
        elif part.get("text"):
            yield part["text"]


def _placed(index: int, turns: Sequence[Turn], images: int) -> tuple[Turn, ...]:
    """Return turns with a place for every image: where the texts have none, before all that the user says."""
    if any(None in turn.parts for turn in turns if turn.role == ASSISTANT):
        raise PortError(f"row {index} has an image in what the assistant says: {MEND}")
    places = sum(part is None for turn in turns for part in turn.parts)
    if places not in (0, images):
        raise PortError(f"row {index} has {images} images, and its texts have places for {places}: {MEND}")
    first = next((k for k, turn in enumerate(turns) if turn.role == USER), None)
    if places or first is None:
        if not places:
            raise PortError(f"row {index} has no turn of the user: {MEND}")
        return tuple(turns)
    seeing = turns[first]._replace(parts=(None,) * images + turns[first].parts)
    return (*turns[:first], seeing, *turns[first + 1 :])


def content_of(sight: Sight, label: Any) -> bytes:
    """Return bytes that tell a sample from any other: its texts in canonical JSON, and its images' pixels."""
    sizes = [(image.mode, image.size) for image in sight.images]
    said = json.dumps([sizes, sight.turns, label], ensure_ascii=False, separators=(",", ":"))
    return said.encode("utf-8", "surrogatepass") + b"".join(image.tobytes() for image in sight.images)
