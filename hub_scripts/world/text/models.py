"""Two small T5 encoders: their shapes, their pre-training by masked tokens, and how they are kept.

    python -m hub_scripts.world.text.models        # about ten minutes a model, one core

Wide and slim share the recipe and nothing else: initialisation, crops and masks come from different seeds. Like T5-3B
against T5-Large the wide one has an inner width that is not its own, more heads and a larger MLP.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hub_scripts.world.places import WEIGHTS
from hub_scripts.world.text.corpus import MASK, SPECIAL, TOKENIZER, VOCABULARY, stream, train_tokenizer, versions

SHAPES = {
    "t5-wide": {"d_model": 96, "num_heads": 8, "d_kv": 16, "d_ff": 256, "num_layers": 4},
    "t5-slim": {"d_model": 64, "num_heads": 4, "d_kv": 16, "d_ff": 192, "num_layers": 4},
}
SEEDS = {"t5-wide": 1, "t5-slim": 2}
STEPS, BATCH, LENGTH, MASKED = 3000, 64, 48, 8
RATE, DECAY = 1e-2, 0.01


def build(name: str) -> nn.Module:
    """A fresh encoder of this shape; plain ReLU MLPs, as T5-3B and T5-Large have them."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=VOCABULARY,
        dropout_rate=0.0,
        relative_attention_num_buckets=16,
        relative_attention_max_distance=32,
        **SHAPES[name],
    )
    config._attn_implementation = "eager"
    return T5EncoderModel(config)


def load(name: str, state: dict[str, Tensor] | None = None) -> nn.Module:
    """A base, or a fine-tune of it, in float32, eval mode and without gradients."""
    model = build(name)
    model.load_state_dict(state or base_state(name))
    return model.eval().requires_grad_(False)


def base_state(name: str) -> dict[str, Tensor]:
    """A base's state dict; the token table, which the encoder shares, is stored once."""
    state = {key: tensor.float() for key, tensor in load_file(WEIGHTS / f"{name}.safetensors").items()}
    return state | {"encoder.embed_tokens.weight": state["shared.weight"]}


def keep(path: Path, state: dict[str, Tensor], dtype: torch.dtype) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {
            key: tensor.detach().to(dtype).clone().contiguous()
            for key, tensor in state.items()
            if key != "encoder.embed_tokens.weight"
        },
        path,
    )
    path.chmod(0o644)


def optimizer(parameters: list[nn.Parameter], rate: float, decay: float, steps: int):
    """AdamW, no decay on vectors, linear warm-up over a twentieth and a cosine to zero."""
    groups = [
        {"params": [p for p in parameters if (p.ndim > 1) == flag], "weight_decay": decay * flag}
        for flag in (True, False)
    ]
    adam = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))
    warm = max(1, steps // 20)
    return adam, torch.optim.lr_scheduler.LambdaLR(
        adam, lambda s: min((s + 1) / warm, 0.5 * (1 + math.cos(math.pi * min(s / steps, 1))))
    )


def masked(ids: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """MASKED places of every crop: four in five hidden, one in ten another token, one in ten as it is.

    Returns the crops as the model sees them (n, T) and the places (n, MASKED).
    """
    places = torch.rand(ids.shape, generator=generator).argsort(1)[:, :MASKED]
    shape = places.shape
    luck = torch.rand(shape, generator=generator)
    other = torch.randint(len(SPECIAL), VOCABULARY, shape, generator=generator)
    shown = torch.where(luck < 0.8, MASK, torch.where(luck < 0.9, other, ids.gather(1, places)))
    return ids.scatter(1, places, shown), places


def masked_loss(model: nn.Module, ids: Tensor, generator: torch.Generator) -> Tensor:
    """Mean cross-entropy of the masked tokens under the tied head, h Eᵀ / √d as in T5."""
    seen, places = masked(ids, generator)
    hidden = model(input_ids=seen).last_hidden_state
    picked = hidden.gather(1, places[..., None].expand(-1, -1, hidden.shape[-1]))
    logits = picked @ model.shared.weight.T * hidden.shape[-1] ** -0.5
    return F.cross_entropy(logits.flatten(0, 1), ids.gather(1, places).flatten())


def pretrain(name: str, steps: int) -> nn.Module:
    """Random crops of the stream, `steps` batches of them."""
    seed = SEEDS[name]
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    text, model = torch.from_numpy(stream().astype("int64")), build(name).train()
    adam, schedule = optimizer(list(model.parameters()), RATE, DECAY, steps)
    offsets, start, seen = torch.arange(LENGTH), time.time(), []
    for step in range(steps):
        first = torch.randint(len(text) - LENGTH, (BATCH, 1), generator=generator)
        loss = masked_loss(model, text[first + offsets], generator)
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        schedule.step()
        seen.append(loss.item())
        if step % 100 == 99:
            print(
                f"{name} step {step + 1}/{steps} loss {sum(seen[-100:]) / 100:.3f} {time.time() - start:.0f} s",
                flush=True,
            )
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("names", nargs="*", default=list(SHAPES))
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not TOKENIZER.is_file():
        train_tokenizer().save(str(TOKENIZER))
    for name in args.names:
        keep(WEIGHTS / f"{name}.safetensors", pretrain(name, args.steps).state_dict(), torch.float16)
    (WEIGHTS / "t5-versions.json").write_text(json.dumps(versions(), indent=1) + "\n")


if __name__ == "__main__":
    main()
