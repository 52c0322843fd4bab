"""Samples into inputs: what every token covers, what is asked for, and that no setting of a tokenizer changes it."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from support.tokenizers_at_hand import BRACKETS, MARKED, TEMPLATE, byte_bpe, unigram, word_piece

from hf_bico import PortError
from hf_bico.core.alignment import PLACES, meeting, same
from hf_bico.families.chat import rendered_chat
from hf_bico.families.feeding import UNASKED, Encoded, encode_causal, encode_seq2seq, encode_text

LINES = ("The new base model", "  Indented\n\n  text,  naïve café 😀 ŵ", "x", "moved by maps of output gradients")
CHAT = (
    {"role": "user", "content": " What is art? "},
    {"role": "assistant", "content": "art"},
    {"role": "user", "content": "user"},
    {"role": "assistant", "content": "No idea."},
)
ALL = {
    "BPE": byte_bpe,
    "BPE with BOS": lambda **o: byte_bpe(bos=True, **o),
    "WordPiece": word_piece,
    "Unigram": unigram,
}
CAUSAL = {name: ALL[name] for name in ("BPE", "BPE with BOS")}


@dataclass(frozen=True)
class Row:
    inputs: Any
    label: Any = None


def covered(encoded: Encoded, text: str, sample: int = 0) -> list[str]:
    """The characters of every token of a text that is one part."""
    spans = encoded.spans["text"]
    return [
        text[max(start // PLACES - 1, 0) : max(-(-end // PLACES) - 1, 0)]
        for start, end in zip(spans.start[sample].tolist(), spans.end[sample].tolist(), strict=True)
    ]


def asked_text(tokenizer, encoded: Encoded, sample: int = 0) -> str:
    """What the loss asks for: labels lie beside the ids they are."""
    labels, ids = encoded.labels[sample], encoded.inputs["input_ids"][sample]
    assert torch.equal(labels[labels != UNASKED], ids[labels != UNASKED])
    return tokenizer.decode(labels[labels != UNASKED].tolist(), skip_special_tokens=False)


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_a_batch_is_its_samples_padded_on_the_right(make):
    tokenizer, alone = make(), []
    batch = encode_text(tokenizer, [Row(line, number) for number, line in enumerate(LINES)], 64)
    for number, line in enumerate(LINES):
        one = encode_text(tokenizer, [Row(line, number)], 64)
        size = one.inputs["input_ids"].shape[1]
        alone.append(size)
        assert one.inputs["attention_mask"].all()
        assert one.inputs["input_ids"].tolist()[0] == tokenizer(line)["input_ids"]
        for name, tensor in batch.inputs.items():
            assert torch.equal(tensor[number, :size], one.inputs[name][0])
        for ours, theirs in zip(batch.spans["text"], one.spans["text"], strict=True):
            assert torch.equal(ours[number, :size], theirs[0])
    assert batch.inputs["attention_mask"].sum(1).tolist() == alone
    assert not (batch.spans["text"].mask & ~batch.inputs["attention_mask"].bool()).any()
    assert batch.labels.tolist() == [0, 1, 2, 3]
    assert len(batch) == 4


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_a_tokenizer_set_to_the_left_gives_the_same(make):
    samples, tokenizer = [Row(line) for line in LINES], make()
    right = encode_text(tokenizer, samples, 64)
    tokenizer.padding_side = "left"
    left = encode_text(tokenizer, samples, 64)
    assert all(torch.equal(right.inputs[name], left.inputs[name]) for name in right.inputs)
    assert same(right.spans["text"], left.spans["text"])
    assert right.labels is None


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_a_tokenizer_meets_itself_token_by_token(make):
    spans = encode_text(make(), [Row(line) for line in LINES] + [Row(LINES[:2])], 64).spans["text"]
    assert torch.equal(meeting(spans, spans), torch.diag_embed(spans.mask.float()))


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_every_character_is_somebodys(make):
    """All but white space at the end, and what the tokenizer throws away."""
    for line in LINES:
        encoded = encode_text(make(), [Row(line)], 64)
        spans, mask = encoded.spans["text"], encoded.spans["text"].mask[0]
        total = (spans.end - spans.start)[0][mask].sum()
        edges = spans.start[0][mask].tolist(), spans.end[0][mask].tolist()
        assert edges[0] == sorted(edges[0])
        assert total == max(edges[1]) - min(edges[0])
        assert max(edges[1]) >= PLACES * (1 + len(line))


def test_what_a_token_covers_is_its_text():
    tokenizer, line = byte_bpe(), LINES[1]
    encoded = encode_text(tokenizer, [Row(line)], 64)
    pieces = [tokenizer.decode([token]) for token in encoded.inputs["input_ids"][0]]
    whole = [(piece, part) for piece, part in zip(pieces, covered(encoded, line), strict=True) if "\ufffd" not in piece]
    assert len(whole) > 10
    assert all(piece == part for piece, part in whole)


@pytest.mark.parametrize("one", ALL)
@pytest.mark.parametrize("other", ALL)
def test_rows_of_two_tokenizers_meet_where_their_texts_do(one, other):
    a, b = (encode_text(ALL[name](), [Row(line) for line in LINES], 64) for name in (one, other))
    spans = a.spans["text"], b.spans["text"]
    weights = meeting(*spans)
    assert torch.isin(weights.sum(-1).round(decimals=5), torch.tensor([0.0, 1.0])).all()
    first, second = (torch.stack(each[:2], -1) for each in spans)
    for number, row, column in weights.nonzero().tolist():
        assert first[number, column, 0] < second[number, row, 1]
        assert second[number, row, 0] < first[number, column, 1]
    text = spans[1].mask & (spans[1].start >= PLACES)
    text &= spans[1].end <= torch.tensor([len(line) + 1 for line in LINES])[:, None] * PLACES
    assert (weights.sum(-1)[text] > 0.99).all()  # every token of the text meets one


def test_cls_meets_bos_and_sep_meets_eos():
    bert, gpt, t5 = (
        encode_text(make(), [Row(LINES[0])], 64).spans["text"] for make in (word_piece, ALL["BPE with BOS"], unigram)
    )
    assert meeting(gpt, bert)[0, 0].nonzero().tolist() == [[0]]
    assert not meeting(gpt, bert)[0, -1].any()
    assert meeting(bert, t5)[0, -1].nonzero().tolist() == [[bert.mask.shape[1] - 1]]
    assert not meeting(t5, bert)[0, 0].any()


def test_pairs_have_types_and_a_place_between():
    tokenizer = word_piece()
    pair = encode_text(tokenizer, [Row(("The new base", "a model"), 1)], 64)
    assert sorted(set(pair.inputs["token_type_ids"][0].tolist())) == [0, 1]
    ids = pair.inputs["input_ids"][0].tolist()
    assert ids == tokenizer("The new base", "a model")["input_ids"]
    t5 = encode_text(unigram(), [Row(("The new base", "a model"), 1)], 64)
    middle, theirs = ids.index(tokenizer.sep_token_id), t5.inputs["input_ids"][0].tolist().index(1)
    weights = meeting(t5.spans["text"], pair.spans["text"])[0]
    assert weights[middle].nonzero().tolist() == [[theirs]]
    assert not weights[middle + 1 :, : theirs + 1].any()
    assert not weights[:middle, theirs:].any()
    assert torch.allclose(weights[1:].sum(1), torch.ones(len(ids) - 1))


def test_cutting_keeps_the_places():
    """Cut texts end early; what is left covers what it covered, and the special token behind stays there."""
    for make in ALL.values():
        whole, short = (encode_text(make(), [Row(LINES[3])], size).spans["text"] for size in (64, 8))
        weights = meeting(whole, short)[0]
        assert short.mask.shape[1] == 8
        assert (weights.argmax(1)[:7] == torch.arange(7)).all()
        assert torch.allclose(weights.sum(1), torch.ones(8))
        assert weights[7, 7 if make in CAUSAL.values() else -1] == 1


def test_some_labels_are_no_labels():
    with pytest.raises(PortError, match="some samples have a class"):
        encode_text(word_piece(), [Row("a", 1), Row("b")], 8)
    with pytest.raises(PortError, match="sample 1 is neither"):
        encode_text(word_piece(), [Row("a"), Row(3)], 8)


@pytest.mark.parametrize("make", CAUSAL.values(), ids=CAUSAL)
def test_of_a_plain_text_every_token_is_asked_for(make):
    tokenizer = make()
    encoded = encode_causal(tokenizer, [Row(line) for line in LINES[:2]], 64)
    assert encoded.inputs.keys() == {"input_ids", "attention_mask"}
    real = encoded.inputs["attention_mask"].bool()
    assert torch.equal(encoded.labels[real], encoded.inputs["input_ids"][real])
    assert (encoded.labels[~real] == UNASKED).all()
    assert (~real).any()


def test_labels_are_shifted_by_the_loss_not_here():
    """transformers' own loss on them is the mean of −log p(token t + 1 | tokens to t)."""
    import transformers

    tokenizer = byte_bpe()
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=len(tokenizer), n_embd=8, n_layer=1, n_head=2)
    ).eval()
    encoded = encode_causal(tokenizer, [Row("The new base", "model card")], 64)
    out = model(**encoded.inputs, labels=encoded.labels)
    logs = out.logits[0].log_softmax(-1)
    ids = encoded.inputs["input_ids"][0]
    places = [t for t in range(len(ids)) if encoded.labels[0, t] != UNASKED]
    assert torch.allclose(out.loss, -torch.stack([logs[t - 1, ids[t]] for t in places]).mean())


