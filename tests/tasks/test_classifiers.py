"""Heads of every kind: losses are transformers' own, scores those of the libraries that people use."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import bootstrap, pearsonr, spearmanr
from seqeval.metrics import f1_score as entity_f1
from sklearn.metrics import f1_score
from support import tokenizers_at_hand
from support.tasks import KINDS, TAGS, asked, model_of, other_words, task_of, words, write_rows
from torch import nn

from hf_bico import PortError
from hf_bico.core.collect import Side, collect
from hf_bico.core.moments import Statistics
from hf_bico.core.pairing import pair_sites
from hf_bico.core.ridge import ridge_labels
from hf_bico.core.types import Signal, Wanted
from hf_bico.families import Answer, family_of
from hf_bico.families.feeding import UNASKED, Encoded, Span
from hf_bico.families.fitting import fitting_of
from hf_bico.families.losses import loss_of
from hf_bico.families.marked import encode_hidden, encode_spans, encode_words
from hf_bico.tasks.batches import Batches
from hf_bico.tasks.samples import Sample
from hf_bico.tasks.scores import Score, answer_scores, entity_counts


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    made = {}
    for kind in KINDS:
        model = model_of(kind, words())
        task, samples = task_of(write_rows(tmp_path_factory.mktemp(kind), kind), model)
        made[kind] = model, task, samples[:12], asked(model, words(), task)
    return made


def named(kind: str, batch) -> dict[str, torch.Tensor]:
    """A batch as transformers takes it, labels and all."""
    if kind == "spans":
        return dict(batch.inputs) | dict(zip(("start_positions", "end_positions"), batch.labels.T, strict=True))
    labels = batch.labels.double() if batch.labels.is_floating_point() else batch.labels
    return dict(batch.inputs) | {"labels": labels[:, None] if kind == "number" else labels}


@pytest.mark.parametrize("kind", KINDS)
def test_loss_is_transformers_own(kind, worlds):
    model, _, samples, objective = worlds[kind]
    total = 0.0
    for sample in samples:  # one at a time: transformers counts the scores of padding as answers
        batch = objective.encode([sample])
        whole = named(kind, batch)
        counted = int((batch.labels != UNASKED).sum()) if kind in ("tags", "hidden") else 1
        own = model(**whole).loss * counted
        assert torch.allclose(objective.loss(model, batch).double(), own.double(), rtol=1e-5)
        assert torch.allclose(loss_of(model)(model, whole).double(), own.double(), rtol=1e-5)
        total += float(own)
    assert float(objective.loss(model, objective.encode(samples))) == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_change_nothing(kind, worlds):
    """Padding is of no weight, also where the other model cuts words differently."""
    model, task, samples, objective = worlds[kind]
    target = model_of(kind, other_words())
    other = asked(target, other_words(), task)
    pairs, found = pair_sites(*(family_of(each).sites(each) for each in (model, target))), []
    for size in (1, 5):
        seen = Statistics(pairs, Wanted(frozenset({Signal.INPUT, Signal.OUTPUT_GRADIENT})))
        sides = Side(model, objective.loss), Side(target, other.loss)
        found.append(collect(*sides, pairs, Batches(samples, (objective, other), size), seen).state_dict())
    for key, alone in found[0].items():
        assert torch.allclose(found[1][key].double(), alone.double(), rtol=1e-5, atol=1e-8)


def test_the_first_token_of_a_word_has_its_class():
    given, tokenizer = ["unbelievable", "things", "happened"], words()
    batch = encode_words(tokenizer, [Sample(given, (2, 0, UNASKED)), Sample(given[:1], (1,))], 64)
    pieces = [len(tokenizer(word, add_special_tokens=False)["input_ids"]) for word in given]
    assert max(pieces) > 1
    labels = [
        UNASKED,
        *(each for k, n in zip((2, 0, UNASKED), pieces, strict=True) for each in [k] + [UNASKED] * (n - 1)),
    ]
    assert batch.labels[0].tolist()[: len(labels)] == labels
    assert batch.labels[1].tolist()[1] == 1 and (batch.labels[1, 2:] == UNASKED).all()


def test_ends_of_an_answer_are_tokens_and_what_is_cut_has_none():
    tokenizer, text = words(), "the port carries what it learned"
    start = text.index("what")
    sample = Sample(("carries what?", text), (Span(start, start + len("what it")),))
    batch = encode_spans(tokenizer, [sample], 64)
    first, last = batch.labels[0].tolist()
    assert tokenizer.decode(batch.inputs["input_ids"][0, first : last + 1]) == "what it"
    assert encode_spans(tokenizer, [sample], first + 1).labels.tolist() == [[0, 0]]
    token = batch.notes[0].tokens[first]
    assert text[token.start : token.end].strip() == "what"


class Right(nn.Module):
    """Answers what the labels of a batch say."""

    def __init__(self, labels: torch.Tensor) -> None:
        super().__init__()
        self.weight, self.labels = nn.Parameter(torch.zeros(1)), labels

    def forward(self, input_ids, **rest):
        if self.labels.shape[1] == input_ids.shape[1]:
            return SimpleNamespace(logits=F.one_hot(self.labels.clamp_min(0), len(TAGS)).float())
        start, end = F.one_hot(self.labels, input_ids.shape[1]).float().unbind(1)
        return SimpleNamespace(start_logits=start, end_logits=end)


def test_the_same_words_are_hidden_whatever_the_tokenizer():
    text = "every token of a hidden word is hidden and the same words are hidden from both models alike"
    found = []
    for tokenizer in (words(), other_words()):
        batch = encode_hidden(tokenizer, [Sample(text, None)], 64)
        ids = batch.inputs["input_ids"][0].where(batch.labels[0] == UNASKED, batch.labels[0])
        assert torch.equal(ids, torch.tensor(tokenizer(text)["input_ids"]))
        assert (batch.inputs["input_ids"][batch.labels != UNASKED] == tokenizer.mask_token_id).all()
        found.append(tokenizer.decode(batch.labels[batch.labels != UNASKED]).replace("##", "").split())
    assert "".join(found[0]) == "".join(found[1]) and len(set(batch.notes[0]) - {None}) == round(0.15 * 17)
    with pytest.raises(PortError, match="no mask token"):
        encode_hidden(tokenizers_at_hand.word_piece(), [Sample(text, None)], 64)


@pytest.mark.parametrize("kind", ["tags", "spans"])
def test_right_answers_score_full_marks(kind, worlds):
    _, _, samples, objective = worlds[kind]
    batch = objective.encode(samples)
    score = objective.score(objective.per_sample(Right(batch.labels), batch).float())
    assert score.value == 1 and all(value == 1 for value in score.also.values())


def test_scores_are_those_of_the_libraries():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(50, 4, generator=generator), torch.rand(50, 4, generator=generator) > 0.6
    several = Score.several(logits, labels.float())
    assert several.value == pytest.approx(f1_score(labels.numpy(), logits.numpy() > 0, average="micro"))
    given, wanted = logits[:, 0], logits[:, 0] + logits[:, 1]
    number = Score.correlation(given, wanted)
    assert number.value == pytest.approx(pearsonr(given, wanted).statistic, abs=1e-6)
    assert (number.low, number.high) == pytest.approx(tuple(pearsonr(given, wanted).confidence_interval()), abs=1e-6)
    assert number.also["spearman"] == pytest.approx(spearmanr(given, wanted).statistic)
    tags = [[TAGS[k] for k in torch.randint(5, (8,), generator=generator)] for _ in range(60)]
    counts = torch.tensor([entity_counts(a, b) for a, b in zip(tags[:30], tags[30:], strict=True)])
    ours = Score.ratio(2 * counts[:, 0], counts[:, 1] + counts[:, 2], "entity F1")
    assert ours.value == pytest.approx(entity_f1(tags[30:], tags[:30]))


def test_the_interval_of_a_ratio_is_the_bootstraps():
    generator = torch.Generator().manual_seed(1)
    whole = torch.randint(1, 9, (200,), generator=generator)
    part = (whole * torch.rand(200, generator=generator)).round()
    ours = Score.ratio(part, whole, "entity F1")
    ratio = lambda a, b, axis=-1: a.sum(axis) / b.sum(axis)  # noqa: E731
    theirs = bootstrap((part.numpy(), whole.numpy()), ratio, paired=True, vectorized=True, rng=0, n_resamples=2000)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.01)
    assert Score.ratio(torch.zeros(3), torch.zeros(3), "entity F1").value == 0


@pytest.mark.parametrize(
    ("given", "wanted", "exact", "f1"),
    [
        ("The Eiffel Tower!", ["eiffel tower"], 1, 1),
        ("in Paris, France", ["London", "Paris"], 0, 0.5),
        ("", [], 1, 1),
        ("something", [], 0, 0),
        ("a b c", ["b c d"], 0, 0.8),
    ],
)
def test_answers_are_scored_by_squads_rules(given, wanted, exact, f1):
    assert answer_scores(given, wanted) == pytest.approx((exact, f1))


def test_a_number_that_is_always_the_same_correlates_with_nothing():
    assert Score.correlation(torch.ones(9), torch.arange(9.0)).value == 0


def test_fitted_labels_lie_on_either_side_of_zero():
    generator = torch.Generator().manual_seed(0)
    y = torch.rand(80, 3, generator=generator) > 0.7
    x = torch.cat(
        [y.float() + 0.1 * torch.randn(80, 3, generator=generator), torch.randn(80, 4, generator=generator)], 1
    )
    weight, bias = ridge_labels(x, y)
    logits = x @ weight.T + bias
    assert ((logits > 0) == y).float().mean() > 0.98
    assert float(logits.abs().mean()) == pytest.approx(2 + float(torch.tensor(2.0).log()), rel=1e-4)


def test_classes_in_another_order_are_the_models(worlds):
    _, _, samples, objective = worlds["several"]
    turned = replace(objective, order=(1, 2, 3, 0))
    assert torch.equal(turned.encode(samples).labels[:, [1, 2, 3, 0]], objective.encode(samples).labels)


@pytest.mark.parametrize("answer", [Answer.CLASS, Answer.CLASSES, Answer.NUMBER, Answer.WORD_CLASSES, Answer.SPAN])
def test_a_fitted_head_answers_what_its_rows_say(answer):
    """Rows that hold the answer, noise beside it: the head that is fitted to them gives it back."""
    n, tokens, d = 60, 7, 9
    generator = torch.Generator().manual_seed(0)
    pooled = answer in (Answer.CLASS, Answer.CLASSES, Answer.NUMBER)
    rows = 0.05 * torch.randn(n, 1 if pooled else tokens, d, generator=generator)
    mask, labels = torch.ones(n, tokens, dtype=torch.long), torch.arange(n) % 3
    mask[:, -1] = 0
    if answer is Answer.CLASSES:
        labels = (torch.rand(n, 3, generator=generator) > 0.5).float()
        rows[:, 0, :3] += labels
    elif answer is Answer.NUMBER:
        labels = torch.randn(n, generator=generator)
        rows[:, 0, 0] += labels
    elif answer is Answer.SPAN:
        labels = torch.stack([torch.arange(n) % 3, 3 + torch.arange(n) % 3], dim=1)
        for end in range(2):
            rows[torch.arange(n), labels[:, end], end] += 1
    elif answer is Answer.WORD_CLASSES:
        labels = torch.randint(0, 3, (n, tokens), generator=generator)
        rows[..., :3] += F.one_hot(labels, 3)
        labels[:, ::2] = UNASKED
    else:
        rows[:, 0, :3] += F.one_hot(labels, 3)
    fitting = fitting_of(answer, 3)
    weight, bias = fitting.solve(*fitting.rows(rows, Encoded({"attention_mask": mask}, labels)))
    logits = rows @ weight.T + bias
    if answer is Answer.NUMBER:
        assert torch.corrcoef(torch.stack([logits[:, 0, 0], labels]))[0, 1] > 0.98
    elif answer is Answer.CLASSES:
        assert torch.equal(logits[:, 0] > 0, labels > 0)
    elif answer is Answer.SPAN:
        assert torch.equal(logits.argmax(1), labels)
    else:
        asked = labels != UNASKED
        given = logits.argmax(-1) if answer is Answer.WORD_CLASSES else logits[:, 0].argmax(-1)
        assert torch.equal(given[asked], labels[asked])
