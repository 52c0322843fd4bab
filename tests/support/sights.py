"""Tiny models that answer texts with images in them, each with a real processor; what they are asked; their twins."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import transformers
from PIL import Image
from support import family_twins, tokenizers_at_hand
from support.family_twins import WIDTH, gradient_step
from support.repos import _scale
from torch import Tensor, nn

from hf_bico.families import Loaded, Transformers, family_of
from hf_bico.families.purposes import of_config
from hf_bico.io.hub import Hub
from hf_bico.tasks.asked import objective_of
from hf_bico.tasks.samples import read_task, samples_of
from hf_bico.tasks.splits import HubDataset

ROWS = {"train": 24, "test": 8}
COLOURS = {"red": (230, 20, 20), "green": (20, 200, 30), "blue": (30, 30, 220), "grey": (120, 120, 120)}
SPECIAL = (
    *("<image>", "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<boi>", "<eoi>"),
    *("<fake_token_around_image>", "<global-img>", "<end_of_utterance>"),
)
TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m.role }}\n{% for c in m.content %}{% if c.type == 'image' %}IMAGE"
    "{% else %}{{ c.text }}{% endif %}{% endfor %}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
TEXT = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 20,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
VISION = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "image_size": 16,
    "patch_size": 4,
}
CUT = {"depth": 2, "num_heads": 3, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2}


@dataclass(frozen=True)
class Kind:
    """A model type: its class, its config's parts, and the name of an image's token."""

    cls: str
    image: str
    vision: dict[str, Any]
    text: dict[str, Any]
    also: dict[str, Any]
    shown: str = "{}"
    """What the template writes around the token."""


def _qwen(cls: str, vision: dict[str, Any], *turned: int) -> Kind:
    rope = {"rope_type": "default", "mrope_section": list(turned)}
    text = {"rope_parameters": rope, "head_dim": 2 * sum(turned)}
    return Kind(cls, "<|image_pad|>", CUT | vision, text, {}, "<|vision_start|>{}<|vision_end|>")


KINDS = {
    "llava": Kind(
        "Llava",
        "<image>",
        VISION | {"model_type": "clip_vision_model"},
        {"model_type": "llama"},
        {"image_seq_length": 16},
        "{}\n",
    ),
    "qwen2_vl": _qwen("Qwen2VL", {"embed_dim": WIDTH, "hidden_size": WIDTH, "mlp_ratio": 1}, 1, 1, 1),
    "qwen2_5_vl": _qwen(
        "Qwen2_5_VL",
        {
            "hidden_size": WIDTH,
            "out_hidden_size": WIDTH,
            "intermediate_size": 20,
            "window_size": 16,
            "fullatt_block_indexes": [1],
        },
        *(1, 1, 1),
    ),
    "qwen3_vl": _qwen(
        "Qwen3VL",
        {
            "hidden_size": WIDTH,
            "out_hidden_size": WIDTH,
            "intermediate_size": 20,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
        *(2, 1, 1),
    ),
    "gemma3": Kind(
        "Gemma3",
        "<image>",
        VISION,
        {"layer_types": ["full_attention"] * 2},
        {"mm_tokens_per_image": 4},
        "<boi>",
    ),
    "paligemma": Kind(
        "PaliGemma",
        "<image>",
        VISION | {"model_type": "siglip_vision_model"},
        {"model_type": "gemma"},
        {"projection_dim": WIDTH},
    ),
    "smolvlm": Kind("SmolVLM", "<image>", VISION, {"model_type": "llama"}, {"scale_factor": 2}),
    "idefics3": Kind("Idefics3", "<image>", VISION, {"model_type": "llama"}, {"scale_factor": 2}),
}


def processor_of(kind: str, *, side: int = 16, template: bool = True, other: bool = False) -> Any:
    """A real processor: of images of `side` pixels; `other`: of a tokenizer that cuts words differently."""
    own = KINDS[kind]
    named = {"boi_token": "<boi>", "eoi_token": "<eoi>", "image_token": "<image>"} if kind == "gemma3" else {}
    tokenizer = tokenizers_at_hand.byte_bpe(
        400 if other else 500, pad_token="<s>", **({"extra_special_tokens": named} if named else {})
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    chat = TEMPLATE.replace("IMAGE", own.shown.format(own.image)) if template else None
    square = {"height": side, "width": side}
    if kind == "llava":
        images = transformers.CLIPImageProcessor(size={"shortest_edge": side}, crop_size=square)
        return transformers.LlavaProcessor(
            images,
            tokenizer,
            patch_size=4,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
            chat_template=chat,
        )
    if kind == "gemma3":
        images = transformers.Gemma3ImageProcessor(size=square)
        return transformers.Gemma3Processor(images, tokenizer, chat_template=chat, image_seq_length=4)
    if kind == "paligemma":
        images = transformers.SiglipImageProcessor(size=square, image_seq_length=(side // 4) ** 2)
        return transformers.PaliGemmaProcessor(images, tokenizer)
    if kind in ("idefics3", "smolvlm"):  # SmolVLM's own processor asks for a package of its own, and gives the same
        images = transformers.Idefics3ImageProcessor(
            size={"longest_edge": side}, max_image_size={"longest_edge": side}, do_image_splitting=False
        )
        return transformers.Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=chat)
    least = {"size": {"shortest_edge": side**2, "longest_edge": 4 * side**2}}
    images = transformers.Qwen2VLImageProcessor(patch_size=4, merge_size=2, **least)
    video = transformers.Qwen2VLVideoProcessor(patch_size=4, merge_size=2)
    named = {"qwen3_vl": transformers.Qwen3VLProcessor}.get(kind, transformers.Qwen2VLProcessor)
    return named(images, tokenizer, video, chat_template=chat)


def model_of(kind: str, processor: Any, *, seed: int = 0, **vision: Any) -> nn.Module:
    """A tiny random model, in float64."""
    own, tokenizer = KINDS[kind], processor.tokenizer
    of = tokenizer.convert_tokens_to_ids
    ids = {"image_token_id": of(own.image), "image_token_index": of(own.image), "video_token_id": of("<|video_pad|>")}
    ids |= {"vision_start_token_id": of("<|vision_start|>"), "vision_end_token_id": of("<|vision_end|>")}
    ids |= {"boi_token_index": of("<boi>"), "eoi_token_index": of("<eoi>")} if kind == "gemma3" else {}
    text = TEXT | {"vocab_size": len(tokenizer)} | own.text
    config = getattr(transformers, f"{own.cls}Config")(
        vision_config=own.vision | vision, text_config=text, **ids, **own.also
    )
    torch.manual_seed(seed)
    model = getattr(transformers, f"{own.cls}ForConditionalGeneration")(config).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                wide = parameter[0].numel()
                parameter.normal_(std=1.0 if "embed_tokens" in name else wide**-0.5)
    return model


def rows(split: str) -> list[dict[str, Any]]:
    """Pictures of one colour above another, in frames of several shapes, and what is asked of them."""
    rng = np.random.default_rng(split == "test")
    found = []
    for number in range(ROWS[split]):
        above, below = rng.permutation(list(COLOURS))[:2]
        pixels = rng.integers(0, 20, (16, 16 if number % 3 else 24, 3)).astype(np.uint8)
        pixels[:8] += np.array(COLOURS[above], dtype=np.uint8)
        pixels[8:] += np.array(COLOURS[below], dtype=np.uint8)
        where = ("above", "below")[number % 2]
        found.append(
            {
                "image": Image.fromarray(pixels),
                "question": f"Which colour is {where} the line?",
                "answer": str(above if where == "above" else below),
            }
        )
    return found


def write_rows(folder: Path, features: dict[str, Any] | None = None, change: Any = lambda row: row) -> Path:
    """Write the rows in parquet, each changed, with the types of columns."""
    text = datasets.Value("string")
    types = datasets.Features(features or {"image": datasets.Image(), "question": text, "answer": text})
    for split in ROWS:
        table = datasets.Dataset.from_list([change(row) for row in rows(split)], features=types)
        (folder / "data").mkdir(parents=True, exist_ok=True)
        table.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def asked_of(model: nn.Module, processor: Any, folder: Path, split: str = "train") -> tuple[Any, list[Any]]:
    """What a live model is asked of a dataset, and the samples."""
    hub, purpose = Hub(), of_config(model.config, type(model).__name__)
    dataset = HubDataset(hub, hub.resolve(str(folder), "dataset"))
    task = read_task(dataset, dataset.split(split), {}, None, purpose)
    side = Loaded(model, None, processor.tokenizer, processor)
    found = dataset.split(split)
    objective = objective_of(side, Transformers(), purpose, task, 256, text_moves=False)
    return objective, list(samples_of(found, range(found.num_rows), task))


BETWEEN = {
    "connector.modality_projection.proj",
    "multi_modal_projector.mm_input_projection",
    "multi_modal_projector.linear",
}
READS = BETWEEN | {"multi_modal_projector.linear_1", "merger.mlp.0", "merger.linear_fc1"}
WRITES = BETWEEN | {"multi_modal_projector.linear_2", "merger.mlp.2", "merger.linear_fc2"}


SEED = 2


def turned(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A model's tensors, or a change of them, in other coordinates of the same function."""
    known = family_twins.READS, family_twins.WRITES
    family_twins.READS, family_twins.WRITES = known[0] | READS, known[1] | WRITES
    try:
        made = family_twins.turned(model, state, family=family_of(model), seed=SEED)
    finally:
        family_twins.READS, family_twins.WRITES = known
    torch.manual_seed(SEED)
    order = torch.randperm(WIDTH).repeat(4) + torch.arange(4).repeat_interleave(WIDTH) * WIDTH
    for key in made:  # what Qwen3 gives to its first blocks beside the text
        if re.search(r"deepstack_merger_list\.\d+\.(norm\.|linear_fc1\.weight)", key):
            made[key] = made[key][..., order]
    return made


