"""open_clip's CLIP models with a plain vision transformer (open_clip_config.json + open_clip_model.safetensors)."""

import json
import re
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_bico.core.errors import PortError
from hf_bico.core.types import Hidden, Site, Slice, Tokens
from hf_bico.families.protocol import Loaded

BLOCK = "visual.transformer.resblocks"

LEFT = {
    r"visual\.(transformer\.resblocks\.\d+\.(attn\.)?)?ln_\w+\.":
        "a LayerNorm's gain is diagonal, not a vector of the space",
    r"visual\.(transformer\.resblocks\.\d+\.)ls_\d\.": "a LayerScale's gain is diagonal, not a vector of the space",
    r"visual\.class_embedding$": "the class embedding is the target's own",
    r"visual\.positional_embedding$": "position embeddings belong to the target's grid",
    r"visual\.conv1\.": "the patch convolution is the target's own",
    r"logit_(scale|bias)$": "the logit scale is calibrated to the target's features",
    r"(transformer|text|token_embedding|positional_embedding|text_projection|ln_final)\b":
        "the text tower is the target's own",
}


class OpenClip:
    """The vision tower moves; every other tensor stays, for the reasons in `LEFT`."""

    name = "open_clip"
    library = "open_clip"
    tower = "visual."
    pipeline_tag = "zero-shot-image-classification"
    config_file = "open_clip_config.json"
    weights_file = "open_clip_model.safetensors"
    extra_files = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt",
                   "vocab.txt", "spiece.model", "preprocessor_config.json")

    def knows(self, model: nn.Module) -> bool:
        return hasattr(getattr(getattr(model, "visual", None), "transformer", None), "resblocks")

    def skeleton(self, folder: Path) -> nn.Module:
        import open_clip

        config = _config(folder)
        custom = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
        with torch.device("meta"), _opening():
            model = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)
        return self._checked(model)

    def load(self, folder: Path, device: str) -> Loaded:
        import open_clip

        _config(folder)
        name = f"local-dir:{folder}"
        with _opening():
            model, _, preprocess = open_clip.create_model_and_transforms(name, device=device)
            return Loaded(self._checked(model).eval(), preprocess, open_clip.get_tokenizer(name))

    def _checked(self, model: nn.Module) -> nn.Module:
        if not self.knows(model):
            raise PortError(f"the vision tower is a {type(model.visual).__name__}; this version ports open_clip's "
                            "plain vision transformers")
        return model

    def sites(self, model: nn.Module) -> tuple[Site, ...]:
        visual = model.visual
        tokens = Tokens(prefix=1, grid=tuple(visual.grid_size))
        sites = []
        for depth, block in enumerate(visual.transformer.resblocks):
            sites += _block_sites(depth, block, tokens)
        width, embed = visual.proj.shape
        proj = Slice("visual.proj", transposed=True)  # x @ proj: it multiplies from the right
        sites.append(Site("proj", "proj", None, proj, None, embed, width, "proj", Tokens(prefix=1)))
        return tuple(sites)

    def left_reason(self, key: str) -> str | None:
        return next((reason for pattern, reason in LEFT.items() if re.match(pattern, key)), None)

    def head(self, loaded: Loaded, class_names: Sequence[str], templates: Sequence[str]) -> Tensor:
        """(K, embed) unit text features, averaged over the templates."""
        import open_clip

        device = next(loaded.model.parameters()).device
        return open_clip.build_zero_shot_classifier(
            loaded.model, loaded.tokenizer, class_names, templates, device=device).T

    def general_prompts(self) -> tuple[str, ...]:
        """ImageNet's class names, as open_clip keeps them."""
        from open_clip import IMAGENET_CLASSNAMES

        return tuple(f"a photo of a {name}." for name in IMAGENET_CLASSNAMES)

    def features(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """Unit image features, (n, embed)."""
        return F.normalize(model.visual(inputs), dim=-1)

    def logits(self, model: nn.Module, inputs: Tensor, head: Tensor) -> Tensor:
        """logit_scale · cos(image, text) (+ logit_bias), (n, K)."""
        scores = model.logit_scale.exp() * self.features(model, inputs.to(head.device)) @ head.T
        return scores if getattr(model, "logit_bias", None) is None else scores + model.logit_bias

    def snippet(self, repo: str) -> str:
        return (f'import open_clip\n\nmodel, _, preprocess = open_clip.create_model_and_transforms("{repo}")\n'
                f'tokenizer = open_clip.get_tokenizer("{repo}")')


@contextmanager
def _opening():
    """open_clip's errors in one line: a config it cannot build, weights that do not fit, a tokenizer it lacks."""
    try:
        yield
    except (AssertionError, ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise PortError(f"open_clip cannot open the model: {' '.join(str(error).split())[:500]}") from error


def _config(folder: Path) -> dict:
    try:
        config = json.loads((folder / OpenClip.config_file).read_text())["model_cfg"]
        vision = config["vision_cfg"]
        config["text_cfg"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PortError(f"not an open_clip CLIP: {OpenClip.config_file} has no model_cfg with both towers") from error
    if "timm_model_name" in vision or not isinstance(vision.get("layers", 0), int) or "multimodal_cfg" in config:
        raise PortError("the vision tower is not a plain open_clip vision transformer (timm, ResNet and CoCa models "
                        "are not supported)")
    if vision.get("attentional_pool"):
        raise PortError("attentional pooling in the vision tower is not supported")
    return config


def _block_sites(depth: int, block: nn.Module, tokens: Tokens) -> list[Site]:
    """q, k, v (rows of the fused in-projection), the attention output, and both MLP layers."""
    key, name = f"{BLOCK}.{depth}", f"block {depth}"
    width = block.attn.out_proj.in_features

    heads, group = block.attn.num_heads, f"{name} attention"
    scores, values = Hidden(f"{name} qk", heads, group), Hidden(f"{name} v", heads, group)
    units = Hidden(f"{name} MLP")

    def site(role: str, layer: nn.Linear, path: str, hidden_out: Hidden | None, hidden_in: Hidden | None) -> Site:
        bias = None if layer.bias is None else Slice(f"{key}.{path}.bias")
        return Site(f"{name} {role}", role, depth, Slice(f"{key}.{path}.weight"), bias, layer.out_features,
                    layer.in_features, f"{name} {role}", tokens, hidden_out, hidden_in)

    def projection(role: str, index: int) -> Site:
        rows = (index * width, (index + 1) * width)
        bias = None if block.attn.in_proj_bias is None else Slice(f"{key}.attn.in_proj_bias", rows)
        return Site(f"{name} {role}", role, depth, Slice(f"{key}.attn.in_proj_weight", rows), bias, width, width,
                    f"{name} attention", tokens, values if role == "v" else scores)

    return [*(projection(role, index) for index, role in enumerate("qkv")),
            site("attention output", block.attn.out_proj, "attn.out_proj", None, values),
            site("MLP up", block.mlp.c_fc, "mlp.c_fc", units, None),
            site("MLP down", block.mlp.c_proj, "mlp.c_proj", None, units)]
