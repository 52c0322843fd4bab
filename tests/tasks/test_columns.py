"""Columns: those of well-known datasets are found, doubt is an error that names the way out, the user's word holds."""

import pytest
from datasets import Audio, ClassLabel, Features, Image, List, Value

from hf_bico import PortError
from hf_bico.core.notes import noted
from hf_bico.families import Purpose, PurposeKind
from hf_bico.tasks.columns import EXAMPLE, Columns, SampleKind, find_columns, input_columns, parse_columns
from hf_bico.tasks.kinds import ROLES

S, I, F, B = Value("string"), Value("int64"), Value("float32"), Value("bool")
CLASS, TURNS = ClassLabel(names=["no", "yes"]), List({"role": S, "content": S})
FOUND = {
    "images": ({"image": Image(), "label": CLASS}, SampleKind.IMAGE, "image label"),
    "images with numbers": ({"img": Image(), "fine_label": I}, SampleKind.IMAGE, "image=img label=fine_label"),
    "images in a web dataset": ({"__key__": S, "jpg": Image(), "cls": I}, SampleKind.IMAGE, "image=jpg label=cls"),
    "images alone": ({"image": Image(), "caption": S}, SampleKind.IMAGE, "image"),
    "reviews": ({"text": S, "label": CLASS}, SampleKind.TEXT, "text label"),
    "titles and contents": ({"label": CLASS, "title": S, "content": S}, SampleKind.TEXT, "text=content label"),
    "another name": ({"id": I, "verse_text": S, "label": I}, SampleKind.TEXT, "text=verse_text label"),
    "names of classes": ({"text": S, "label": S}, SampleKind.TEXT, "text label"),
    "labels by type": ({"text": S, "coarse": CLASS}, SampleKind.TEXT, "text label=coarse"),
    "labels by type before labels by name": (
        {"text": S, "label": S, "gold": CLASS},
        SampleKind.TEXT,
        "text label=gold",
    ),
    "premises": (
        {"premise": S, "hypothesis": S, "label": CLASS, "idx": I},
        SampleKind.PAIR,
        "text=premise text_pair=hypothesis label",
    ),
    "paraphrases": (
        {"sentence1": S, "sentence2": S, "label": CLASS},
        SampleKind.PAIR,
        "text=sentence1 text_pair=sentence2 label",
    ),
    "questions and sentences": (
        {"question": S, "sentence": S, "label": CLASS},
        SampleKind.PAIR,
        "text=question text_pair=sentence label",
    ),
    "plain text": ({"text": S}, SampleKind.PLAIN, "text"),
    "plain text among others": ({"url": S, "text": S, "timestamp": S}, SampleKind.PLAIN, "text"),
    "lines": ({"line": S}, SampleKind.PLAIN, "text=line"),
    "chats": ({"prompt": S, "prompt_id": S, "messages": TURNS}, SampleKind.CHAT, "messages"),
    "chats of the other form": (
        {"id": S, "conversations": List({"from": S, "value": S})},
        SampleKind.CHAT,
        "messages=conversations",
    ),
    "prompts": ({"prompt": S, "completion": S}, SampleKind.COMPLETION, "prompt completion"),
    "instructions": (
        {"instruction": S, "context": S, "response": S},
        SampleKind.COMPLETION,
        "prompt=instruction completion=response",
    ),
    "answers": ({"question": S, "answer": S}, SampleKind.COMPLETION, "prompt=question completion=answer"),
    "summaries": ({"dialogue": S, "summary": S, "id": S}, SampleKind.COMPLETION, "prompt=dialogue completion=summary"),
    "rated completions": ({"prompt": S, "completion": S, "label": B}, SampleKind.COMPLETION, "prompt completion"),
    "several labels": ({"text": S, "labels": List(CLASS)}, SampleKind.TEXT, "text label=labels"),
    "entities": (
        {"id": S, "tokens": List(S), "pos_tags": List(CLASS), "ner_tags": List(CLASS)},
        SampleKind.TAGS,
        "tokens tags=ner_tags",
    ),
    "answers in a context": (
        {"id": S, "title": S, "context": S, "question": S, "answers": {"text": List(S), "answer_start": List(I)}},
        SampleKind.SPAN,
        "question context answers",
    ),
    "sounds": ({"file": S, "audio": Audio(), "label": CLASS}, SampleKind.SOUND, "audio label"),
    "speech": (
        {"file": S, "audio": Audio(), "text": S, "speaker_id": I},
        SampleKind.SPEECH,
        "audio transcription=text",
    ),
    "read sentences": (
        {"path": S, "audio": Audio(), "sentence": S, "gender": S},
        SampleKind.SPEECH,
        "audio transcription=sentence",
    ),
    "classed answers": ({"question": S, "answer": S, "label": CLASS}, SampleKind.TEXT, "text=question label"),
}


