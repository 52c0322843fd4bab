"""What a tiny copy of a model can be shown, by its config and by what its forward takes."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hf_bico.families.traced.copies import VOCABULARY, numbers, one, parts_of

WORDS, ANSWERS, SAMPLES = 7, 5, 2
"""Tokens of a text, tokens of a decoder's own, and how many samples there are."""


WORDED, SEEN, AUDIO = frozenset({"text"}), frozenset({"image"}), frozenset({"audio"})


class Example(NamedTuple):
    """Something that a model takes."""

    kinds: frozenset[str]
    """What it is of: text, image, audio."""
    run: Callable[[nn.Module], Any]
    """Model → its outputs."""


def examples(model: Any) -> list[Example]:
    """Return what a tiny copy can be shown, each kind of input alone first, in all ways that models take it."""
    takes = inspect.signature(model.forward).parameters
    generator = torch.Generator().manual_seed(0)
    ids = _words(model.config, generator)
    alone: dict[str, Any] = {"input_ids": ids[0]} if "input_ids" in takes else {}
    decodes = getattr(model.config, "is_encoder_decoder", False) and "decoder_input_ids" in takes
    answers = {"decoder_input_ids": ids[1, :, :ANSWERS]} if decodes else {}
    images = list(_images(model, generator))
    found = [Example(AUDIO, _forward(sound | answers)) for sound in _sounds(model, takes, generator)]
    once = {"use_cache": False} if "use_cache" in takes else {}
    if alone:  # a classifier shifts its own text, so it is given no answers
        found += [Example(WORDED, _forward(alone | once | each)) for each in (answers, {})]
    if alone and hasattr(model, "get_text_features"):
        found.append(Example(WORDED, _part("get_text_features", alone)))
    if hasattr(model, "get_image_features"):
        own = inspect.signature(model.get_image_features).parameters
        found += [Example(SEEN, _part("get_image_features", each)) for each in images if _fits(each, own)]
    found += [Example(SEEN, _forward(each)) for each in images if _fits(each, takes)]
    if alone:  # a decoder that reads the image has no text alone
        found += [Example(WORDED | SEEN, _forward(alone | answers | each)) for each in images if _fits(each, takes)]
    return found


def _words(config: Any, generator: torch.Generator) -> Tensor:
    """Return ids (2, n, T) of no special tokens, different ones in a text, with the token that ends it at its end."""
    parts = list(parts_of(config))
    special = {
        each for part in parts for name, value in vars(part).items() if "token" in name for each in numbers(value)
    }
    size = min((one(getattr(part, "vocab_size", None)) or VOCABULARY for part in parts), default=VOCABULARY)
    usual = [each for each in range(3, min(size, VOCABULARY)) if each not in special] or [0]
    plain = torch.tensor(usual * -(-WORDS // len(usual)))  # a vocabulary of letters may have few
    ids = torch.stack([plain[torch.randperm(len(plain), generator=generator)[:WORDS]] for _ in range(2 * SAMPLES)])
    end = next(
        (one(getattr(part, "eos_token_id", None)) for part in parts if one(getattr(part, "eos_token_id", None))), 0
    )
    if 0 < end < size:
        ids[:, -1] = end
    return ids.reshape(2, SAMPLES, WORDS)


def _fits(kwargs: dict[str, Any], takes: Any) -> bool:
    return all(name in takes for name in kwargs)


def _part(name: str, kwargs: dict[str, Any]) -> Callable[[Any], Any]:
    """Return what gives a part's features alone: LLaVA's have nothing of the last block, which its outputs have."""

    def run(model: Any) -> Any:
        found = getattr(model, name)(**kwargs)
        pooled = getattr(found, "pooler_output", None)
        return found if pooled is None else pooled

    return run


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
    if patch and hasattr(config, "num_patches"):  # SigLIP 2's images are of any shape, in patches
        patches = torch.randn(SAMPLES, 16, channels * patch**2, generator=generator)
        shapes = torch.tensor([[4, 4]] * SAMPLES)
        yield {"pixel_values": patches, "pixel_attention_mask": torch.ones(SAMPLES, 16), "spatial_shapes": shapes}
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


def _sounds(model: Any, takes: Any, generator: torch.Generator) -> Iterator[dict[str, Tensor]]:
    """Yield sound as a wave, and as the spectra of its frames."""
    if "input_values" in takes:
        yield {"input_values": torch.randn(SAMPLES, 2000, generator=generator)}
    if "input_values" in takes and one(getattr(model.config, "max_length", None)):
        shape = SAMPLES, model.config.max_length, one(getattr(model.config, "num_mel_bins", None)) or 128
        yield {"input_values": torch.randn(shape, generator=generator)}
    sizes = (getattr(model.config, name, None) for name in ("num_mel_bins", "feature_projection_input_dim"))
    bins = next(filter(None, map(one, sizes)), 80)
    frames = 2 * (one(getattr(model.config, "max_source_positions", None)) or 50)
    if "input_features" in takes:
        yield {"input_features": torch.randn(SAMPLES, bins, frames, generator=generator)}
        yield {"input_features": torch.randn(SAMPLES, frames, bins, generator=generator)}
