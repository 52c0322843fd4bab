"""In what form a port is written: the whole model, or a LoRA of the new base."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from hf_bico.core.errors import PortError
from hf_bico.core.low_rank import Delta, Factored, LowRank
from hf_bico.core.types import Slice, Tensors

MODEL, LORA = "model", "lora"
FORMS = (MODEL, LORA)
EPSILON = 1e-6
"""Of a layer's largest singular value: what is below is rounding."""


@dataclass(frozen=True)
class Cut:
    """What became of a layer's change."""

    key: str
    rank: int
    error: float
    """‖cut off‖ / ‖τ_B‖ of the layer; 0 where it was a product."""


def check_form(form: str, rank: int | None, energy: float | None, library: str) -> None:
    """Refuse a form that cannot be written.

    Raises:
        PortError: an unknown form, options that contradict each other, a library that PEFT does not serve.
    """
    if form not in FORMS:
        raise PortError(f"--as {form} is no form of a port: it is {' or '.join(FORMS)}")
    if form != LORA and (rank is not None or energy is not None):
        raise PortError("--rank and --energy are about --as lora")
    if rank is not None and energy is not None:
        raise PortError("--rank and --energy exclude each other")
    if (rank is not None and rank < 1) or (energy is not None and not 0 < energy <= 1):
        raise PortError("--rank is 1 or more, --energy a share in (0, 1]")
    if form == LORA and library != "transformers":
        raise PortError(f"--as lora is for models of transformers, which PEFT serves, not of {library}: use --as model")


def as_products(delta: Tensors, rank: int | None, energy: float | None) -> tuple[Delta, list[Cut]]:
    """Every weight's change in factors: as it is where it is a product, else the best of a rank or a share of ‖τ_B‖².

    Biases stay as they are; of a change that was not cut, as much is kept as is not rounding. What is zero is dropped.
    """
    shapes: dict[str, Tensor] = {}
    made, cuts = Delta(shapes), []
    for key, change, exact in _changes(delta):
        shapes[key] = torch.empty(change.shape, device="meta")
        if isinstance(change, LowRank) and exact:
            found, error = change, 0.0
        elif len(change.shape) == 2:
            found, error = truncated(change, rank, energy)
        else:
            made.write(Slice(key), change)
            continue
        made.write(Slice(key), found)
        cuts.append(Cut(key, found.rank, error))
    return made, cuts


def _changes(delta: Tensors) -> Iterable[tuple[str, Any, bool]]:
    for key in delta:
        product = delta.factors(key) if isinstance(delta, Factored) else None
        change = delta[key] if product is None else product
        if float(change.norm()) > 0:
            yield key, change, product is not None


def truncated(matrix: Tensor, rank: int | None, energy: float | None) -> tuple[LowRank, float]:
    """The nearest product of a rank, or of the least rank that keeps a share of ‖·‖²; and its relative error."""
    left, sizes, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    whole = sizes.square().cumsum(0)
    r = int((sizes > EPSILON * sizes[0]).sum())
    if energy is not None:
        r = min(r, int((whole < energy * whole[-1] * (1 - 1e-12)).sum()) + 1)
    r = min(r, rank or r)
    root = sizes[:r].sqrt()
    error = float(sizes[r:].square().sum() / whole[-1]) ** 0.5
    return LowRank((left[:, :r] * root).to(matrix.dtype), (root[:, None] * right[:r]).to(matrix.dtype)), error


def record(form: str, cuts: Iterable[Cut]) -> dict[str, Any]:
    """For the report: the form, every layer's rank and error, and the mean error."""
    layers = [asdict(cut) for cut in cuts]
    mean = sum(row["error"] for row in layers) / len(layers) if layers else 0.0
    return {"form": form, "mean_error": mean, "layers": layers}


def lora(delta: Delta, alpha: float, head: Tensors, transposed: Iterable[str], biased: Iterable[str]
         ) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """adapter_config.json, but for what it is of, and adapter_model.safetensors. α is in B, and s = 1.

    Args:
        delta: products, and biases as they are.
        head: what is saved whole.
        transposed: names of weights that are stored (d_in, d_out).
        biased: names of the base's biases.

    Raises:
        PortError: changes of biases where not all layers that change have one, which PEFT cannot hold.
    """
    transposed, biased = set(transposed), set(biased)
    biases = {key.removesuffix(".bias"): delta.whole[key] for key in delta.whole if key not in head}
    products = {key.removesuffix(".weight"): (delta.factors(key).T if key in transposed else delta.factors(key))
                for key in delta.products if key not in head}
    for module in biases.keys() - products.keys():
        shape = tuple(delta.shapes[f"{module}.bias"].shape)
        raise PortError(f"{module} changes its bias alone {shape}, which a LoRA cannot hold: use --as model")
    bare = [module for module in products if biases and f"{module}.bias" not in biased]
    if bare:
        raise PortError(f"some of the layers that change have a bias and {bare[0]} has none, which a LoRA cannot hold: "
                        "use --as model")
    if not products:
        raise PortError("nothing of the target changes, so there is no LoRA to write")
    tensors = {}
    for module, product in products.items():
        name = f"base_model.model.{module}"
        tensors[f"{name}.lora_A.weight"] = product.a.contiguous()
        tensors[f"{name}.lora_B.weight"] = (alpha * product.b).contiguous()
        if biases:
            tensors[f"{name}.lora_B.bias"] = alpha * biases.get(module, torch.zeros(product.shape[0]))
    tensors |= {f"base_model.model.{key}": tensor.contiguous() for key, tensor in head.items()}
    turned = any(f"{module}.weight" in transposed for module in products)
    return _config({module: product.rank for module, product in products.items()}, head, turned, bool(biases)), tensors


def _config(ranks: Mapping[str, int], head: Iterable[str], transposed: bool, biased: bool) -> dict[str, Any]:
    """Of modules with their ranks; s = α/r is 1 in all of them."""
    most = max(ranks.values(), key=list(ranks.values()).count)
    odd = {module: r for module, r in ranks.items() if r != most}
    return {"peft_type": "LORA", "r": most, "lora_alpha": most, "rank_pattern": odd, "alpha_pattern": odd,
            "target_modules": sorted(ranks), "modules_to_save": sorted({_module(key) for key in head}) or None,
            "fan_in_fan_out": transposed, "lora_bias": biased, "bias": "none", "lora_dropout": 0.0,
            "inference_mode": True, "init_lora_weights": True, "use_rslora": False, "use_dora": False}


def _module(key: str) -> str:
    return key.rpartition(".")[0]


def named(config: Mapping[str, Any], base: str, revision: str | None, task: str | None) -> dict[str, Any]:
    """A LoRA's config with what it is of, both the base's name and its commit."""
    return {**config, "base_model_name_or_path": base, "revision": revision, "task_type": task}
