"""open_clip's CLIP models, as modules and as repos: its own vision transformers, timm's, and the text towers."""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_bico.core.errors import PortError
from hf_bico.core.types import Tensors, Tokens
from hf_bico.families.foreign import reason
from hf_bico.families.layout import MLP, SINGLE, TEXT, FamilyLayout, Layer, Tower, roles
from hf_bico.families.protocol import Loaded, Purpose, PurposeKind, Stored
from hf_bico.families.riders import Norm
from hf_bico.families.tables.timm import BLOCK as TIMM_BLOCK
from hf_bico.families.tables.timm import GATED
from hf_bico.families.tables.timm import NORMS as TIMM_NORMS
from hf_bico.families.tables.timm import POOLING as TIMM_POOLING
from hf_bico.families.tables.timm import heads as timm_heads
from hf_bico.families.tables.timm import tokens as trunk_tokens


def _fused(role: str, index: int, gives: str) -> Layer:
    return Layer(
        role, "attn", reads="attention", gives=gives, part=(index, 3), weight="in_proj_weight", bias="in_proj_bias"
    )


BLOCK = (
    _fused("q", 0, "qk"),
    _fused("k", 1, "qk"),
    _fused("v", 2, "v"),
    Layer("attention output", "attn.out_proj", uses="v"),
    Layer("MLP up", "mlp.c_fc", gives=MLP),
    Layer("MLP down", "mlp.c_proj", uses=MLP),
)
REQUIRED = roles(BLOCK)
NORMS = (
    Norm("ln_1", before=("attention",)),
    Norm("ln_2", before=("MLP up",)),
    Norm("ls_1", scales="attention output"),
    Norm("ls_2", scales="MLP down"),
)


def _grid(model: Any) -> Tokens:
    return Tokens(prefix=1, grid=tuple(model.visual.grid_size))


class _OpenClipAnatomy(FamilyLayout):
    """A layout that is recognised by a model's modules, as open_clip's models carry no config."""

    def knows(self, model: nn.Module) -> bool:
        visual = getattr(model, "visual", None)
        return hasattr(getattr(visual, "transformer", None), "resblocks") or hasattr(
            getattr(visual, "trunk", None), "blocks"
        )


TEXT_TOWER = "the text tower is the target's own"
OPEN_CLIP = _OpenClipAnatomy(
    name="open_clip",
    model_types=(),
    towers=(
        Tower("^visual.transformer.resblocks", BLOCK, _grid, heads="attn.num_heads", required=REQUIRED, norms=NORMS),
        Tower(
            "^visual.trunk.blocks",
            TIMM_BLOCK + GATED,
            trunk_tokens,
            heads=timm_heads,
            required=roles(TIMM_BLOCK),
            norms=TIMM_NORMS,
        ),
        *(
            Tower(
                f"^{place}transformer.resblocks",
                BLOCK,
                TEXT,
                name="text",
                heads="attn.num_heads",
                required=REQUIRED,
                norms=NORMS,
                optional=True,
            )
            for place in ("", "text.")
        ),
    ),
    outside=(
        *TIMM_POOLING,
        Layer("proj", "^visual.proj", tokens=SINGLE),
        Layer("proj", "^visual.head.proj", tokens=SINGLE),
        *(Layer("text proj", f"^{place}text_projection", tokens=SINGLE, tower="text") for place in ("", "text.")),
    ),
    left={
        r"^visual\.attn_pool\.": "the attention pooling is the target's own",
        r"^(transformer|token_embedding|positional_embedding|text_projection|ln_final|cls_emb)\b": TEXT_TOWER,
        r"^text\.": TEXT_TOWER,
    },
)


