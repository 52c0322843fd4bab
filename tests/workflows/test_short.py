"""What the Python API returns prints in a line, not in pages, and says what matters."""

import pytest
import torch
from support.live import EXACT, model_of, named_batch, random_sites

import hf_bico
from hf_bico import Batch, Opened, PortConfig, TaskVector
from hf_bico.core.brief import brief, counted, cut
from hf_bico.core.low_rank import Delta, LowRank
from hf_bico.workflows.trainer import WarmStart

LONGEST = 400
"""Characters of anything that is returned."""


def is_short(made) -> bool:
    return "\n" not in repr(made) and len(repr(made)) <= LONGEST and str(made) == repr(made)


@pytest.fixture(scope="module")
def ported():
    """A live port of a tiny classifier to itself."""
    base, target = model_of("bert"), model_of("bert")
    batch = named_batch("bert")
    return hf_bico.port(
        tuned=random_sites(base), base=base, target=target, calibration=[batch], method=EXACT, head="own"
    )


def test_a_live_port(ported):
    assert is_short(ported)
    assert repr(ported).startswith("Ported(a fine-tune of ") and f"{len(ported.moved)} layers moved" in repr(ported)
    ported.evaluate(lambda model: 0.5)
    assert is_short(ported) and "accuracy with the port (α = 1): 0.5" in repr(ported)


def test_what_a_live_port_holds(ported):
    for each in (ported.delta, ported.account, ported.record):
        assert is_short(each), each
    assert repr(ported.delta) == f"Delta({len(ported.delta)} tensors)"
    assert repr(ported.account).startswith(f"Account({ported.account.moved_share:.1%} of ‖τ‖² moves")
    assert repr(ported.record).startswith("PortReport(a fine-tune of ")


def test_a_port_from_repos(pushed):
    outcome = pushed[2]
    assert is_short(outcome) and is_short(outcome.evaluation) and is_short(outcome.verdict)
    said = repr(outcome)
    assert said.startswith(f"Outcome(demo/ft → demo/plus: {outcome.verdict.word}, accuracy {outcome.evaluation.ported}")
    assert outcome.url in said and str(pushed[0]) in said
    warm = WarmStart(torch.nn.Linear(300, 100), None, None, outcome)
    assert repr(warm) == f"WarmStart(Linear of 30.1 k parameters, {said})"


def test_choices_are_those_that_were_made():
    config = PortConfig("a/b", "c/d", "e/f", n=20, method="bico")
    assert eval(repr(config), {"PortConfig": PortConfig}) == config
    assert repr(config) == "PortConfig(source='a/b', target='c/d', dataset='e/f', n=20, method='bico')"


def test_models_batches_and_vectors():
    opened = Opened(model_of("bert"), None, None)
    assert is_short(opened) and repr(opened).startswith("Opened(Bert") and "parameters" in repr(opened)
    batch = Batch((torch.zeros(8, 3), torch.zeros(8, dtype=torch.long)), named_batch("bert"))
    assert is_short(batch)
    assert repr(batch).startswith("Batch(base=(float32 (8, 3), int64 (8,)), target={input_ids: int64 (16, ")
    long = TaskVector({"a": torch.ones(2)}, {"source": "x" * 999, "base": "org/base"})
    assert is_short(long) and is_short(sum([long] * 9))
    product = LowRank(torch.ones(4, 2), torch.ones(2, 3))
    assert repr(product) == "LowRank(4 × 3, rank 2)"
    assert is_short(Delta.of({"a": torch.ones(2)}))


@pytest.mark.parametrize("name", hf_bico.__all__)
def test_every_public_class_that_needs_nothing_prints_short(name):
    kind = getattr(hf_bico, name)
    if isinstance(kind, type) and name not in (
        "Evaluated",
        "Opened",
        "PortCallback",
        "Ported",
        "PortConfig",
        "TaskVector",
    ):
        assert is_short(kind()) or name == "PortError"


def test_a_callback_prints_short():
    assert is_short(hf_bico.PortCallback("org/new", "org/samples"))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.zeros(2, dtype=torch.bfloat16), "bfloat16 (2,)"),
        ([1, 2, 3, 4, 5], "[1, 2, 3, … 2 more]"),
        ({"a": None, "b": "x"}, "{a: None, b: 'x'}"),
        (object(), "object"),
        ("x" * 99, "'" + "x" * 58 + "…"),
    ],
    ids=["tensor", "list", "mapping", "object", "text"],
)
def test_values_in_a_few_words(value, said):
    assert brief(value) == said


def test_numbers_as_readers_say_them():
    assert [counted(each) for each in (7, 1500, 86_000_000, 8_030_000_000)] == ["7", "1.5 k", "86 M", "8.03 B"]
    assert cut("a\n b") == "a b"
