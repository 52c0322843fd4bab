"""Chats that templates take otherwise than they are written: system turns, prompts and answers, lists of texts."""

import json

import pytest
from support.datasets import opened
from support.tokenizers_at_hand import BRACKETS, MARKED, TEMPLATE, byte_bpe

from hf_bico import PortError
from hf_bico.core.notes import noted
from hf_bico.families.chat import folded, rendered_chat
from hf_bico.families.feeding import encode_causal
from hf_bico.tasks.batches import row_weights
from hf_bico.tasks.columns import SampleKind
from hf_bico.tasks.samples import Sample, read_task, samples_of

SYSTEM = {"role": "system", "content": "Be brief."}
ASKED = ({"role": "user", "content": "What is art?"}, {"role": "assistant", "content": "art"})
LATER = ({"role": "user", "content": "And more?"}, {"role": "assistant", "content": "more art"})
REFUSING = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TEMPLATE


def rendered(template: str, messages, first: int = 0):
    return rendered_chat(byte_bpe(template=template), messages, 0, first)


def said(made) -> list[str]:
    return [made.text[start:end] for start, end in made.asked]


def test_a_system_turn_goes_before_the_user_turn_where_a_template_refuses_it():
    with noted() as lines:
        made = rendered(REFUSING, (SYSTEM, *ASKED))
    joined = ({"role": "user", "content": "Be brief.\n\nWhat is art?"}, ASKED[1])
    plain = rendered(TEMPLATE, joined)
    assert made.text == plain.text and made.asked == plain.asked
    assert [made.text[p.start : p.start + p.length] for p in made.parts] == ["Be brief.", "What is art?", "art"]
    assert len(lines) == 1 and "takes no system turns (no system role)" in lines[0]


def test_a_template_that_takes_system_turns_is_given_them():
    with noted() as lines:
        made = rendered(TEMPLATE, (SYSTEM, *ASKED))
    assert "<|start|>system\nBe brief.<|end|>" in made.text and not lines


def test_messages_meet_their_like_in_a_template_that_folds():
    sides = [byte_bpe(template=template, pad_token="<s>") for template in (TEMPLATE, REFUSING)]
    a, b = (encode_causal(side, [Sample((SYSTEM, *ASKED), None)], 200) for side in sides)
    (meets,) = row_weights(a, b).values()
    words = [[side.decode([i]) for i in enc.inputs["input_ids"][0]] for side, enc in zip(sides, (a, b), strict=True)]
    for row, word in enumerate(words[1]):
        partner = meets[0, row].argmax()
        if word.strip() in ("brief", "art", "What"):
            assert words[0][partner] == word


def test_a_system_turn_without_a_user_turn_after_it_is_refused():
    with pytest.raises(ValueError, match="no user turn after it"):
        folded((*ASKED, SYSTEM))
    with pytest.raises(PortError, match="does not fit the tokenizer's chat template"):
        rendered(REFUSING, (SYSTEM, ASKED[1]))


@pytest.mark.parametrize("template", [TEMPLATE, MARKED, BRACKETS, None])
def test_of_a_prompt_nothing_is_asked(template):
    made, whole = rendered(template, (*ASKED, *LATER), 2), rendered(template, (*ASKED, *LATER))
    assert made.text == whole.text
    assert len(said(whole)) == 2 and said(made) == said(whole)[1:]
    assert "more art" in said(made)[0]


def in_lines(folder, **columns):
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = opened(folder)
    split = dataset.split("train")
    return split, read_task(dataset, split, {}, None)


@pytest.mark.parametrize("answer", [[LATER[1]], "more art"])
def test_a_prompt_of_messages_and_its_completion_are_a_chat(tmp_path, answer):
    split, task = in_lines(tmp_path / "set", prompt=[[SYSTEM, ASKED[0]]] * 2, completion=[answer] * 2)
    assert task.columns.kind is SampleKind.CHAT
    sample = next(samples_of(split, [1], task))
    assert sample.inputs == (SYSTEM, ASKED[0]) and sample.label == (LATER[1],)
    tokenizer = byte_bpe(template=TEMPLATE, pad_token="<s>")
    (labels,) = encode_causal(tokenizer, [sample], 200).labels
    assert tokenizer.decode([i for i in labels.tolist() if i >= 0]).strip().startswith("more art")


def test_contents_may_be_lists_of_texts_and_roles_have_other_names(tmp_path):
    parts = [{"type": "text", "text": "What "}, {"type": "text", "text": "is art?"}]
    chat = [{"role": "human", "content": parts}, {"role": "gpt", "content": [{"type": "text", "text": "art"}]}]
    split, task = in_lines(tmp_path / "set", messages=[chat])
    assert next(samples_of(split, [0], task)).inputs == ASKED


@pytest.mark.parametrize(("chat", "why"), [([], "row 0 has no messages"), ([ASKED[0]], "no turn of the assistant")])
def test_a_chat_that_asks_for_nothing_is_named_by_its_row(tmp_path, chat, why):
    split, task = in_lines(tmp_path / "set", messages=[chat, list(ASKED)])
    with pytest.raises(PortError, match=why):
        list(samples_of(split, [0], task))