@pytest.mark.parametrize("make", [*CAUSAL.values(), unigram], ids=[*CAUSAL, "Unigram"])
@pytest.mark.parametrize(
    ("prompt", "completion", "seam"),
    [("Who:", "The new base", " "), ("Who: ", "The new base", ""), ("Who\n", "The new", ""), ("Who:", " model", "")],
)
def test_the_completion_and_the_end_are_asked_for(make, prompt, completion, seam):
    tokenizer = make()
    encoded = encode_causal(tokenizer, [Row(prompt, completion)], 64)
    asked = asked_text(tokenizer, encoded)
    assert asked.strip() == f"{completion.strip()}</s>"
    ids = encoded.inputs["input_ids"][0].tolist()
    assert ids.count(tokenizer.eos_token_id) == 1
    read = tokenizer.decode(ids).removeprefix("<s>").replace(" </s>", "</s>").replace("<unk>", "\n")
    assert read == f"{prompt}{seam}{completion}</s>"


def test_a_class_may_be_the_completion():
    tokenizer = byte_bpe()
    named = encode_causal(tokenizer, [Row("Good?", 1)], 64, ("no", "yes"))
    spelt = encode_causal(tokenizer, [Row("Good?", "yes")], 64)
    assert torch.equal(named.labels, spelt.labels)
    with pytest.raises(PortError, match=r"sample 0 has no text to answer with .*2"):
        encode_causal(tokenizer, [Row("Good?", 2)], 64, ("no", "yes"))


