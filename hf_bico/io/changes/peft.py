"""Writes a port's change: as an exact PEFT adapter, or as safetensors of our own for what PEFT does not serve.

PEFT has no adapter for a dense change, but two of its kinds can hold one: a LoKr ΔW = w₁ ⊗ w₂ with w₁ = 1, as large as
ΔW; and, for transposed layers (GPT-2's Conv1D), which LoKr does not support, a LoRA with one factor the identity.
A bias is stored whole, as PEFT's own `bias="all"` does.
"""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor

from hf_bico.core.errors import PortError, listed, setting
from hf_bico.core.low_rank import Delta, LowRank
from hf_bico.core.transport import added
from hf_bico.core.types import Slice, Tensors
from hf_bico.families import Transformers
from hf_bico.io.adapter import CONFIG, PREFIX, WEIGHTS
from hf_bico.io.changes.delta import INDEX, PATTERN, DeltaRecord, config_sha256, write_json
from hf_bico.io.changes.forms import DTYPES, Shaped
from hf_bico.io.checkpoints import OpenedBase, SafeTensors
from hf_bico.io.fingerprint import fingerprint
from hf_bico.io.reference import sha256
from hf_bico.io.writer import write_adapter

SHARD = "5GB"
"""Largest size of a file."""
CLASSIFIERS = ("classifier", "score")
"""Ends of the names of modules that PEFT saves whole in a sequence classifier, whether it is told to or not."""


def write_delta(
    stage: Path, base: OpenedBase, shaped: Shaped, head: Tensors, transposed: Collection[str]
) -> dict[str, Any]:
    """Write a delta repo with the files it opens with, and return its record for hf_bico.json.

    Args:
        stage: the folder to write to.
        shaped: the change, `stored`.
        head: tensors that are brought whole, by name.
        transposed: names of weights that are stored (d_in, d_out).

    Raises:
        PortError: nothing changes, or PEFT cannot hold the change.
    """
    stage.mkdir(exist_ok=True)
    delta, dtype, pinned, library = shaped.delta, shaped.dtype, base.pinned, base.library
    assert dtype is not None  # a `stored` change has one
    if not delta:
        raise PortError("nothing of the target changes, so there is no delta to write")
    if isinstance(library, Transformers):
        delta, head = with_whole_heads(delta, base.weights, head)
        config, tensors = adapter(delta, base.weights, head, transposed, dtype)
        name = pinned.name if pinned.commit else None  # a folder's name may be another repo's on the Hub
        config |= {"base_model_name_or_path": name, "revision": pinned.commit, **_opened_as(base, library)}
        write_adapter(stage, config, tensors, base.folder, library.extra(pinned.files))
        files = [WEIGHTS, CONFIG]
    else:
        files = write_shards(stage, delta, dtype)
    stored = SafeTensors.of(library, pinned, base.folder)
    record = DeltaRecord(
        base=pinned.name,
        commit=pinned.commit,
        fingerprint=fingerprint(stored, full=True),
        config_sha256=config_sha256(base.folder / library.config_file),
        library=library.name,
        purpose=base.purpose,
        changed=tuple(key for key in delta if key not in head),
        head=tuple(head),
        transposed=tuple(transposed),
        files={name: sha256(stage / name) for name in files},
    )
    return record.data()


def write_shards(stage: Path, delta: Delta, dtype: str) -> list[str]:
    """Write ΔW by the target's names, in shards with their index, and return the names of the files."""
    tensors = {key: _to(delta[key], dtype).contiguous() for key in delta}
    split = split_torch_state_dict_into_shards(tensors, filename_pattern=PATTERN, max_shard_size=SHARD)
    for name, keys in split.filename_to_tensors.items():
        save_file({key: tensors[key] for key in keys}, stage / name, metadata={"format": "pt"})
    if split.is_sharded:
        write_json(stage / INDEX, {"metadata": split.metadata, "weight_map": split.tensor_to_filename})
    return [*split.filename_to_tensors, *([INDEX] if split.is_sharded else [])]


def _opened_as(base: OpenedBase, library: Transformers) -> dict[str, Any]:
    """Return the config's entries for PEFT's task type, or, where there is none, for the class that opens the base."""
    task = library.task_of(base.purpose)
    cls = type(library.skeleton(base.folder, base.purpose))
    mapping = {"base_model_class": cls.__name__, "parent_library": cls.__module__}
    return {"task_type": task} | ({} if task else {"auto_mapping": mapping})


def with_whole_heads(delta: Delta, weights: Tensors, head: Tensors) -> tuple[Delta, Tensors]:
    """Return the change without the modules that PEFT saves whole (classifiers), and all tensors of those modules.

    Args:
        delta: by the target's names; its α is in it.
        weights: the target's tensors.
        head: tensors that are brought whole.
    """
    modules = {saved(key) for key in (*head, *delta) if key in head or _wrapped(key)}
    rest, moves = Delta(delta.shapes), {}
    for key in delta:
        if saved(key) in modules:
            moves[key] = delta[key]
        else:
            product = delta.factors(key)
            rest.put(key, delta[key]) if product is None else rest.write(Slice(key), product)
    stays = {key: weights[key] for key in weights if saved(key) in modules}
    return rest, {**stays, **dict(added(weights, moves)), **head}


