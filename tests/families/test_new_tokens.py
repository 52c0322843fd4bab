"""Tokens that a fine-tune added: given to a twin of its base, they mean there what they mean in the fine-tune."""

import copy

import pytest
import torch
import transformers
from support.family_twins import CASES, twin
from support.tokenizers_at_hand import byte_bpe
from tokenizers import AddedToken
from torch import nn

from hf_bico import BiCo, PortError, port
from hf_bico.core.account import STAYED
from hf_bico.core.collect import Batch
from hf_bico.core.notes import noted
from hf_bico.families import family_of

ROWS, NEW = 500, ["<a>", "<b>", "plain"]
EXACT = BiCo(rtol=1e-11)


def more(*tokens: str):
    """The tokenizer with some more tokens, those in brackets special."""
    found = byte_bpe()
    for token in tokens:
        found.add_tokens([AddedToken(token, special=token[0] == "<")], special_tokens=token[0] == "<")
    return found


def padded(model: nn.Module, rows: int) -> nn.Module:
    """With so many rows of embeddings, those without a token at random."""
    model = copy.deepcopy(model)
    torch.manual_seed(4)
    model.resize_token_embeddings(rows, mean_resizing=False)
    with torch.no_grad():
        for parameter in {id(p): p for p in model.parameters() if len(p) == rows}.values():
            parameter[ROWS:] = 0.5 * torch.randn_like(parameter[ROWS:])
    return model


def tuned_of(case, model: nn.Module) -> nn.Module:
    """A fine-tune with three more tokens: a step of everything but the head, and rows of its own for them."""
    top, tuned = family_of(model).on_top(model), padded(model, ROWS + 3)
    old = {key: p for key, p in model.named_parameters() if key not in top}
    steps = torch.autograd.grad(case.loss(model, case.samples()), list(old.values()), allow_unused=True)
    with torch.no_grad():
        for (key, before), step in zip(old.items(), steps, strict=True):
            if step is not None and before.ndim:
                tuned.get_parameter(key)[: len(before)] -= 1e-3 * step
    return tuned


def ported_onto(case, tuned, base, target, words=None, **options):
    batch = case.samples(64)
    return port(
        **{"tuned": tuned, "base": base, "target": target, "calibration": [Batch(batch, batch)], "loss": case.loss},
        **{"method": EXACT, "head": "own", "add_tokens": True} | options,
        tokenizers=words or (more(*NEW), byte_bpe(), byte_bpe()),
    )


def asked(case, model, ids=(ROWS, ROWS + 1, ROWS + 2, ROWS)):
    """Its answers to texts with new tokens."""
    x, labels = case.samples(4)
    x = x.clone()
    x[:, 1] = torch.tensor(ids)
    with torch.no_grad():
        return case.logits(model, (x, labels))


@pytest.mark.parametrize(
    ("name", "pads"), [("llama", (0, 0)), ("llama", (3, 3)), ("mistral", (12, 0)), ("bert", (0, 12)), ("t5", (0, 0))]
)
def test_added_tokens_mean_in_a_twin_what_they_mean_in_the_fine_tune(name, pads):
    """Also where the base or the twin has rows without a token, whatever is in them."""
    case = CASES[name]
    model = case.build(vocab_size=ROWS)
    base, target, tuned = padded(model, ROWS + pads[0]), padded(twin(model), ROWS + pads[1]), tuned_of(case, model)
    before, objects = copy.deepcopy(target.state_dict()), {key: id(p) for key, p in target.named_parameters()}
    with noted() as lines:
        ported = ported_onto(case, tuned, base, target)
    assert lines == ["tokens of the fine-tune are added to the new base's tokenizer: <a>, <b>, plain"]
    assert not ported.account.left
    assert ported.tokenizer.convert_tokens_to_ids(NEW) == [ROWS, ROWS + 1, ROWS + 2]
    assert all(torch.equal(before[key], tensor) for key, tensor in target.state_dict().items())
    assert objects == {key: id(p) for key, p in target.named_parameters()}
    assert base.config.vocab_size == ROWS + pads[0] and target.config.vocab_size == ROWS + pads[1]
    wanted, got = asked(case, tuned), asked(case, ported.apply_())
    got = got[..., : wanted.shape[-1]]
    assert (got - wanted).norm() < 1e-9 * wanted.norm()


