"""A model and its tokenizer suit each other: padding, the longest text, the vocabulary; and what a config says."""

import pytest
import torch
import transformers
from support.family_twins import CASES
from support.little import llama
from support.tokenizers_at_hand import byte_bpe, unigram, word_piece

from hf_bico.core.errors import PortError
from hf_bico.core.notes import noted
from hf_bico.families.feeding import encode_text
from hf_bico.families.settings import differing
from hf_bico.families.tokenizing import fit_vocabulary, positions, suit_tokenizer
from hf_bico.tasks.samples import Sample

TEXTS = ("The new base model", "x", "moved by maps of output gradients")
ENDS = {
    "texts end as they are": lambda **o: byte_bpe(bos=True, **o),
    "texts end with the end of sequence": lambda **o: unigram(bos_token="<pad>", **o),
}


@pytest.mark.parametrize("make", ENDS.values(), ids=ENDS)
def test_a_classifier_without_a_padding_token_answers_as_it_does_for_each_text_alone(make):
    tokenizer = make(pad_token=None)
    assert tokenizer.pad_token_id is None
    model = llama(cls="LlamaForSequenceClassification", num_labels=3, pad_token_id=None)
    with torch.no_grad():
        alone = torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in TEXTS])
        with noted() as lines:
            suit_tokenizer(tokenizer, model, classifies=True)
        batch = encode_text(tokenizer, [Sample(text, 0) for text in TEXTS], 64)
        together = model(**{k: v for k, v in batch.inputs.items() if k != "token_type_ids"}).logits
    assert torch.allclose(alone, together, atol=1e-5)
    assert len(lines) == 1 and "no padding token" in lines[0]


def test_a_classifier_that_reads_the_end_token_needs_one():
    model = CASES["t5-classifier"].skeleton()
    with pytest.raises(PortError, match="reads a text at its end token, and its tokenizer adds none"):
        suit_tokenizer(byte_bpe(bos=True), model, classifies=True)
    model.config.eos_token_id = unigram().eos_token_id
    suit_tokenizer(unigram(), model, classifies=True)


def test_the_padding_token_of_a_tokenizer_or_else_of_a_model_is_kept():
    model = llama(cls="LlamaForSequenceClassification", num_labels=3, pad_token_id=None)
    suit_tokenizer(byte_bpe(pad_token="<|end|>"), model, classifies=True)
    assert model.config.pad_token_id == 3
    tokenizer = byte_bpe()
    model.config.pad_token_id = 2
    suit_tokenizer(tokenizer, model, classifies=True)
    assert (tokenizer.pad_token, model.config.pad_token_id) == ("<|start|>", 2)


SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 400,
}
LONGEST = {
    "BertConfig": ({"max_position_embeddings": 12}, 12),
    "RobertaConfig": ({"max_position_embeddings": 14, "pad_token_id": 1}, 12),
    "MPNetConfig": ({"max_position_embeddings": 14, "pad_token_id": 1}, 12),
}


@pytest.mark.parametrize("name", LONGEST)
def test_texts_are_cut_at_the_models_positions(name):
    options, most = LONGEST[name]
    config = getattr(transformers, name)(**SMALL | options)
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    tokenizer = word_piece()
    assert positions(config) == most
    suit_tokenizer(tokenizer, model, classifies=True)
    with noted() as lines:
        encode_text(tokenizer, [Sample("a text", 0)], 256)
        assert not lines
        batch = encode_text(tokenizer, [Sample("a text of many more words than the model has places for " * 3, 0)], 256)
    assert lines == [f"texts are cut at {most} tokens: a model has positions for no more"]
    assert most == batch.inputs["input_ids"].shape[1]
    inputs = {k: v for k, v in batch.inputs.items() if k != "token_type_ids"}
    assert model(**inputs).logits.shape == (1, 2)


def test_a_model_without_a_limit_sets_none():
    assert positions(transformers.T5Config()) is None


@pytest.mark.parametrize("tied", [True, False])
def test_a_vocabulary_fits_the_tensors_that_come(tied):
    model = llama(tie_word_embeddings=tied)
    shapes = {"model.embed_tokens.weight": torch.empty(510, 16)}
    fit_vocabulary(model, shapes)
    assert model.get_input_embeddings().num_embeddings == model.lm_head.out_features == 510
    fit_vocabulary(model, {})
    fit_vocabulary(model, {}, least=515)
    assert model.get_input_embeddings().num_embeddings == 515


def test_a_token_that_the_model_has_no_embedding_for_is_named():
    tokenizer = word_piece()
    tokenizer.add_tokens(["<new>"])
    suit_tokenizer(tokenizer, llama(vocab_size=len(tokenizer) - 1), classifies=False)
    assert encode_text(tokenizer, [Sample("the new base", 0)], 64).inputs["input_ids"].shape[0] == 1
    with pytest.raises(PortError, match=r"the token '<new>' of a text is none of the \d+ that its model has"):
        encode_text(tokenizer, [Sample("the <new> base", 0)], 64)


def test_a_padding_token_that_the_model_has_no_embedding_for_is_not_used():
    tokenizer = byte_bpe()
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    with noted() as lines:
        suit_tokenizer(tokenizer, llama(vocab_size=len(tokenizer) - 1), classifies=False)
    assert tokenizer.pad_token == "</s>" and "'<pad>'" in lines[0]


def test_a_model_that_reads_no_tokens_is_left_alone():
    vision = transformers.CLIPVisionConfig(**SMALL | {"image_size": 8, "patch_size": 4})
    model = transformers.CLIPForImageClassification(transformers.CLIPConfig(vision_config=vision.to_dict()))
    fit_vocabulary(model, model.state_dict())


def test_settings_that_change_what_weights_do_are_told_from_others():
    base = llama().config
    same = llama(vocab_size=512, attention_dropout=0.1, use_cache=False, initializer_range=0.5).config
    assert differing(same.to_dict(), base.to_dict()) == {}
    other = llama(
        hidden_act="gelu", rms_norm_eps=1e-5, rope_parameters={"rope_type": "default", "rope_theta": 5e5}
    ).config
    found = differing(other.to_dict(), base.to_dict())
    assert found["hidden_act"] == ("gelu", "silu") and found["rms_norm_eps"] == (1e-5, base.rms_norm_eps)
    assert any("rope_theta" in key for key in found) and len(found) == 3
    assert differing({"model_cfg": {"quick_gelu": True}}, {"model_cfg": {}}) == {"model_cfg.quick_gelu": (True, None)}
    assert "model_args.global_pool" in differing({"model_args": {"global_pool": "avg"}}, {"model_args": {}})
