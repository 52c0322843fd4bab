"""`--add-tokens`: a repo whose tokenizer, embeddings and chat template have what the fine-tune added."""

import copy
import json

import pytest
import torch
import transformers
from support.commands import assert_refused, hf_bico
from support.family_twins import CASES, twin
from support.little import lora
from support.tokenizers_at_hand import CORPUS, TEMPLATE, byte_bpe
from tokenizers import AddedToken

from hf_bico.io.hub import Hub
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.port import run

ROWS, NEW = 500, ["<|turn|>", "<|over|>"]
CHAT = TEMPLATE.replace("<|start|>", NEW[0]).replace("<|end|>", NEW[1])


def tuned_of(base):
    """With rows of its own for two more tokens, and a change of everything in the span of some texts."""
    tuned = copy.deepcopy(base)
    ids = byte_bpe()(CORPUS.read_text()[:4000], return_tensors="pt")["input_ids"].view(1, -1)[:, :960].view(-1, 24)
    torch.nn.functional.cross_entropy(tuned(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter -= 0.05 * parameter.grad
        tuned.resize_token_embeddings(ROWS + 2, mean_resizing=False)
        for parameter in (tuned.model.embed_tokens.weight, tuned.lm_head.weight):
            parameter[ROWS:] = torch.randn(2, 24, generator=torch.Generator().manual_seed(5))
    return tuned


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A base, its twin, and a fine-tune with two tokens more, by which its chats go."""
    place = tmp_path_factory.mktemp("tokens")
    base = CASES["llama"].build(vocab_size=ROWS, max_position_embeddings=256)
    words = byte_bpe()
    for name, model in {"base": base, "plus": twin(base)}.items():
        model.float().generation_config.eos_token_id = 1
        model.save_pretrained(place / name)
        words.save_pretrained(place / name)
    tuned_of(base).save_pretrained(place / "ft")
    more = byte_bpe(template=CHAT)
    more.add_tokens([AddedToken(token, special=True) for token in NEW], special_tokens=True)
    more.eos_token = NEW[1]
    more.save_pretrained(place / "ft")
    lines = [line for line in CORPUS.read_text().splitlines() if len(line) > 40]
    (place / "task").mkdir()
    for split, some in (("train", lines[:60]), ("test", lines[60:64])):
        chats = [
            {"messages": [{"role": "user", "content": line[:20]}, {"role": "assistant", "content": line[20:]}]}
            for line in some
        ]
        (place / "task" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, chats)) + "\n")
    return place


def ported(root, output, **options):
    words = {"base": str(root / "base"), "method": "bico", "n": 40, "max_length": 64} | options
    config = PortConfig(
        str(root / "ft"), str(root / "plus"), str(root / "task"), output=output, allow_regression=True, **words
    )
    return run(config, Hub())


def test_a_port_to_a_twin_answers_chats_as_the_fine_tune_does(root, tmp_path):
    outcome = ported(root, tmp_path / "out", add_tokens=True)
    folders = root / "ft", tmp_path / "out"
    tuned, port = (transformers.AutoModelForCausalLM.from_pretrained(folder) for folder in folders)
    words, theirs = (transformers.AutoTokenizer.from_pretrained(folder) for folder in folders)
    assert theirs.chat_template == CHAT and theirs.eos_token == NEW[1] and port.config.vocab_size == ROWS + 2
    assert port.generation_config.eos_token_id == [ROWS + 1, 1]
    chat = [{"role": "user", "content": "How do I port a model?"}]
    asked = [
        each.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt") for each in (words, theirs)
    ]
    asked = [each["input_ids"] if hasattr(each, "keys") else each for each in asked]
    assert torch.equal(*asked) and {ROWS, ROWS + 1} <= set(asked[0].flatten().tolist())
    with torch.no_grad():
        wanted, got = tuned(asked[0]).logits, port(asked[0]).logits
    assert (got - wanted).norm() < 1e-3 * wanted.norm()
    assert outcome.evaluation.ported.value == pytest.approx(outcome.evaluation.source.value, rel=1e-3)
    assert not outcome.report["left"] and "--add-tokens" in outcome.report["command"]
    assert any(
        "are added to the new base's tokenizer: <|turn|>, <|over|>, and its chat" in n for n in outcome.report["notes"]
    )


def test_without_it_the_tokens_are_told_with_what_would_add_them(root, tmp_path):
    outcome = ported(root, tmp_path / "out", method="naive")
    notes = " ".join(outcome.report["notes"])
    assert "has 2 tokens that its base's lacks: <|turn|>, <|over|>; a port with add_tokens= adds them" in notes
    assert "chat template of" in notes


def test_what_has_no_place_for_tokens_is_refused(root, tmp_path, capsys, monkeypatch):
    def refused(source, *words):
        given = ["port", root / source, "--base", root / "base", "--to", root / "plus", "--dataset", root / "task"]
        return hf_bico(capsys, monkeypatch, *given, "--add-tokens", "--output", tmp_path / "out", *words)

    assert_refused(refused("ft", "--as", "delta"), "--add-tokens: a delta has no place for more embeddings; write --as")
    assert_refused(refused("ft", "--only", "linear"), "let --only name tokens too")
    transformers.AutoModelForCausalLM.from_pretrained(root / "base").save_pretrained(tmp_path / "same")
    byte_bpe().save_pretrained(tmp_path / "same")
    assert_refused(refused(tmp_path / "same"), "has no added token")
    lora(transformers.AutoModelForCausalLM.from_pretrained(root / "base"), tmp_path / "lora", root / "base")
    assert_refused(refused(tmp_path / "lora"), "takes a whole fine-tune of transformers", "save the merged model")
    assert not (tmp_path / "out").exists()