SEEN = {
    "questions about an image": (
        {"image": Image(), "question": S, "answer": S},
        "image prompt=question completion=answer",
    ),
    "questions about images": (
        {"images": List(Image()), "question": S, "response": S},
        "images prompt=question completion=response",
    ),
    "chats about images": ({"images": List(Image()), "messages": TURNS}, "images messages"),
    "chats about an image": (
        {"id": S, "image": Image(), "conversations": List({"from": S, "value": S})},
        "image messages=conversations",
    ),
    "captions": ({"image": Image(), "caption": S}, "image text=caption"),
    "texts and labels": ({"image": Image(), "text": S, "label": CLASS}, "image text"),
}


def roles(text: str) -> dict[str, str]:
    pairs = [entry.partition("=") for entry in text.split()]
    return {role: column or role for role, _, column in pairs}


@pytest.mark.parametrize(("features", "kind", "names"), FOUND.values(), ids=FOUND)
def test_well_known_columns_are_found(features, kind, names):
    assert find_columns("org/data", Features(features), {}) == Columns(kind, roles(names))


@pytest.mark.parametrize(("features", "names"), SEEN.values(), ids=SEEN)
def test_a_model_of_images_with_texts_is_asked_of_both(features, names):
    purpose = Purpose(PurposeKind.IMAGE_TEXT)
    for named in ({}, roles(names)):
        assert find_columns("org/data", Features(features), named, purpose) == Columns(SampleKind.SIGHT, roles(names))


@pytest.mark.parametrize(("features", "kind", "names"), FOUND.values(), ids=FOUND)
def test_what_was_found_may_be_said(features, kind, names):
    assert find_columns("org/data", Features(features), roles(names)) == Columns(kind, roles(names))


@pytest.mark.parametrize(
    ("features", "named", "kind", "names"),
    [
        ({"a": S, "b": S, "y": I}, "text=a label=y", SampleKind.TEXT, "text=a label=y"),
        ({"a": S, "b": S, "y": I}, "text=b text_pair=a label=y", SampleKind.PAIR, "text=b text_pair=a label=y"),
        ({"a": S, "b": S}, "prompt=a completion=b", SampleKind.COMPLETION, "prompt=a completion=b"),
        (
            {"instruction": S, "input": S, "output": S},
            "prompt=input",
            SampleKind.COMPLETION,
            "prompt=input completion=output",
        ),
        ({"a": Image(), "b": Image(), "label": CLASS}, "image=b", SampleKind.IMAGE, "image=b label"),
        ({"image": Image(), "label": CLASS, "size": I}, "label=size", SampleKind.IMAGE, "image label=size"),
        ({"image": Image(), "caption": S}, "text=caption", SampleKind.PLAIN, "text=caption"),
        ({"text": S, "label": CLASS, "mood": CLASS}, "label=mood", SampleKind.TEXT, "text label=mood"),
        ({"chosen": TURNS, "rejected": TURNS}, "messages=chosen", SampleKind.CHAT, "messages=chosen"),
        ({"text": S, "review": S, "label": CLASS}, "text=review", SampleKind.TEXT, "text=review label"),
        (
            {"answer": S, "output": S, "prompt": S},
            "prompt=answer",
            SampleKind.COMPLETION,
            "prompt=answer completion=output",
        ),
        ({"label": S, "cls": I}, "text=label", SampleKind.TEXT, "text=label label=cls"),
    ],
)
def test_the_users_word_holds(features, named, kind, names):
    assert find_columns("org/data", Features(features), roles(named)) == Columns(kind, roles(names))


