"""Rows of images with texts, as datasets write them: where images go among the texts, and what is asked for."""

import pytest
import torch
from PIL import Image

from hf_bico import Batch, PortError
from hf_bico.families.sights import Sight, Turn
from hf_bico.tasks.parts import Part
from hf_bico.tasks.samples import Sample, _content
from hf_bico.tasks.sights import sight_of
from hf_bico.tasks.views import sample_seen

RED, BLUE = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))


def said(*turns: tuple[str, object]) -> list[dict]:
    return [{"role": role, "content": content} for role, content in turns]


def parts(*some: tuple[str, str | None]) -> list[dict]:
    return [{"type": kind, "text": text} for kind, text in some]


@pytest.mark.parametrize(
    ("values", "turns", "answer"),
    [
        ({"image": RED, "prompt": "what?", "completion": "red"}, [("user", (None, "what?"))], "red"),
        ({"images": [RED, BLUE], "prompt": "which?", "completion": "red"}, [("user", (None, None, "which?"))], "red"),
        (
            {"image": RED, "prompt": "what is\n<image>\n?", "completion": "red"},
            [("user", ("what is", None, "?"))],
            "red",
        ),
        ({"image": RED, "text": "a red one"}, [("user", (None,))], "a red one"),
        (
            {"image": RED, "messages": said(("system", "be brief"), ("user", "what?"), ("assistant", "red"))},
            [("system", ("be brief",)), ("user", (None, "what?")), ("assistant", ("red",))],
            None,
        ),
        (
            {
                "images": [RED, BLUE],
                "messages": said(
                    ("user", parts(("image", None), ("text", "what?"))),
                    ("assistant", parts(("text", "red"))),
                    ("user", parts(("text", "and"), ("image", None))),
                    ("assistant", parts(("text", "blue"))),
                ),
            },
            [
                ("user", (None, "what?")),
                ("assistant", ("red",)),
                ("user", ("and", None)),
                ("assistant", ("blue",)),
            ],
            None,
        ),
        (
            {
                "image": RED,
                "messages": [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "red"}],
            },
            [("user", (None, "what?")), ("assistant", ("red",))],
            None,
        ),
        (
            {"images": [RED], "prompt": said(("user", "what?")), "completion": said(("assistant", "red"))},
            [("user", (None, "what?"))],
            (Turn("assistant", ("red",)),),
        ),
    ],
)
def test_images_go_where_a_row_says_or_before_what_the_user_says(values, turns, answer):
    sight, found = sight_of(0, values)
    assert [tuple(turn) for turn in sight.turns] == turns
    assert found == answer
    assert len(sight.images) == len(values.get("images", [RED])) and sight.images[0].getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"image": None, "prompt": "a", "completion": "b"}, "no image"),
        ({"images": [], "prompt": "a", "completion": "b"}, "no image"),
        ({"image": RED, "prompt": "a", "completion": " "}, "no answer"),
        ({"image": RED, "prompt": "a", "completion": None}, "no answer"),
        ({"image": RED, "text": None}, "no answer"),
        ({"image": RED, "messages": []}, "no messages"),
        ({"image": RED, "messages": said(("user", None))}, "a message without a speaker or a content"),
        ({"image": RED, "messages": said(("user", "what?"))}, "no turn of the assistant"),
        ({"image": RED, "messages": said(("assistant", "what?"))}, "no turn of the user"),
        (
            {"image": RED, "messages": said(("user", "what?"), ("assistant", "<image>"))},
            "an image in what the assistant says",
        ),
        ({"images": [RED, BLUE], "prompt": "<image>", "completion": "b"}, "has 2 images, .* places for 1"),
        (
            {"image": RED, "prompt": said(("user", "what?")), "completion": said(("user", "b"))},
            "no answer of the assistant",
        ),
    ],
)
def test_rows_that_ask_nothing_are_refused_by_number(values, why):
    with pytest.raises(PortError, match=f"row 7 .*{why}.*another split"):
        sight_of(7, values)


def test_samples_are_told_apart_by_image_and_by_words_and_seen_again_in_their_images():
    turns = (Turn("user", (None, "what?")),)
    samples = [Sample(Sight((image,), turns), answer) for image in (RED, BLUE) for answer in ("a", "b")]
    assert len({_content(each) for each in samples}) == 4
    seen = sample_seen(samples[0], 3)
    assert seen.inputs.turns == turns and seen.label == "a"
    assert seen.inputs.images[0].tobytes() != RED.tobytes()


def test_batches_whose_images_cannot_be_told_apart_go_to_either_half_whole():
    """Patches of images of any size lie one after the other."""
    whole = [{"input_ids": torch.full((6, 3), k), "pixel_values": torch.zeros(16, 4)} for k in range(4)]
    halves = [list(Part([Batch(each, each) for each in whole], number)) for number in (0, 1)]
    assert [[int(each.base["input_ids"][0, 0]) for each in half] for half in halves] == [[0, 2], [1, 3]]
    one_each = [Batch(each, each) for each in ({**some, "pixel_values": torch.zeros(6, 4)} for some in whole)]
    assert [len(each.base["pixel_values"]) for each in Part(one_each, 0)] == [3] * 4