def test_a_cut_that_leaves_nothing_to_ask_for_is_refused():
    with pytest.raises(PortError, match="nothing left"):
        encode_causal(byte_bpe(), [Row("x")], 4)


@pytest.mark.parametrize("bos", [False, True])
def test_of_a_long_prompt_the_beginning_is_cut(bos):
    tokenizer = byte_bpe(bos=bos)
    whole, cut = (
        encode_causal(tokenizer, [Row("The new base model came out and", "was ported")], length) for length in (64, 7)
    )
    ids, labels = whole.inputs["input_ids"][0], whole.labels[0]
    assert cut.inputs["input_ids"].shape == (1, 7) and labels[-1] == tokenizer.eos_token_id
    kept = 6 if bos else 7
    assert torch.equal(cut.inputs["input_ids"][0, -kept:], ids[-kept:])
    assert torch.equal(cut.labels[0, -kept:], labels[-kept:])
    assert torch.equal(cut.spans["text"].start[0, -kept:], whole.spans["text"].start[0, -kept:])
    assert not bos or cut.inputs["input_ids"][0, 0] == tokenizer.bos_token_id


@pytest.mark.parametrize(
    ("template", "expected"),
    [(TEMPLATE, "art<|end|>\nNo idea.<|end|>\n"), (MARKED, "art<|end|>No idea.<|end|>")],
    ids=["by turns", "marked"],
)
def test_of_a_chat_the_assistants_turns_are_asked_for(template, expected):
    tokenizer = byte_bpe(template=template)
    encoded = encode_causal(tokenizer, [Row(CHAT)], 128)
    rendered = tokenizer.apply_chat_template(list(CHAT), tokenize=False)
    assert tokenizer.decode(encoded.inputs["input_ids"][0].tolist()) == rendered
    assert asked_text(tokenizer, encoded) == expected


def test_a_message_is_found_where_it_stands_not_in_the_templates_words():
    """ "art" is in <|start|> too, and "user" is a role."""
    made = rendered_chat(byte_bpe(template=TEMPLATE), CHAT, 0)
    contents = [message["content"].strip() for message in CHAT]
    assert [made.text[part.start : part.start + part.length] for part in made.parts] == contents
    assert all(made.text[part.start + part.length :].lstrip(" ").startswith("<|end|>") for part in made.parts)


def test_a_chat_without_a_template_is_lines():
    tokenizer = byte_bpe(bos=True)
    encoded = encode_causal(tokenizer, [Row(CHAT), Row(CHAT[:3])], 128)
    assert tokenizer.decode(encoded.inputs["input_ids"][0].tolist()) == (
        "<s>user: What is art?\nassistant: art\nuser: user\nassistant: No idea.</s>"
    )
    assert asked_text(tokenizer, encoded) == " art\n No idea.</s>"
    assert asked_text(tokenizer, encoded, 1) == " art\n"