@pytest.mark.parametrize(
    ("features", "named", "what"),
    [
        ({"image": Image(), "depth": Image(), "label": CLASS}, "", r"several image columns \(image, depth\)"),
        ({"image": Image(), "a": CLASS, "b": CLASS}, "", r"several label columns \(a, b\)"),
        ({"chosen": TURNS, "rejected": TURNS}, "", r"several messages columns \(chosen, rejected\)"),
        ({"text": S, "review": S, "label": CLASS}, "", r"several text columns \(text, review\)"),
        (
            {"sentence1": S, "sentence2": S, "premise": S, "hypothesis": S, "label": CLASS},
            "",
            r"several pairs of texts \(sentence1 and sentence2, premise and hypothesis\)",
        ),
        ({"a": S, "b": S}, "", r"several text columns \(a, b\)"),
        ({"prompt": S, "instruction": S, "output": S}, "", r"several prompt columns \(prompt, instruction\)"),
        ({"a": I, "b": F}, "", "no columns that go together as image, chat, .*plain text"),
        ({"text": S}, "label=y", "no label column 'y'"),
        ({"text": S, "y": I}, "text=y", "no text in column 'y'"),
        ({"text": S, "y": I}, "image=text", "no image in column 'text'"),
        ({"text": S, "y": I}, "messages=text", "no messages in column 'text'"),
        ({"text": S}, "text=text text_pair=text image=text", "no image in column"),
        ({"image": Image(), "text": S}, "image=image text=text", "no columns that go together"),
    ],
)
def test_doubt_is_an_error_that_lists_the_columns(features, named, what):
    with pytest.raises(PortError, match=what) as caught:
        find_columns("org/data", Features(features), roles(named))
    message = str(caught.value)
    assert message.startswith("org/data has ")
    assert "columns= role=column" in message
    assert "\n" not in message
    for name, feature in features.items():
        assert f"{name} ({feature.dtype if isinstance(feature, Value) else type(feature).__name__})" in message


FEATURES = Purpose(PurposeKind.FEATURES)


@pytest.mark.parametrize(
    ("features", "purpose", "kind", "names"),
    [
        (
            {"sentence1": S, "sentence2": S, "score": F},
            FEATURES,
            "text pair",
            "text=sentence1 text_pair=sentence2 label=score",
        ),
        (
            {"anchor": S, "positive": S, "negative": S},
            FEATURES,
            "texts that belong together",
            "anchor positive negative",
        ),
        ({"question": S, "answer": S}, FEATURES, "texts that belong together", "anchor=question positive=answer"),
        (
            {"question": S, "answer": S},
            Purpose(PurposeKind.CAUSAL_LM),
            "prompt and completion",
            "prompt=question completion=answer",
        ),
        (
            {"sentence1": S, "sentence2": S, "label": CLASS},
            FEATURES,
            "text pair",
            "text=sentence1 text_pair=sentence2 label",
        ),
        ({"text": S, "score": F}, Purpose(PurposeKind.CAUSAL_LM), "plain text", "text"),
        ({"audio": Audio(), "text": S}, Purpose(PurposeKind.CAUSAL_LM), "plain text", "text"),
        (
            {"audio": Audio(), "transcription": S, "intent": CLASS},
            Purpose(PurposeKind.CTC),
            "sound and transcription",
            "audio transcription",
        ),
        (
            {"audio": Audio(), "transcription": S, "intent": CLASS},
            Purpose(PurposeKind.SOUND_CLASSES, ("no", "yes")),
            "sound",
            "audio label=intent",
        ),
        ({"text": S, "score": F}, Purpose(PurposeKind.TEXT_CLASSES, ("LABEL_0",)), "text", "text label=score"),
        (
            {"tokens": List(S), "ner_tags": List(I), "text": S, "label": CLASS},
            Purpose(PurposeKind.TEXT_CLASSES, ("a", "b")),
            "text",
            "text label",
        ),
    ],
)
def test_what_suits_the_model_is_tried_first(features, purpose, kind, names):
    assert find_columns("org/data", Features(features), {}, purpose) == Columns(SampleKind(kind), roles(names))