def test_tokens_that_the_target_has_keep_its_rows():
    case = CASES["llama"]
    model = case.build(vocab_size=ROWS)
    target, tuned = padded(twin(model), ROWS + 1), tuned_of(case, model)
    row = target.lm_head.weight[ROWS].clone()
    with noted() as lines:
        ported = ported_onto(case, tuned, model, target, (more(*NEW), byte_bpe(), more("<b>")))
    assert lines[1:] == ["the new base's tokenizer has <b> already, and keeps its rows of them"]
    assert {entry.reason for entry in ported.account.left} == {
        f"1 of its rows ({role}) have no partner in the target" for role in ("token embeddings", "language-model head")
    }
    assert ported.tokenizer.convert_tokens_to_ids(NEW) == [ROWS + 1, ROWS, ROWS + 2]
    assert torch.equal(ported.apply_().lm_head.weight[ROWS], row)
    target = padded(twin(model), ROWS + 3)
    ported = ported_onto(case, tuned, model, target, (more(*NEW), byte_bpe(), more(*NEW)))
    assert ported.target.state_dict().keys() == ported.apply_().state_dict().keys() and len(ported.tokenizer) == 503


def test_between_unrelated_models_they_start_at_the_mean_of_the_others():
    """No map knows enough to carry their rows, and that is told."""
    case = CASES["llama"]
    model = case.build(vocab_size=ROWS)
    ported = ported_onto(case, tuned_of(case, model), model, case.build(vocab_size=ROWS, seed=1), method=BiCo())
    stayed = {entry.key for entry in ported.account.left if entry.reason == STAYED}
    assert {"model.embed_tokens.weight", "lm_head.weight"} <= stayed
    rows = ported.apply_().lm_head.weight
    assert torch.allclose(rows[ROWS:], rows[:ROWS].mean(0).expand(3, -1))


def test_a_saved_port_is_opened_with_its_tokens(tmp_path):
    case = CASES["mistral"]
    model = case.build(vocab_size=ROWS)
    ported = ported_onto(case, tuned_of(case, model), model, twin(model))
    folder = ported.save_pretrained(tmp_path / "out")
    assert ported.target.config.vocab_size == ROWS
    opened = transformers.AutoModelForCausalLM.from_pretrained(folder)
    words = transformers.AutoTokenizer.from_pretrained(folder)
    assert words("<b>plain text")["input_ids"][:2] == [ROWS + 1, ROWS + 2]
    assert words.decode([ROWS + 1, ROWS + 2], skip_special_tokens=True) == "plain"
    found = ported.evaluate(lambda model: float(model.lm_head.weight.shape[0]), "rows")
    assert set(found.values()) == {ROWS, ROWS + 3}
    assert torch.equal(opened.lm_head.weight, ported.apply_().lm_head.weight)
    with pytest.raises(PortError, match=r"add_tokens=: a delta has no place for more embeddings"):
        again = ported_onto(case, tuned_of(case, model), model, twin(model))
        again.save_pretrained(tmp_path / "delta", form="delta", base=str(folder))
    assert not (tmp_path / "delta").exists()


def test_without_tokens_or_tokenizers_nothing_is_done():
    case = CASES["llama"]
    model = case.build(vocab_size=ROWS)
    given = case, tuned_of(case, model), model, twin(model)
    with pytest.raises(PortError, match=r"has no added token, with a row in its model, that its base's lacks: leave"):
        ported_onto(*given, (byte_bpe(),) * 3)
    with pytest.raises(PortError, match=r"tokenizers= takes three.*; add_tokens= needs them"):
        ported_onto(*given, (byte_bpe(),))
    with pytest.raises(PortError, match=r"add_tokens= moves rows of embeddings: let only= name tokens too"):
        ported_onto(*given, only=["linear"])