def test_messages_meet_across_templates():
    """A message's words meet their own, and what stands around it what stands there; not what looks like it."""
    sides = [byte_bpe(template=TEMPLATE), byte_bpe(350, bos=True, template=BRACKETS), byte_bpe(400, bos=True)]
    encoded = [encode_causal(tokenizer, [Row(CHAT)], 128) for tokenizer in sides]
    assert encoded[1].inputs["input_ids"][0].tolist().count(sides[1].bos_token_id) == 1  # the template's, no other
    for spans in (each.spans["text"] for each in encoded):
        assert torch.equal(meeting(spans, spans), torch.diag_embed(spans.mask.float()))
    for tokenizer, other in zip(sides, encoded, strict=True):
        ids = other.inputs["input_ids"][0].tolist()
        for mine, theirs in ((sides[0], encoded[0]), (sides[1], encoded[1])):
            weights = meeting(theirs.spans["text"], other.spans["text"])[0]
            for row in range(len(ids)):
                word = tokenizer.decode(ids[row]).strip()
                if word in ("art", "idea", "What"):
                    met = mine.decode(theirs.inputs["input_ids"][0][weights[row] > 0].tolist())
                    assert word in met
    third = PLACES * (1 + len("What is art?") + 1 + len("art") + 1)  # "user" as said, not as the template writes it
    for tokenizer, other in zip(sides, encoded, strict=True):
        spans = other.spans["text"]
        own = (spans.start[0] >= third) & (spans.end[0] <= third + PLACES * len("user"))
        assert tokenizer.decode(other.inputs["input_ids"][0][own]).strip() in ("user", "ser")


def test_a_chat_that_does_not_fit_its_template_is_refused():
    strict = "{% if messages[0].role != 'user' %}{{ raise_exception('roles must alternate') }}{% endif %}" + TEMPLATE
    with pytest.raises(PortError, match=r"sample 0 does not fit .*: roles must alternate"):
        encode_causal(byte_bpe(template=strict), [Row(CHAT[1:])], 64)
    assert encode_causal(byte_bpe(template=strict), [Row(CHAT)], 128).labels.max() > 0
    with pytest.raises(PortError, match="sample 0 has no message, or"):
        encode_causal(byte_bpe(template=strict), [Row(({"role": "user", "content": None},))], 64)
    with pytest.raises(PortError, match="nothing left"):
        encode_causal(byte_bpe(template=TEMPLATE), [Row(CHAT[:1])], 64)


def test_a_decoder_answers_with_the_text_or_the_name():
    tokenizer = unigram()
    encoded = encode_seq2seq(tokenizer, [Row("The new base", "model card"), Row(("a", "b"), 0)], 64, ("moved",))
    assert encoded.labels[0][encoded.labels[0] != UNASKED].tolist() == tokenizer("model card")["input_ids"]
    assert encoded.labels[1][encoded.labels[1] != UNASKED].tolist() == tokenizer("moved")["input_ids"]
    assert encoded.spans["text"].mask.shape == encoded.inputs["input_ids"].shape
    assert encoded.spans["labels"].mask.shape == encoded.labels.shape
    assert torch.equal(encoded.spans["labels"].mask, encoded.labels != UNASKED)
    assert "token_type_ids" not in encoded.inputs
    with pytest.raises(PortError, match="sample 0 has no text to answer with"):
        encode_seq2seq(tokenizer, [Row("a")], 64)


def test_a_tokenizer_that_does_not_tell_serves_without_spans():
    import transformers

    tokenizer = transformers.ByT5Tokenizer()
    encoded = encode_text(tokenizer, [Row("ab", 0), Row("abc", 1)], 64)
    assert encoded.spans == {}
    assert encoded.inputs["attention_mask"].sum(1).tolist() == [3, 4]
    assert encode_seq2seq(tokenizer, [Row("ab", "c")], 64).spans == {}
    causal = encode_causal(tokenizer, [Row("ab", "cd")], 64)
    assert asked_text(tokenizer, causal) == " cd</s>"
    assert asked_text(tokenizer, encode_causal(tokenizer, [Row(CHAT)], 128)) == " art\n No idea.</s>"


def test_all_of_it_moves_to_a_device():
    encoded = encode_text(word_piece(), [Row("ab", 0)], 64).to("meta")
    assert {tensor.device.type for tensor in (*encoded.inputs.values(), encoded.labels, *encoded.spans["text"])} == {
        "meta"
    }
