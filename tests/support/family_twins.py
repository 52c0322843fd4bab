"""Tiny models of every family, and the same functions in other coordinates."""

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from support.coordinates import INNER, READS, WRITES, reorder_experts
from support.twins import rotation_fixing_ones
from torch import Tensor, nn

from hf_bico.core.types import Hidden, Site
from hf_bico.families import Family, family_of
from hf_bico.families.layout import HEAD, HEAD_DENSE

WIDTH, WORDS, CLASSES, END, LENGTH = 24, 40, 11, 2, 6
"""No other side of a tensor outside the sites is as long as the residual stream is wide."""
VISION = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "image_size": 16,
    "patch_size": 8,
}
TEXT = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "vocab_size": WORDS,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": END,
}
GROUPED = TEXT | {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}


@dataclass(frozen=True)
class Case:
    """A model of some family: which class, which config, and what goes in."""

    cls: str
    config: str
    options: dict[str, Any]
    kind: str
    """image, text, causal, seq2seq, contrastive, or words: a label of every token."""

    def skeleton(self, **options: Any) -> nn.Module:
        own = self.options | options
        config_class = getattr(transformers, self.config)
        config = config_class.from_dict(own) if self.config == "TimmWrapperConfig" else config_class(**own)
        config.num_labels = CLASSES
        return getattr(transformers, self.cls)(config).eval()

    def build(self, *, seed: int = 0, exact: bool = True, **options: Any) -> nn.Module:
        """Randomly initialised, with gains and biases of all sizes; `exact`: in float64 throughout."""
        torch.manual_seed(seed)
        model = self.skeleton(**options)
        if exact:
            _exact(model.double())
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim > 1:
                    parameter.normal_(std=1.0 if "embed" in name else parameter.shape[-1] ** -0.5)
                elif name.endswith("bias"):
                    parameter.normal_(std=0.1)
                elif parameter.ndim and not name.endswith("logit_scale"):  # Gemma's gains are 1 + weight
                    parameter.uniform_(0.5, 1.5)
        return model

    def samples(self, n: int = 32, *, seed: int = 0, dtype=torch.float64) -> tuple[Tensor, Tensor]:
        """(what goes in, labels)"""
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(3, WORDS, (2, n, LENGTH), generator=generator)
        ids[:, :, -1] = END
        if self.kind in ("image", "contrastive"):
            images = torch.randn(n, 3, 16, 16, generator=generator, dtype=torch.float64).to(dtype)
            return images, ids[0] if self.kind == "contrastive" else torch.arange(n) % CLASSES
        labels = {"text": torch.arange(n) % CLASSES, "words": ids[1]}
        return ids[0], labels.get(self.kind, ids[1, :, :4])

    def logits(self, model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        """(…, classes) scores; batch: (what goes in, labels[, attention mask])."""
        x, labels, *mask = batch
        if self.kind in ("image", "contrastive"):
            text = {"input_ids": labels} if self.kind == "contrastive" else {}
            out = model(pixel_values=x, **text)
            return next(
                found
                for found in (getattr(out, name, None) for name in ("logits", "logits_per_image", "image_embeds"))
                if found is not None
            )
        inputs = {"input_ids": x} | ({"attention_mask": mask[0]} if mask else {})
        if self.kind == "seq2seq":
            return model(**inputs, decoder_input_ids=F.pad(labels[:, :-1], (1, 0))).logits
        out = model(**inputs)
        return out.logits if hasattr(out, "logits") else out.text_embeds

    def loss(self, model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        scores = self.logits(model, batch)
        if self.kind == "contrastive":
            return F.cross_entropy(scores, torch.arange(len(scores)).to(scores.device), reduction="sum")
        labels = batch[1]
        if self.kind == "causal":
            labels, scores = batch[0][:, 1:], scores[:, :-1]
            if len(batch) > 2:
                labels = labels.masked_fill(batch[2][:, 1:] == 0, -100)
        return F.cross_entropy(scores.flatten(0, -2), labels.flatten(), reduction="sum")


def _vision(cls: str, config: str = "", **options: Any) -> Case:
    return Case(cls, config or cls.split("For")[0] + "Config", VISION | options, "image")


def text_case(cls: str, kind: str = "text", options: dict[str, Any] = TEXT, **more: Any) -> Case:
    return Case(cls, cls.split("For")[0].removesuffix("LMHeadModel") + "Config", options | more, kind)


def _timm(architecture: str) -> Case:
    shape = {"embed_dim": WIDTH, "depth": 2, "num_heads": 3, "img_size": 16, "patch_size": 8, "mlp_ratio": 1.5}
    return Case(
        "TimmWrapperForImageClassification",
        "TimmWrapperConfig",
        {"architecture": architecture, "model_args": shape, "num_classes": CLASSES},
        "image",
    )


def _both(cls: str, config: str, kind: str) -> Case:
    return Case(cls, config, {"vision_config": VISION, "text_config": TEXT, "projection_dim": 10}, kind)


T5 = {
    "vocab_size": WORDS,
    "d_model": WIDTH,
    "d_kv": 4,
    "num_heads": 4,
    "d_ff": 20,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "relative_attention_num_buckets": 8,
    "dropout_rate": 0.0,
    "pad_token_id": 0,
    "eos_token_id": END,
    "decoder_start_token_id": 0,
}
GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
DISTIL = {
    "vocab_size": WORDS,
    "dim": WIDTH,
    "n_layers": 2,
    "n_heads": 3,
    "hidden_dim": 20,
    "pad_token_id": 0,
    "max_position_embeddings": 32,
}
GPT2 = {
    "vocab_size": WORDS,
    "n_embd": WIDTH,
    "n_layer": 2,
    "n_head": 3,
    "n_inner": 20,
    "n_positions": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": END,
}

CASES = {
    "vit": _vision("ViTForImageClassification"),
    "deit": _vision("DeiTForImageClassification"),
    "dinov2": _vision("Dinov2ForImageClassification", mlp_ratio=2),
    "dinov2-swiglu": _vision("Dinov2ForImageClassification", mlp_ratio=2, use_swiglu_ffn=True),
    "dinov2-registers": _vision("Dinov2WithRegistersForImageClassification", mlp_ratio=2, num_register_tokens=3),
    "timm": _timm("vit_tiny_patch16_224"),
    "timm-packed": _timm("vit_giant_patch14_reg4_dinov2"),
    "timm-pool": _timm("vit_base_patch16_siglip_224"),
    "timm-rotary": _timm("vit_huge_plus_patch16_dinov3"),
    "clip": _both("CLIPModel", "CLIPConfig", "contrastive"),
    "clip-classifier": _both("CLIPForImageClassification", "CLIPConfig", "image"),
    "clip-vision": _vision("CLIPVisionModelWithProjection", "CLIPVisionConfig", projection_dim=CLASSES),
    "clip-text": Case("CLIPTextModelWithProjection", "CLIPTextConfig", TEXT | {"projection_dim": CLASSES}, "text"),
    "siglip": _both("SiglipModel", "SiglipConfig", "contrastive"),
    "siglip-classifier": _both("SiglipForImageClassification", "SiglipConfig", "image"),
    "bert": text_case("BertForSequenceClassification"),
    "roberta": text_case("RobertaForSequenceClassification"),
    "distilbert": text_case("DistilBertForSequenceClassification", options=DISTIL),
    "mpnet": text_case("MPNetForSequenceClassification"),
    "modernbert": text_case("ModernBertForSequenceClassification", cls_token_id=1, sep_token_id=END),
    "t5": text_case("T5ForConditionalGeneration", "seq2seq", T5),
    "t5-gated": text_case("T5ForConditionalGeneration", "seq2seq", T5 | GATED),
    "t5-classifier": text_case("T5ForSequenceClassification", options=T5 | GATED),
    "gpt2": text_case("GPT2LMHeadModel", "causal", GPT2),
    "gpt2-classifier": text_case("GPT2ForSequenceClassification", options=GPT2),
    "llama": text_case("LlamaForCausalLM", "causal", GROUPED),
    "llama-classifier": text_case("LlamaForSequenceClassification", options=GROUPED),
    "mistral": text_case("MistralForCausalLM", "causal", GROUPED, tie_word_embeddings=True),
    "qwen2": text_case("Qwen2ForCausalLM", "causal", GROUPED),
    "qwen3": text_case("Qwen3ForCausalLM", "causal", GROUPED),
    "gemma": text_case("GemmaForCausalLM", "causal", GROUPED),
    "gemma2": text_case("Gemma2ForCausalLM", "causal", GROUPED),
    "gemma3": Case("Gemma3ForCausalLM", "Gemma3TextConfig", GROUPED, "causal"),
}
"""By name, a model of every family and of every shape that one has."""


def _exact(model: nn.Module) -> None:
    """transformers' RMSNorms take their mean square in float32; torch's do not."""
    for module in list(model.modules()):
        for name, norm in module.named_children():
            if type(norm).__name__.endswith("RMSNorm") or type(norm).__name__ == "T5LayerNorm":
                own = nn.RMSNorm(norm.weight.shape, eps=getattr(norm, "eps", getattr(norm, "variance_epsilon", 1e-6)))
                setattr(module, name, own.to(norm.weight))


def all_sites(model: nn.Module, family: Family | None = None) -> tuple[Site, ...]:
    family = family or family_of(model)
    return *family.sites(model, every=True), *family.head_sites(model)


def plain(model: nn.Module) -> nn.Module:
    """The model with gains of 1, so that norms commute with a rotation that keeps the all-ones vector."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if _is_gain(name, parameter):
                parameter.fill_(1.0)
    return model


def _is_gain(name: str, tensor: Tensor) -> bool:
    return tensor.ndim == 1 and not name.endswith(("bias", "embedding"))


def twin(model: nn.Module, *, rotate: bool = False, seed: int = 2, family: Family | None = None) -> nn.Module:
    """The same function in other coordinates; see `turned`."""
    other = copy.deepcopy(model)
    other.load_state_dict(turned(model, model.state_dict(), rotate=rotate, seed=seed, family=family))
    return other


def turned(
    model: nn.Module, state: dict[str, Tensor], *, rotate: bool = False, seed: int = 2, family: Family | None = None
) -> dict[str, Tensor]:
    """A model's tensors, or a change of them, in other coordinates of the same function.

    The residual stream is permuted or rotated; heads, units of a head and units of an MLP are permuted as far as the
    sites say that they can be, and so is every layer's stack of experts.
    """
    torch.manual_seed(seed)
    order = torch.eye(WIDTH, dtype=torch.float64)[torch.randperm(WIDTH)]
    q = rotation_fixing_ones(WIDTH) if rotate else order
    state = {key: tensor.clone() for key, tensor in state.items()}
    sites = all_sites(model, family)
    heads, orders = _orders(sites)

    deep = any(site.role == HEAD_DENSE for site in sites)  # an activation stands between: its units are permuted

    def side(hidden: Hidden | None, residual: bool, in_head: bool, width: int) -> Tensor:
        if hidden is not None:
            return torch.eye(width, dtype=torch.float64)[orders[hidden.name]]
        turn = order if in_head else q
        return (
            torch.block_diag(*[turn] * (width // WIDTH))
            if residual and width >= WIDTH
            else torch.eye(width, dtype=torch.float64)
        )

    done = set()
    for site in sites:
        role = re.sub(r"^(expert \d+|shared) (?=MLP)", "", site.role)
        writes = role in WRITES or (site.role == "text proj" and site.d_out == WIDTH)  # SigLIP's
        out = side(site.hidden_out, writes, site.role == HEAD_DENSE, site.d_out)
        into = side(site.hidden_in, role in READS, site.role == HEAD and deep, site.d_in)
        weight = site.weight.of(state[site.weight.key])
        site.weight.put(state[site.weight.key], out @ weight @ into.T)
        if site.bias:
            site.bias.put(state[site.bias.key], out @ site.bias.of(state[site.bias.key]))
        done |= {s.key for s in site.slices}
    for key, tensor in state.items():
        if key.endswith("relative_attention_bias.weight"):
            group = "decoder attention" if "decoder" in key else "attention"
            state[key] = tensor[:, heads.get(group, slice(None))]
        elif key not in done and not (rotate and _is_gain(key, tensor)):
            known = next((axes for pattern, axes in INNER.items() if re.search(pattern, key)), range(tensor.ndim))
            for axis in (axis for axis in known if tensor.shape[axis] == WIDTH):
                tensor = torch.tensordot(q, tensor.double(), dims=([1], [axis])).movedim(0, axis).to(tensor)
            state[key] = tensor
    reorder_experts(state, sites)
    return state


def _orders(sites: tuple[Site, ...]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Orders of heads by group, and of hidden coordinates by name."""
    widths = {site.hidden_out: site.d_out for site in sites if site.hidden_out}
    heads, orders = {}, {}
    for hidden, width in widths.items():
        group = heads.setdefault(hidden.group or hidden.name, torch.randperm(hidden.heads))
        units = torch.stack([torch.randperm(width // hidden.heads) for _ in group])
        orders[hidden.name] = (units + width // hidden.heads * torch.arange(hidden.heads)[:, None])[group].flatten()
    return heads, orders


def gradient_step(
    model: nn.Module, loss: Callable, batch: Any, *, every: bool = False, step: float = 1e-3
) -> dict[str, Tensor]:
    """The tensors after a step of gradient descent on the sites: a τ inside the samples' span."""
    keys = {s.key for site in family_of(model).sites(model, every=every) for s in site.slices}
    state = model.state_dict()
    parameters = {key: p for key, p in model.named_parameters() if key in keys}
    found = torch.autograd.grad(loss(model, batch), list(parameters.values()), materialize_grads=True)
    gradients = dict(zip(parameters, found, strict=True))
    return {key: tensor - step * gradients.get(key, 0) for key, tensor in state.items()}
