"""A tiny Llama in folders, as people save it: its base, a fine-tune, a new base and texts."""

import copy
import json
from pathlib import Path

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file
from support.tokenizers_at_hand import byte_bpe

ROWS = 500


def llama(seed: int = 0, cls: str = "LlamaForCausalLM", **options):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    more = {"vocab_size": ROWS, "max_position_embeddings": 64, "tie_word_embeddings": False}
    return getattr(transformers, cls)(transformers.LlamaConfig(**(sizes | more | options))).eval()


def tuned(base, by: float = 0.02, part: str = "proj"):
    """A fine-tune of the linear maps with a part of a name, those of a Llama's blocks unless given."""
    model = copy.deepcopy(base)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if part in name and tensor.ndim == 2:
                tensor.add_(by * torch.randn(tensor.shape, generator=generator))
    return model


def lora(base, folder: Path, of: Path, **options):
    """An adapter of `base` with random factors, saved to a folder; the same as a whole model is returned."""
    chosen = {"r": 2, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"} | options
    model = peft.get_peft_model(copy.deepcopy(base), peft.LoraConfig(**chosen))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in (p for p in model.parameters() if p.requires_grad):
            tensor.add_(0.05 * torch.randn(tensor.shape, generator=generator))
    model.peft_config["default"].base_model_name_or_path = str(of)
    model.save_pretrained(folder)
    return model.merge_and_unload()


def write(model, folder: Path, **changes) -> Path:
    """Save a model with its tokenizer; `changes` are those of config.json."""
    model.save_pretrained(folder)
    byte_bpe().save_pretrained(folder)
    if changes:
        place = folder / "config.json"
        place.write_text(json.dumps(json.loads(place.read_text()) | changes))
    return folder


def rename(folder: Path, change) -> Path:
    """Save a model's tensors anew, as `change` makes them of the old ones."""
    place = folder / "model.safetensors"
    save_file(change(load_file(place)), place, {"format": "pt"})
    return folder


def write_texts(folder: Path) -> Path:
    folder.mkdir()
    for split in ("train", "test"):
        lines = [json.dumps({"text": f"{split} text number {n}, of some words"}) for n in range(8)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return folder
