"""Adapters on tiny bases, and the same as merged full models: written by PEFT, the reference."""

import shutil
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from support.family_twins import CASES, CLASSES

TASKS = {"text": "SEQ_CLS", "causal": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM"}


def write_adapter(
    root: Path,
    family: str,
    name: str = "lora",
    *,
    merge: bool = True,
    cls: type = peft.LoraConfig,
    embeddings: bool | str = "auto",
    **options: Any,
) -> None:
    """`NAME`, an adapter of root/base with random factors, and NAME-merged, the same as a full model."""
    case = CASES[family]
    built = {"num_labels": CLASSES} if case.kind in ("text", "image") else {}
    torch.manual_seed(0)
    base = getattr(transformers, case.cls).from_pretrained(root / "base", **built)
    task = {"task_type": TASKS[case.kind]} if case.kind in TASKS else {}
    model = peft.get_peft_model(base, cls(**task, **options))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                size = 0.02 if parameter.ndim > 1 else 0.01
                parameter.add_(torch.randn(parameter.shape, generator=generator) * size)
    model.save_pretrained(root / name, save_embedding_layers=embeddings)
    if merge:
        whole = model.merge_and_unload()
        whole.config.id2label = {i: f"LABEL_{i}" for i in range(CLASSES)} if built else whole.config.id2label
        whole.save_pretrained(root / f"{name}-merged")
        for path in (root / "base").iterdir():
            if path.name.startswith(("token", "vocab", "preproc", "processor", "special")):
                shutil.copy(path, root / f"{name}-merged")