def saved(key: str) -> str:
    """Return the name of the module that a head's tensor is saved with."""
    parts = key.split(".")[:-1]
    place = next((i for i, part in enumerate(parts) if part.endswith(CLASSIFIERS)), len(parts) - 1)
    return ".".join(parts[: place + 1])


def _wrapped(key: str) -> bool:
    return any(part.endswith(CLASSIFIERS) for part in key.split(".")[:-1])


def adapter(
    delta: Delta, weights: Tensors, head: Tensors, transposed: Collection[str], dtype: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the contents of adapter_config.json, without the base's name, and of adapter_model.safetensors.

    Products become a LoRA, dense changes a LoKr (a LoRA if any weight is transposed); all scales are 1.

    Args:
        delta: by the target's names; its α is in it.
        weights: the target's tensors, for the biases.
        head: tensors that are saved whole.
        transposed: names of weights that are stored (d_in, d_out).
        dtype: the matrices'.

    Raises:
        PortError: no matrix changes, or something changes that is not a layer's weight or bias.
    """
    matrices = [key for key in delta if key not in head and len(tuple(delta.shapes[key].shape)) == 2]
    biases = [key for key in delta if key not in head and key not in matrices]
    odd = [key for keys, end in ((matrices, ".weight"), (biases, ".bias")) for key in keys if not key.endswith(end)]
    if odd:
        raise PortError(
            f"PEFT cannot hold the change of {listed(odd)}, which is not a layer's "
            f"weight or bias: use {setting('form')} model"
        )
    if not matrices:
        raise PortError("nothing of the target changes, so there is no adapter to write")
    products = all(delta.factors(key) is not None for key in matrices)
    made = _lora if products or set(matrices) & set(transposed) else _lokr
    config, tensors = made(delta, matrices, transposed, dtype)
    tensors |= dict(_biases(delta, weights, biases, {_module(key) for key in matrices}))
    tensors |= {PREFIX + key: tensor.contiguous() for key, tensor in head.items()}
    whole_modules = sorted({saved(key) for key in head}) or None
    modules = sorted(_module(key) for key in matrices)
    return {**config, "target_modules": modules, "modules_to_save": whole_modules, "inference_mode": True}, tensors


def _lora(
    delta: Delta, keys: Iterable[str], transposed: Collection[str], dtype: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    tensors, ranks = {}, {}
    for key in keys:
        product = delta.factors(key) or whole(delta[key])
        product, module = product.T if key in transposed else product, _module(key)
        tensors[f"{PREFIX}{module}.lora_A.weight"] = _to(product.a, dtype).contiguous()
        tensors[f"{PREFIX}{module}.lora_B.weight"] = _to(product.b, dtype).contiguous()
        ranks[module] = product.rank
    most = max(ranks.values(), key=list(ranks.values()).count)
    odd = {module: r for module, r in ranks.items() if r != most}
    return {
        "peft_type": "LORA",
        "r": most,
        "lora_alpha": most,
        "rank_pattern": odd,
        "alpha_pattern": odd,
        "fan_in_fan_out": bool(set(keys) & set(transposed)),
        "bias": "all",
        "lora_dropout": 0.0,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
    }, tensors


def whole(matrix: Tensor) -> LowRank:
    """Return a matrix as an exact product with the identity, which is the smaller of the two possible."""
    rows, columns = matrix.shape
    if columns <= rows:
        return LowRank(matrix, torch.eye(columns))
    return LowRank(torch.eye(rows), matrix)


def _lokr(
    delta: Delta, keys: Iterable[str], transposed: Collection[str], dtype: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return config and tensors of a LoKr; r = α ≥ every dimension makes PEFT keep w₁ and w₂ whole, at scale 1."""
    tensors, most = {}, 1
    for key in keys:
        matrix, name = _to(delta[key], dtype).contiguous(), PREFIX + _module(key)
        tensors[f"{name}.lokr_w1"], tensors[f"{name}.lokr_w2"] = torch.ones(1, 1, dtype=matrix.dtype), matrix
        most = max(most, *matrix.shape)
    return {
        "peft_type": "LOKR",
        "r": most,
        "alpha": most,
        "decompose_both": False,
        "decompose_factor": 1,
        "rank_dropout": 0.0,
        "module_dropout": 0.0,
        "init_weights": True,
    }, tensors


def _biases(
    delta: Delta, weights: Tensors, keys: Iterable[str], wrapped: Collection[str]
) -> Iterable[tuple[str, Tensor]]:
    """Yield (key, bias) under PEFT's names: the biases with their change, whole, in the target's dtype."""
    for key, bias in added(weights, {key: delta[key] for key in keys}):
        module = _module(key)
        yield f"{PREFIX}{module}{'.base_layer' if module in wrapped else ''}.bias", bias.contiguous()


def _to(tensor: Tensor, dtype: str) -> Tensor:
    """Return a matrix in the dtype that it was already rounded to; a bias stays as it is."""
    return tensor.to(DTYPES[dtype]) if tensor.dim() > 1 else tensor


def _module(key: str) -> str:
    return key.rpartition(".")[0]