class OpenClip:
    """Opens and writes open_clip's repos: open_clip_config.json and open_clip_model.safetensors."""

    name = "open_clip"
    config_file = "open_clip_config.json"
    exact = True
    weights_file = "open_clip_model.safetensors"
    extra_files = (
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "vocab.json",
        "merges.txt",
        "vocab.txt",
        "spiece.model",
        "preprocessor_config.json",
    )

    def weights(self, files: Collection[str]) -> tuple[str, ...]:
        return (self.weights_file,) if self.weights_file in files else ()

    def extra(self, files: Iterable[str]) -> tuple[str, ...]:
        return tuple(name for name in files if name in self.extra_files)

    def purpose(self, folder: Path) -> Purpose:
        _config(folder)
        return Purpose(PurposeKind.ZERO_SHOT)

    def skeleton(self, folder: Path, purpose: Purpose) -> nn.Module:
        import open_clip

        config = _config(folder)
        custom = (
            config.pop("custom_text", False)
            or "hf_model_name" in config["text_cfg"]
            or "timm_model_name" in config["vision_cfg"]
        )
        with torch.device("meta"), _opening():
            model = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)
        return self._checked(model)

    def names(self, model: nn.Module, stored: Iterable[str]) -> dict[str, Stored]:
        own = model.state_dict()
        return {key: Stored(key) for key in stored if key in own}

    def load(
        self,
        folder: Path,
        device: str,
        purpose: Purpose | None = None,
        dtype: torch.dtype | None = torch.float32,
        *,
        state: Tensors | None = None,
        feeds: Path | None = None,
    ) -> Loaded:
        import open_clip

        name, text = f"local-dir:{folder}", _config(folder)["text_cfg"]
        with _opening():
            own = state is None
            model, _, preprocess = open_clip.create_model_and_transforms(name, device=device, load_weights=own)
            if state is not None:
                model.load_state_dict(dict(state))
            tokenizer = _tokenizer(name, text)
            model = self._checked(model).eval()
            return Loaded(model.to(dtype) if dtype else model, preprocess, tokenizer, preprocess)

    def _checked(self, model: nn.Module) -> nn.Module:
        if not OPEN_CLIP.knows(model):
            raise PortError(
                f"the vision tower is a {type(model.visual).__name__}; this version ports vision "
                "transformers, open_clip's own and timm's"
            )
        return model

    def write(self, stage: Path, model: nn.Module, base: Path, tensors: Iterable[tuple[str, Tensor]]) -> None:
        from safetensors.torch import save_file

        save_file(dict(tensors), stage / self.weights_file, metadata={"format": "pt"})

    def snippet(self, repo: str, purpose: Purpose) -> str:
        name = f"local-dir:{repo}" if repo == "." else f"hf-hub:{repo}"
        return (
            f'import open_clip\n\nmodel, _, preprocess = open_clip.create_model_and_transforms("{name}")\n'
            f'tokenizer = open_clip.get_tokenizer("{name}")'
        )

    def task_type(self, purpose: Purpose) -> str:
        return "zero-shot-image-classification"

    def general_prompts(self) -> tuple[str, ...]:
        """Return prompts with ImageNet's class names, as open_clip keeps them."""
        from open_clip import IMAGENET_CLASSNAMES

        return tuple(f"a photo of a {name}." for name in IMAGENET_CLASSNAMES)

    def image_features(self, model: Any, images: Tensor) -> Tensor:
        return F.normalize(model.encode_image(images), dim=-1)

    def text_features(self, model: Any, ids: Tensor) -> Tensor:
        return F.normalize(model.encode_text(ids), dim=-1)

    def tokens(self, loaded: Loaded, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return ids and mask (n, T); a causal text tower does not read the padding after the text, others do."""
        ids = loaded.tokenizer(list(texts))
        text = getattr(loaded.model, "text", loaded.model)
        if getattr(text, "attn_mask", None) is None:
            return ids, torch.ones_like(ids, dtype=torch.bool)
        return ids, torch.arange(ids.shape[1]) <= ids.argmax(dim=-1, keepdim=True)


@contextmanager
def _opening() -> Iterator[None]:
    """Turn open_clip's errors (config, weights, tokenizer) into one line while the block runs."""
    try:
        yield
    except PortError:
        raise
    except Exception as error:  # whatever it makes of a config that it does not take
        raise PortError(f"open_clip cannot open the model: {reason(error)}") from error


_BYTE_PAIRS: dict[str, Any] = {}
"""Config of a text tower, as JSON → open_clip's own tokenizer, which takes a fifth of a second to make."""


def _tokenizer(name: str, text: dict[str, Any]) -> Any:
    """Return a model's tokenizer; open_clip's own depends on the config alone and is made once.

    Args:
        name: the model's, for open_clip.
        text: the config of its text tower.
    """
    import open_clip

    if "hf_tokenizer_name" in text:
        return open_clip.get_tokenizer(name, trust_remote_code=False)
    key = json.dumps(text, sort_keys=True)
    if key not in _BYTE_PAIRS:
        _BYTE_PAIRS[key] = open_clip.get_tokenizer(name)
    return _BYTE_PAIRS[key]


def _config(folder: Path) -> dict[str, Any]:
    """Return the model's config in a folder; see `_require_ported`."""
    try:
        config: dict[str, Any] = json.loads((folder / OpenClip.config_file).read_text())["model_cfg"]
        vision, text = config["vision_cfg"], config["text_cfg"]
        if not isinstance(vision, dict) or not isinstance(text, dict):
            raise TypeError(f"{vision} and {text}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PortError(f"not an open_clip CLIP: {OpenClip.config_file} has no model_cfg with both towers") from error
    with _opening():
        _require_ported(config, vision, text)
    return config


def _require_ported(config: dict[str, Any], vision: dict[str, Any], text: dict[str, Any]) -> None:
    """Refuse a model that cannot be ported, or that asks for code to be run."""
    if not isinstance(vision.get("layers", 0), int) or "multimodal_cfg" in config:
        raise PortError("the vision tower is not a vision transformer (ResNet and CoCa models are not supported)")
    if "timm_model_name" in vision and not re.match(r"(vit|deit)", vision["timm_model_name"]):
        raise PortError(
            f"the vision tower is timm's {vision['timm_model_name']}; of timm's this version ports vision transformers"
        )
    if text.get("tokenizer_kwargs", {}).keys() & {"trust_remote_code", "auto_map", "code_revision"}:
        raise PortError("its text_cfg asks for code of a repo to be run (tokenizer_kwargs), which is never done")
    if vision.get("attentional_pool"):
        raise PortError("attentional pooling in the vision tower is not supported")
