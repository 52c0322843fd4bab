"""Heads and scores: closed forms against brute force, carried heads against twins, padding against no padding."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import Ridge
from support.family_twins import CASES
from support.repos import case_of, tokenizer_of
from torch import nn

from hf_bico.core import ridge as ridge_module
from hf_bico.core.collect import Batch, Side, collect
from hf_bico.core.errors import PortError
from hf_bico.core.moments import Statistics
from hf_bico.core.pairing import pair_sites
from hf_bico.core.ridge import ridge_classifier
from hf_bico.core.types import Pair, Signal, Site, Slice, Tokens, Wanted
from hf_bico.families import Loaded, family_of
from hf_bico.families.heads import HeadKind, carried, head_layers
from hf_bico.tasks.asked import class_order
from hf_bico.tasks.batches import Batches
from hf_bico.tasks.classifiers import Classifier
from hf_bico.tasks.objectives import Causal, Completion, Seq2Seq
from hf_bico.tasks.samples import Sample
from hf_bico.tasks.scores import Score, better, recovered

TEXTS = (
    "a port is",
    "what a fine-tune learned about the old base",
    "moves",
    "without any training at all, or with",
    "one pass of a hundred samples",
    "and no more than that",
)


def features(n: int = 40, d: int = 12, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % classes
    return torch.randn(n, d, generator=generator) + F.one_hot(labels, d).float(), labels


def test_ridge_is_scikit_learns_at_the_penalty_that_leaving_one_out_chooses():
    x, labels = features()
    y = F.one_hot(labels, 3).double()
    scale = torch.linalg.svdvals((x - x.mean(0)).double()).square().mean()
    errors = []
    for share in ridge_module.PENALTIES.tolist():
        kept = [torch.arange(len(x)) != i for i in range(len(x))]
        fits = [Ridge(share * float(scale)).fit(x[k], y[k]) for k in kept]
        errors.append(
            sum(((y[i] - torch.tensor(fit.predict(x[i : i + 1]))[0]) ** 2).sum() for i, fit in enumerate(fits))
        )
    best = ridge_module.PENALTIES[int(torch.stack(errors).argmin())]
    theirs = torch.tensor(Ridge(float(best * scale)).fit(x, y).predict(x))
    weight, bias = ridge_classifier(x, labels, 3)
    ours = x @ weight.T + bias
    share = (
        (ours - ours.mean()).flatten()
        @ (theirs - theirs.mean()).flatten().float()
        / ((ours - ours.mean()).norm() * (theirs - theirs.mean()).norm())
    )
    assert share > 1 - 1e-5 and torch.equal(ours.argmax(-1), theirs.argmax(-1))


def test_ridge_refuses_features_that_are_all_alike():
    with pytest.raises(ValueError, match="alike"):
        ridge_classifier(torch.ones(5, 3), torch.tensor([0, 1, 0, 1, 0]), 2)


class Head(nn.Module):
    """tanh between two layers, as BERT's pooler and classifier."""

    def __init__(self, d: int, units: int, classes: int = 5) -> None:
        super().__init__()
        self.dense, self.out = nn.Linear(d, units).double(), nn.Linear(units, classes).double()

    def forward(self, x):
        return self.out(torch.tanh(self.dense(x)))

    def sites(self) -> tuple[Site, ...]:
        return tuple(
            Site(
                role,
                role,
                None,
                Slice(f"{name}.weight"),
                Slice(f"{name}.bias"),
                layer.out_features,
                layer.in_features,
                role,
                Tokens(prefix=1),
            )
            for role, name, layer in (("head dense", "dense", self.dense), ("head", "out", self.out))
        )


@pytest.mark.parametrize("units", [8, 13])
def test_carried_head_is_the_same_function_of_turned_and_scaled_features(units):
    torch.manual_seed(0)
    x = torch.randn(50, 8).double()
    turn = torch.linalg.qr(torch.randn(12, 8).double())[0]
    a, b = Head(8, 8), Head(12, units)
    links = [Pair(*each) for each in zip(a.sites(), b.sites(), strict=True)]
    sides = [Side(model, lambda model, batch: model(batch).sum()) for model in (a, b)]
    batches = [Batch(some, 3 * some @ turn.T) for some in x.split(20)]
    made, fit = carried(links, a.state_dict(), *sides, batches)
    b.load_state_dict(made)
    assert fit.rank == 8 and torch.allclose(b(3 * x @ turn.T), a(x), atol=1e-5)


def test_what_a_base_lacks_is_carried_and_what_both_have_moves():
    a, b = Head(8, 8).sites(), Head(12, 12).sites()
    whole = {"dense.weight", "out.weight"}
    assert [
        len(part)
        for part in (
            head_layers(a, b, whole, whole, HeadKind.TRANSPORT).moved,
            head_layers(a, b, set(), whole, HeadKind.TRANSPORT).moved,
            head_layers(a, b, whole, whole, HeadKind.RIDGE).made,
        )
    ] == [1, 0, 1]
    with pytest.raises(PortError, match="head= ridge"):
        head_layers(a[1:], b, whole, whole, HeadKind.TRANSPORT)