def stepped(model: nn.Module, objective: Any, samples: list[Any]) -> dict[str, Tensor]:
    """The change of one step of gradient descent of the linear maps, as large as a fine-tune's is."""
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    after = gradient_step(model, objective.loss, objective.encode(samples), step=1.0)
    change = {key: after[key] - tensor for key, tensor in before.items()}
    return {key: tensor * _scale(before, change) for key, tensor in change.items()}


def trained(model: nn.Module, objective: Any, samples: list[Any], steps: int = 40) -> dict[str, Tensor]:
    """The tensors of a fine-tune whose linear maps learned to answer; the model is left as it was."""
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    keys = {s.key for site in family_of(model).sites(model) for s in site.slices}
    weights = [parameter for key, parameter in model.named_parameters() if key in keys]
    optimizer, batch = torch.optim.Adam(weights, lr=2e-3), objective.encode(samples)
    for _ in range(steps):
        optimizer.zero_grad()
        objective.loss(model, batch).backward()
        optimizer.step()
    tuned = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    model.load_state_dict(before)
    return tuned


def write_world(root: Path, kind: str) -> dict[str, Tensor]:
    """Write `base`, its fine-tune `ft`, `plus`, the base's twin, and `task`; return the change of a right port."""
    processor = processor_of(kind)
    model = model_of(kind, processor)
    objective, samples = asked_of(model, processor, write_rows(root / "task"))
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    tuned = trained(model, objective, samples)
    change = {key: tuned[key] - tensor for key, tensor in before.items()}
    for folder, state in (("base", before), ("ft", tuned), ("plus", turned(model, before))):
        model.double().load_state_dict(state)
        model.float().save_pretrained(root / folder)
        processor.save_pretrained(root / folder)
    return turned(model, change)