@pytest.mark.parametrize(
    ("others", "named", "found", "said"),
    [
        (("negative_1", "negative_2"), {}, ["negative negative_1", "negative negative_2"], ()),
        (("far", "hard_neg"), {"negative": "far|hard_neg"}, ["negative far", "negative hard_neg"], ()),
        (("negative",), {"anchor": "anchor", "positive": "positive"}, [], ("negative",)),
        (("negatives",), {}, [], ("negatives",)),
    ],
)
def test_hard_negatives_are_used_or_said(others, named, found, said):
    features = {"anchor": S, "positive": S} | {name: List(S) if name == "negatives" else S for name in others}
    with noted() as lines:
        columns = find_columns("org/data", Features(features), named, FEATURES)
    assert [role for role in columns.names if "negative" in role] == found
    assert [columns.names[role] for role in found] == [role.split()[-1] for role in found]
    assert [line.split(" of org/data")[0] for line in lines] == list(said)


def test_columns_are_read_from_the_command_line():
    assert parse_columns("image=img, label = y") == {"image": "img", "label": "y"}
    assert parse_columns("text=a=b") == {"text": "a=b"}
    assert parse_columns(None) == parse_columns("") == {}
    for wrong, why in (
        ("image", "not role=column"),
        ("picture=img", "'picture' is no role that a column can have"),
        ("image=a,Label=b", "'Label' is no role that a column can have"),
        ("image=", "not role=column"),
        ("=img", "not role=column"),
        ("text=a,text=b", "'text' is named twice"),
    ):
        with pytest.raises(PortError, match=f"columns= .*{why}; the roles are image, label, messages, prompt") as error:
            parse_columns(wrong)
        assert str(error.value).endswith(": say role=column, such as columns= text=sentence,label=class")
        assert all(role in str(error.value) for roles in ROLES.values() for role in roles)


def test_the_columns_that_an_error_shows_are_right():
    assert parse_columns(EXAMPLE) == {"text": "sentence", "label": "class"}


@pytest.mark.parametrize(
    ("kind", "names", "features", "found"),
    [
        ("image", "image=img label", {"img": Image(), "other": Image()}, "image=img"),
        ("image", "image label", {"picture": Image(), "a": CLASS, "b": CLASS}, "image=picture"),
        ("text", "text=review label", {"review": S, "text": S}, "text=review"),
        ("text", "text=review label", {"id": I, "line": S}, "text=line"),
        ("text", "text label", {"text": I, "sentence": S, "note": S}, "text=sentence"),
        ("text pair", "text=a text_pair=b label", {"a": S, "b": S}, "text=a text_pair=b"),
        ("text pair", "text=a text_pair=b label", {"premise": S, "hypothesis": S}, "text=premise text_pair=hypothesis"),
        ("plain text", "text", {"line": S}, "text=line"),
        ("sound", "audio label", {"speech": Audio(), "text": S}, "audio=speech"),
    ],
)
def test_samples_without_labels_need_their_inputs_alone(kind, names, features, found):
    like = Columns(SampleKind(kind), roles(names))
    assert input_columns("org/more", Features(features), like) == Columns(SampleKind(kind), roles(found))


@pytest.mark.parametrize(
    ("names", "features", "what"),
    [
        ("image=img label", {"a": Image(), "b": Image()}, r"several image columns \(a, b\): call what is meant 'img'"),
        ("image=img label", {"img": S}, "no image column: call what is meant 'img', as the samples with labels do"),
    ],
)
def test_inputs_in_doubt_are_refused(names, features, what):
    with pytest.raises(PortError, match=f"org/more has {what}"):
        input_columns("org/more", Features(features), Columns(SampleKind.IMAGE, roles(names)))