def test_scores_know_which_way_is_up():
    low, high = (Score(value, value, value, 9, "perplexity") for value in (5.0, 7.0))
    assert better(low, high) and not better(high, low) and not better(low, low)
    assert recovered(6.0, 7.0, 5.0, "perplexity") == 0.5 and recovered(6.0, 5.0, 7.0, "perplexity") is None
    assert recovered(0.6, 0.5, 0.7, "accuracy") == pytest.approx(0.5) and recovered(0.6, 0.7, 0.5, "accuracy") is None


def test_of_equal_answers_the_more_fluent_is_better():
    plain, worse = (Score(0.0, 0.0, 0.1, 9, "exact match", {"perplexity": value}) for value in (5.0, 7.0))
    assert better(plain, worse) and not better(worse, plain) and not better(plain, plain)


def test_perplexity_is_that_of_all_tokens_together():
    score = Score.perplexity(torch.tensor([2.0, 9.0]), torch.tensor([2.0, 3.0]))
    assert score.value == pytest.approx(float(torch.tensor(11 / 5).exp())) and score.low < score.value < score.high


def test_agreement_is_of_similarities_and_not_of_coordinates():
    x = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))
    turn = torch.linalg.qr(torch.randn(9, 6, generator=torch.Generator().manual_seed(1)))[0]
    assert Score.agreement(2 * x @ turn.T, x).value > 0.99999
    assert abs(Score.agreement(torch.randn(30, 6, generator=torch.Generator().manual_seed(2)), x).value) < 0.3


def test_classes_are_matched_by_name():
    assert class_order(("cat", "dog"), ("dog", "cat")) == (1, 0)
    assert class_order(("cat", "dog"), ("LABEL_0", "LABEL_1")) == () == class_order(("0", "1"), ("no", "yes"))
    assert class_order(("1", "2", "3"), ("3", "1", "2")) == (1, 2, 0)
    with pytest.raises(PortError, match="classes"):
        class_order(("cat", "cow"), ("dog", "cat"))


ASKED = {
    "bert": (Classifier, [Sample(text, i % 3) for i, text in enumerate(TEXTS)]),
    "llama": (Causal, [Sample(text, None) for text in TEXTS]),
    "gpt2": (Completion, [Sample(text, f"answer {i}") for i, text in enumerate(TEXTS)]),
    "t5": (Seq2Seq, [Sample(text, f"answer {i}") for i, text in enumerate(TEXTS)]),
}


def side(name: str, *, other: bool = False):
    kind = CASES[name].kind
    tokenizer = tokenizer_of(kind) if not other else tokenizer_of("causal" if kind == "text" else "text")
    model = case_of(name, tokenizer.vocab_size).build(exact=True)
    objective, _ = ASKED[name]
    return model, objective(Loaded(model, None, tokenizer), 64)


@pytest.mark.parametrize("other", [False, True], ids=["same tokenizer", "other tokenizer"])
@pytest.mark.parametrize("name", ASKED)
def test_batches_of_texts_change_nothing(name, other):
    """Padding is of no weight, whatever it is beside; also where rows meet by the characters they cover."""
    (a, asked_a), (b, asked_b) = side(name), side(name, other=other)
    pairs = pair_sites(*(family_of(model).sites(model) for model in (a, b)))
    signals = {Signal.INPUT, Signal.OUTPUT, Signal.OUTPUT_GRADIENT}
    found = []
    for size in (1, 2, len(TEXTS)):
        batches = Batches(ASKED[name][1], (asked_a, asked_b), size)
        sides, empty = (Side(a, asked_a.loss), Side(b, asked_b.loss)), Statistics(pairs, Wanted(frozenset(signals)))
        found.append(collect(*sides, pairs, batches, empty))
    first, *rest = (statistics.state_dict() for statistics in found)
    for state in rest:
        assert all(torch.allclose(state[key].double(), first[key].double(), rtol=1e-6, atol=1e-9) for key in first)


@pytest.mark.parametrize("name", ASKED)
def test_loss_is_transformers_own(name):
    model, asked = side(name)
    samples = ASKED[name][1]
    batch = asked.encode(samples)
    whole = model(**batch.inputs, labels=batch.labels).loss
    counted = len(samples) if batch.labels.ndim == 1 else (batch.labels[:, asked_shift(name) :] != -100).sum()
    assert torch.allclose(asked.loss(model, batch).double(), (whole * counted).double(), rtol=1e-5)


def asked_shift(name: str) -> int:
    """A causal model is not asked for its first token."""
    return 1 if CASES[name].kind == "causal" else 0
