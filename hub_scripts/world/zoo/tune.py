"""Fine-tunes of the zoo's text models; what the token tables are stays frozen, as no port would move it."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hub_scripts.world.zoo.data import TEXT_TASKS, rows
from hub_scripts.world.zoo.training import fit

LONGEST = 96
"""Tokens of a text in training."""


def tune_classifier(base: Path, task: str, steps: int, rate: float, batch: int, seed: int = 0) -> nn.Module:
    """A BertForSequenceClassification of a base's folder with a fresh head, fine-tuned on strings (padded)."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(seed)
    classes = TEXT_TASKS[task].classes
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForSequenceClassification.from_pretrained(
        base, id2label=dict(enumerate(classes)), label2id={c: i for i, c in enumerate(classes)}
    ).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    freeze_embeddings(model)
    data, generator = rows(task, "train"), torch.Generator().manual_seed(seed)

    def loss_of(step: int) -> Tensor:
        picked = [data[i] for i in torch.randint(len(data), (batch,), generator=generator).tolist()]
        coded = tokenizer(
            [row["text"] for row in picked], padding=True, truncation=True, max_length=LONGEST, return_tensors="pt"
        )
        return F.cross_entropy(model(**coded).logits, torch.tensor([row["label"] for row in picked]))

    fit(f"{base.name}-{task}", model, loss_of, steps, rate, 0.1)
    return model.eval()


def tune_lm(
    base: Path, task: str, steps: int, rate: float, batch: int, seed: int = 0, lora: dict | None = None
) -> nn.Module:
    """A causal LM of a base's folder fine-tuned on texts, or on the completions that follow prompts.

    `lora` has the options of a `peft.LoraConfig`: then that learns alone, and the PEFT model is returned.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(seed)
    tokenizer, model = AutoTokenizer.from_pretrained(base), AutoModelForCausalLM.from_pretrained(base).train()
    freeze_embeddings(model)
    if lora:
        import peft

        model = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **lora))
    data, generator = [coded_row(tokenizer, row) for row in rows(task, "train")], torch.Generator().manual_seed(seed)

    def loss_of(step: int) -> Tensor:
        picked = [data[i] for i in torch.randint(len(data), (batch,), generator=generator).tolist()]
        ids = nn.utils.rnn.pad_sequence([ids for ids, _ in picked], batch_first=True)
        labels = nn.utils.rnn.pad_sequence([labels for _, labels in picked], batch_first=True, padding_value=-100)
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]  # padding is on the right, so nothing sees it
        return F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())

    fit(f"{base.name}-{task}", model, loss_of, steps, rate, 0.1)
    return model.eval()


def coded_row(tokenizer: object, row: dict[str, str]) -> tuple[Tensor, Tensor]:
    """Token ids and labels (T,); a prompt's labels are -100, a completion ends with the end-of-text token."""
    if "text" in row:
        ids = torch.tensor(tokenizer(row["text"], truncation=True, max_length=LONGEST)["input_ids"])
        return ids, ids
    prompt = tokenizer(row["prompt"], truncation=True, max_length=LONGEST)["input_ids"]
    answer = [*tokenizer(row["completion"])["input_ids"], tokenizer.eos_token_id]
    return torch.tensor(prompt + answer), torch.tensor([-100] * len(prompt) + answer)


def freeze_embeddings(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.weight.requires_grad_(False)
