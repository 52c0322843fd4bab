"""Small real tokenizers, trained on a text that lies beside this file, so that no page of the docs changes them."""

from functools import cache
from pathlib import Path

CORPUS = Path(__file__).with_name("corpus.txt")
TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}<|start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}"
    "{{ m.content }}<|end|>{% endgeneration %}{% else %}{{ m.content }}<|end|>{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
BRACKETS = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content | trim }} [/INST]"
    "{% else %} {{ m.content | trim }}{{ eos_token }}{% endif %}{% endfor %}"
)


COMMON = ["train test text number of some words"] * 200
"""Words that tests write: among the first tokens, whatever else the text says."""


@cache
def _lines() -> list[str]:
    return CORPUS.read_text(encoding="utf-8").splitlines()


def _trained(made, trainer):
    """Train a tokenizer on the lines, once in a process: of equal counts a trainer may take any first."""
    name = (
        f"{type(made.model).__name__} {trainer.vocab_size} {made.normalizer is not None and made.normalizer.lowercase}"
    )
    if name not in _TRAINED:
        made.train_from_iterator([*_lines(), *COMMON], trainer)
        _TRAINED[name] = made.to_str()
    return type(made).from_str(_TRAINED[name])


_TRAINED: dict[str, str] = {}


def byte_bpe(size: int = 500, *, bos: bool = False, template: str | None = None, **options):
    """Byte-level BPE, as GPT-2's: no special tokens of its own, or <s> before a text; white space trimmed."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made = _trained(
        made,
        trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=["<s>", "</s>", "<|start|>", "<|end|>"],
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    made.decoder = decoders.ByteLevel()
    steps = [processors.ByteLevel(trim_offsets=True)]
    if bos:
        steps.append(processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)]))
    made.post_processor = processors.Sequence(steps)
    names = {"bos_token": "<s>", "eos_token": "</s>"} | options
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, chat_template=template, **names)


def word_piece(size: int = 400, *, lower: bool = True, **options):
    """WordPiece, as BERT's: [CLS] a [SEP] b [SEP]."""
    import transformers
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=lower)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made = _trained(made, trainers.WordPieceTrainer(vocab_size=size, special_tokens=special, show_progress=False))
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
    } | options
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **names)


def unigram(size: int = 300, **options):
    """Pieces with their white space and </s> behind a text, as T5's."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    made = Tokenizer(models.Unigram())
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    made = _trained(
        made,
        trainers.UnigramTrainer(
            vocab_size=size, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
        ),
    )
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"} | options
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **names)
