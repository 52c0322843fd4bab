"""What a tiny copy of a model can be shown, by its config and by what its forward takes."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hf_bico.families.traced.copies import VOCABULARY, numbers, one, parts_of

WORDS, ANSWERS, SAMPLES = 7, 5, 2
"""Tokens of a text, tokens of a decoder's own, and how many samples there are."""


class Example(NamedTuple):
    """Something that a model takes."""

    kind: str
    """text, image or audio."""
    run: Callable[[nn.Module], Any]
    """Model → its outputs."""


def examples(model: Any) -> list[Example]:
    """Return what a tiny copy can be shown, each kind of input alone where the model takes it so."""
    takes = inspect.signature(model.forward).parameters
    generator = torch.Generator().manual_seed(0)
    found = []
    ids = _words(model.config, generator)
    alone = {"input_ids": ids[0]}
    decodes = getattr(model.config, "is_encoder_decoder", False) and "decoder_input_ids" in takes
    text = alone | ({"decoder_input_ids": ids[1, :, :ANSWERS]} if decodes else {})
    main = getattr(model, "main_input_name", "input_ids")
    if hasattr(model, "get_text_features") and "input_ids" in takes:
        found.append(Example("text", _texts({"input_ids": ids[0]})))
    elif "input_ids" in takes and (main == "input_ids" or hasattr(model, "get_image_features")):
        found += [Example("text", _forward(text)), Example("text", _forward(alone))]  # a classifier shifts its own
    images = list(_images(model, generator))
    if hasattr(model, "get_image_features"):
        own = inspect.signature(model.get_image_features).parameters
        found += [Example("image", _features(kwargs)) for kwargs in images if _fits(kwargs, own)]
    elif main == "pixel_values":
        found += [Example("image", _forward(kwargs)) for kwargs in images if _fits(kwargs, takes)]
    if main in ("input_features", "input_values"):
        sound = _sound(model, main, generator) | {k: v for k, v in text.items() if k != "input_ids"}
        found.append(Example("audio", _forward(sound)))
    return found


def _words(config: Any, generator: torch.Generator) -> Tensor:
    """Return ids (2, n, T) of no special tokens, different ones in a text, with the token that ends it at its end."""
    parts = list(parts_of(config))
    special = {
        each for part in parts for name, value in vars(part).items() if "token" in name for each in numbers(value)
    }
    size = min((one(getattr(part, "vocab_size", None)) or VOCABULARY for part in parts), default=VOCABULARY)
    plain = torch.tensor([each for each in range(3, min(size, VOCABULARY)) if each not in special])
    ids = torch.stack([plain[torch.randperm(len(plain), generator=generator)[:WORDS]] for _ in range(2 * SAMPLES)])
    end = next(
        (one(getattr(part, "eos_token_id", None)) for part in parts if one(getattr(part, "eos_token_id", None))), 0
    )
    if 0 < end < size:
        ids[:, -1] = end
    return ids.reshape(2, SAMPLES, WORDS)


def _fits(kwargs: dict[str, Any], takes: Any) -> bool:
    return all(name in takes for name in kwargs)


def _texts(kwargs: dict[str, Any]) -> Callable[[Any], Any]:
    return lambda model: model.get_text_features(**kwargs)


def _features(kwargs: dict[str, Any]) -> Callable[[Any], Any]:
    return lambda model: model.get_image_features(**kwargs)


def _forward(kwargs: dict[str, Any]) -> Callable[[Any], Any]:
    return lambda model: model(**kwargs)


def _images(model: Any, generator: torch.Generator) -> Iterator[dict[str, Any]]:
    """Yield images in the ways that models take them."""
    config = getattr(model.config, "vision_config", model.config)
    size = getattr(config, "image_size", None) or _timm_size(model) or 64
    height, width = size if isinstance(size, list | tuple) else (size, size)
    channels = one(getattr(config, "num_channels", None)) or one(getattr(config, "in_channels", None)) or 3
    patch = one(getattr(config, "patch_size", None))
    if patch and hasattr(config, "spatial_merge_size") and hasattr(config, "temporal_patch_size"):
        flat = channels * config.temporal_patch_size * patch**2
        grid = torch.tensor([[1, 4, 4]] * SAMPLES)
        yield {"pixel_values": torch.randn(16 * SAMPLES, flat, generator=generator), "image_grid_thw": grid}
    plain = torch.randn(SAMPLES, channels, height, width, generator=generator)
    yield {"pixel_values": plain}
    yield {"pixel_values": plain[:, None]}
    yield {"pixel_values": plain[:, None], "image_sizes": torch.tensor([[height, width]] * SAMPLES)}
    yield {"pixel_values": plain, "image_sizes": torch.tensor([[height, width]] * SAMPLES)}


def _timm_size(model: Any) -> Any:
    """Return the size of a timm model's images; None of others."""
    net = getattr(model, "timm_model", None)
    own = getattr(getattr(net, "patch_embed", None), "img_size", None)
    return own or (net and net.default_cfg["input_size"][1:])


def _sound(model: Any, main: str, generator: torch.Generator) -> dict[str, Tensor]:
    if main == "input_values":
        return {main: torch.randn(SAMPLES, 2000, generator=generator)}
    bins = one(getattr(model.config, "num_mel_bins", None)) or 80
    frames = 2 * (one(getattr(model.config, "max_source_positions", None)) or 50)
    return {main: torch.randn(SAMPLES, bins, frames, generator=generator)}
