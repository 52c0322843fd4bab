"""Which rows meet: laws that hold for any two ways to cut one text."""

import torch

from hf_bico.core.alignment import PLACES, Part, Spans, Token, meeting, places, same, stack_spans

LENGTH = 24


def cut(*ends: int, specials: bool = False, length: int = LENGTH) -> list[tuple[int, int]]:
    """Places of the tokens between 0 and these ends, with a special token before and behind if asked."""
    starts = (0, *ends[:-1])
    tokens = [Token(start, end) for start, end in zip(starts, ends, strict=True)]
    if specials:
        tokens = [Token(0, 0, True), *tokens, Token(length, length, True)]
    return places(tokens, [Part(0, length)], length)


def test_a_tokenizer_meets_itself_token_by_token():
    spans = stack_spans([cut(2, 5, 6, 13, 24, specials=True), cut(4, 9)])
    assert same(spans, spans)
    assert torch.equal(meeting(spans, spans), torch.diag_embed(spans.mask.float()))
    assert spans.mask.sum(1).tolist() == [7, 2]


def test_a_row_that_meets_weighs_one_and_others_nothing():
    a, b = (stack_spans([cut(*ends)]) for ends in ((3, 4, 11, 20), (1, 2, 10, 19, 24)))
    weights = meeting(a, b)
    assert torch.allclose(weights.sum(-1), torch.ones(5))
    assert (weights >= 0).all()
    assert torch.allclose(weights[0, 2], torch.tensor([1 / 8, 1 / 8, 6 / 8, 0]))  # [2, 10): 1 of 3, 1 of 1, 6 of 7
    assert not meeting(stack_spans([cut(10)]), stack_spans([places([Token(10, 24)], [Part(0, 24)], 24)])).any()


def test_halves_of_a_token_each_take_its_row():
    whole, halves = stack_spans([cut(4, 10, 24)]), stack_spans([cut(2, 4, 7, 10, 17, 24)])
    rows = torch.randn(1, 3, 5)
    assert torch.equal(meeting(whole, halves) @ rows, rows.repeat_interleave(2, dim=1))
    assert torch.allclose(meeting(halves, whole) @ rows.repeat_interleave(2, dim=1), rows)


def test_special_tokens_meet_their_like_and_never_text():
    bare, dressed = stack_spans([cut(6, 24)]), stack_spans([cut(12, 24, specials=True)])
    weights = meeting(bare, dressed)[0]
    assert not weights[[0, -1]].any()
    assert torch.allclose(weights[1], torch.tensor([0.5, 0.5]))
    both = meeting(stack_spans([cut(24, specials=True)]), dressed)[0]
    assert torch.equal(both, torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]]))


def test_several_special_tokens_share_the_place_of_one():
    one, two = (
        places([Token(0, 3), *[Token(3, 3, True)] * many, Token(3, 6)], [Part(0, 3), Part(3, 3)], 6) for many in (1, 2)
    )
    assert torch.equal(
        meeting(stack_spans([one]), stack_spans([two]))[0], torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]])
    )
    assert torch.equal(meeting(stack_spans([two]), stack_spans([one]))[0, 1], torch.tensor([0, 0.5, 0.5, 0]))


def test_parts_keep_their_places_whatever_stands_between():
    none = places([Token(0, 3), Token(3, 6)], [Part(0, 3), Part(3, 3)], 6)
    some = places([Token(0, 3), Token(3, 3, True), Token(3, 6)], [Part(0, 3), Part(3, 3)], 6)
    assert none == [some[0], some[2]]
    assert places([Token(5, 8), Token(10, 13)], [Part(5, 3), Part(10, 3)], 20) == none


def test_what_a_template_writes_meets_what_another_writes_there():
    """<<abc>>>>def against [abc][def]; the template that drops the second part shows none of it."""
    long = places([Token(0, 2), Token(2, 5), Token(5, 9), Token(9, 12)], [Part(2, 3), Part(9, 3)], 12)
    short = places(
        [Token(0, 1), Token(1, 4), Token(4, 5), Token(5, 6), Token(6, 9), Token(9, 10)], [Part(1, 3), Part(6, 3)], 10
    )
    weights = meeting(stack_spans([long]), stack_spans([short]))[0]
    assert torch.equal(weights.argmax(1), torch.tensor([0, 1, 2, 2, 3, 0]))
    assert not weights[5].any()
    dropped = places([Token(0, 1), Token(1, 4), Token(4, 9)], [Part(1, 3), Part(None, 3)], 9)
    assert not meeting(stack_spans([long]), stack_spans([dropped]))[0, 2].any()


def test_tokens_that_share_a_character_divide_it():
    """The bytes of one character, and a token that ends inside it."""
    tokens = [Token(0, 2), Token(1, 2), Token(1, 2), Token(2, 3)]
    own = places(tokens, [Part(0, 3)], 3)
    assert [(end - start) / PLACES for start, end in own] == [1 + 1 / 3, 1 / 3, 1 / 3, 1]
    spans = stack_spans([own])
    assert torch.equal(meeting(spans, spans)[0], torch.eye(4))
    whole = stack_spans([places([Token(0, 1), Token(1, 2), Token(2, 3)], [Part(0, 3)], 3)])
    assert torch.equal(meeting(spans, whole)[0, 1], torch.tensor([1, 1, 1, 0]) / 3)


def test_a_token_that_covers_nothing_is_masked():
    spans = stack_spans([places([Token(0, 0), Token(0, 3), Token(3, 3)], [Part(0, 3)], 3)])
    assert spans.mask.tolist() == [[False, True, False]]


def test_what_is_masked_meets_nothing():
    """Whatever it covers: a caller may mask more than padding."""
    spans = stack_spans([cut(2, 5, 24)])
    mask = torch.tensor([[True, False, True]])
    for a, b in ((spans, spans._replace(mask=mask)), (spans._replace(mask=mask), spans)):
        assert torch.equal(meeting(a, b), torch.diag_embed(mask.float()))


def test_same_is_no_more_than_same():
    a, b = stack_spans([cut(3, 24), cut(5)]), stack_spans([cut(3, 24), cut(6)])
    assert not same(a, b)
    assert not same(a, stack_spans([cut(3, 24)]))
    assert not same(a, Spans(a.start, a.end, torch.zeros_like(a.mask)))
    assert same(a, Spans(*(x.clone() for x in a)))
