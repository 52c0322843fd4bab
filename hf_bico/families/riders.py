"""What of a model moves beside its linear maps, and which linear maps can tell a changed gain."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from hf_bico.core.gains import Gain
from hf_bico.core.riders import Kind, Rider, Rows
from hf_bico.core.types import At, Site, Tokens
from hf_bico.families.word_heads import word_head

TOKENS, POSITIONS, PATCHES, SPECIAL, NORMS, BIASES = "tokens", "positions", "patches", "special", "norms", "biases"
"""What kinds of tensors are called where they are chosen."""
GROUPS = (TOKENS, POSITIONS, PATCHES, SPECIAL, NORMS, BIASES)
LINEAR = "linear"
"""What the linear maps are called there; they always move."""

EMBEDDED = r"(word_embeddings|tok_embeddings|token_embedding|embed_tokens|embed_in|shared|wte)\.weight$"
PLACED = r"(position_embedding\w*|embed_positions|pos_embed|positional_embedding|wpe)(\.weight)?$"
"""Names of token embeddings, and of positions."""
OUTSIDE: Mapping[str, tuple[str, str]] = {
    EMBEDDED: (TOKENS, "token embeddings"),
    r"(^|\.)lm_head\.weight$": (TOKENS, "language-model head"),
    r"(^|\.)(cls|class)_?(token|embedding)$": (SPECIAL, "class token"),
    r"(^|\.)(dist|distillation)_?token$": (SPECIAL, "distillation token"),
    r"(^|\.)(reg|register)_?tokens?$": (SPECIAL, "registers"),
    r"(^|\.)mask_token$": (SPECIAL, "mask token"),
    r"(^|\.)(head\.probe|attn_pool\.latent)$": (SPECIAL, "pooling probe"),
    r"token_type_embeddings\.weight$": (SPECIAL, "segments"),
    PLACED: (POSITIONS, "positions"),
    r"(patch_embed\w*\.(\w+\.)*(proj\w*)?|patch_embedding|conv1)\.?(weight|bias)$": (PATCHES, "patches"),
    r"(relative_attention_bias\.weight|relative_position_bias_table)$": (BIASES, "relative positions"),
    r"\.self_attn\.sinks$": (BIASES, "attention sinks"),
}
"""Pattern of a name → group and role of a tensor; partners have the same role."""
FIRST_NORM = r"(embed\w*\.(LayerNorm|norm)|pre_layrnorm|ln_pre|norm_pre)\.(weight|bias)$"
ON_TOP = r"(^|\.)(head|attn_pool|pooler)\."
"""Heads and pooling have norms of their own."""
POOL_NORM = r"(^|\.)(head\.layernorm|attn_pool\.norm)\.(weight|bias)$"
LAST_NORM = (
    r"(^|\.)(layernorm|norm|final_layer_norm|post_layernorm|ln_post|ln_f|ln_final|final_norm|fc_norm)\.(weight|bias)$"
)


@dataclass(frozen=True)
class Norm:
    """A norm, or another diagonal gain, of every block; exactly one of the last four fields is given."""

    path: str
    """Its module below the block, or the name of a bare parameter."""
    before: tuple[str, ...] = ()
    """Names of the inputs (`Layer.reads`) that it gives, and gives to nothing else: its gain folds into their maps."""
    after: str = ""
    """Role of the layer whose output it normalises, or, with the residual stream added, gives on."""
    scales: str = ""
    """Role of the layer whose output it multiplies, with nothing between."""
    units: str = ""
    """Role of the layer whose heads' units it multiplies, the same in all heads."""
    only: Callable[[nn.Module], bool] = field(default=lambda block: True)
    """Block → whether what is said holds of it."""

    @property
    def role(self) -> str:
        """What it is; partners have the same role."""
        if self.before:
            return f"norm before {self.before[0].removesuffix(' up')}"
        if self.after:
            return f"norm after {self.after}"
        return f"scale of {self.scales}" if self.scales else f"norm of {self.units}"


def riders(
    model: nn.Module, sites: Sequence[Site], norms: Mapping[str, Sequence[Norm]], scaled: Collection[str] = ()
) -> tuple[Rider, ...]:
    """Return what moves beside the linear maps of a model.

    Args:
        sites: all of them, those of optional towers too.
        norms: tower → those of its blocks.
        scaled: towers with LayerScales that are not among these.
    """
    towers = [
        _Tower(model, name, stack, norms.get(name, ()), scaled=name in scaled) for name, stack in _stacks(sites).items()
    ]
    parameters = dict(model.named_parameters(remove_duplicate=False))
    found = [
        rider
        for first, *others in _names_of(model)
        for rider in _outside(model, towers, first, parameters[first], tuple(others))
    ]
    inside = [rider for tower in towers for rider in _inside(model, tower, parameters)]
    return (*found, *inside)


def gains(model: nn.Module, sites: Sequence[Site], norms: Mapping[str, Sequence[Norm]]) -> tuple[Gain, ...]:
    """Return the gains of a model's blocks that its linear maps can tell."""
    found = []
    for name, stack in _stacks(sites).items():
        tower = _Tower(model, name, stack, norms.get(name, ()))
        for depth, block, norm in _blocks(model, tower):
            prefix = f"{tower.place}.{depth}.{norm.path}"
            key, bias = _names(block, norm.path, prefix)
            layers = [site for site in tower.sites if site.depth == depth and _beside(norm, site)]
            if key is None or not layers or not (norm.before or norm.scales):
                continue
            weights = tuple(dict.fromkeys(site.weight for site in layers))
            own = tuple(site.bias for site in layers if site.bias is not None)
            side: At = "in" if norm.before else "out"
            found.append(
                Gain(key, side, weights, () if norm.before else own, bias, offset_of(attribute(block, norm.path)))
            )
        key = next((key for key, _ in model.named_parameters() if re.search(POOL_NORM, key)), "")
        ups = [site.weight for site in tower.outside if site.role == "pool MLP up"]
        if key and ups:
            found.append(Gain(key, "in", tuple(ups), bias=key.replace("weight", "bias")))
    return tuple(found)


def offset_of(norm: Any) -> float:
    """Return what a norm adds to its stored gain: Gemma's multiply by 1 + w."""
    return 1.0 if re.fullmatch(r"Gemma[23]?RMSNorm", type(norm).__name__) else 0.0


class _Tower:
    """A stack of blocks, and the sides of linear maps where its residual stream begins and ends.

    They are outputs of maps that write there, since a change of what is added to the stream is a sum of gradients;
    where a scale comes between, the inputs of maps that read there.
    """

    def __init__(
        self, model: nn.Module, name: str, sites: Sequence[Site], norms: Sequence[Norm], *, scaled: bool = False
    ) -> None:
        self.name, self.norms = name, norms
        self.sites = [site for site in sites if site.depth is not None]
        self.outside = [site for site in sites if site.depth is None]
        first = self.sites[0]
        found = re.match(rf"(.*?)\.{first.depth}\.", first.weight.key)
        self.place = found[1] if found else ""
        scaled = scaled or any(norm.scales for _, _, norm in _blocks(model, self))
        self.side: At = "in" if scaled else "out"
        roles = ("q", "MLP up", "MLP gate") if scaled else ("attention output", "MLP down")
        ends = [site for site in self.sites if site.role in roles]
        self.ends = (ends[0], ends[-1]) if ends else None

    def shared(self, key: str) -> tuple[int, int]:
        """Return how much of a name it shares with the tower's, and, of equals, how near to the top it lies."""
        parts, own = key.split("."), self.place.split(".")
        alike = next((i for i, (a, b) in enumerate(zip(parts, own, strict=False)) if a != b), min(len(parts), len(own)))
        return alike, -len(own)

    def layer(self, depth: int | None, role: str) -> Site | None:
        """Return the layer of a role in a block."""
        return next((site for site in self.sites if site.depth == depth and site.role == role), None)


def _stacks(sites: Sequence[Site]) -> dict[str, list[Site]]:
    """Return the sites by tower, of towers that have blocks."""
    stacks: dict[str, list[Site]] = {}
    for site in sites:
        stacks.setdefault(site.tower, []).append(site)
    return {tower: found for tower, found in stacks.items() if any(site.depth is not None for site in found)}


def _outside(
    model: nn.Module, towers: Sequence[_Tower], key: str, parameter: nn.Parameter, tied: tuple[str, ...]
) -> Iterator[Rider]:
    """Yield a tensor outside the blocks, if it is of a kind that moves."""
    if re.search(POOL_NORM, key):
        yield from _pool_norm(towers, key)
        return
    beyond = [site for tower in towers for site in tower.outside]
    if in_head := list(
        word_head(key, parameter, tied, beyond, towers[-1].ends[1] if towers and towers[-1].ends else None)
    ):
        yield from in_head
        return
    group, role = next((known for pattern, known in OUTSIDE.items() if re.search(pattern, key)), ("", ""))
    last = bool(re.search(LAST_NORM, key)) and not re.search(rf"{FIRST_NORM}|{ON_TOP}", key)
    if not group and (last or re.search(FIRST_NORM, key)):
        group, role = NORMS, f"{'final' if last else 'embedding'} norm {key.rpartition('.')[2]}"
    if not group or not towers:
        return
    tower = max(towers, key=lambda each: each.shared(key))
    if group == BIASES:
        yield from _relative(tower, key, parameter, role)
        return
    if re.match(rf"{re.escape(tower.place)}\.\d+\.", key):
        return  # a block's own, not one beneath or above them
    at_top = last or role in ("language-model head", "pooling probe")
    tower = towers[-1] if role == "language-model head" else tower
    axis = 0 if group == PATCHES and parameter.ndim > 1 else -1
    on = tower.ends[at_top] if tower.ends else None
    width = 0 if on is None else on.d_out if tower.side == "out" else on.d_in
    if on is None or parameter.shape[axis] != width:
        return
    first, tokens, rows = 0, None, Rows.TOKENS if group == TOKENS else Rows.NUMBER
    if group == POSITIONS:
        first, tokens = _first(model, key), _grid(on.tokens, parameter.numel() // width)
        rows = Rows.GRID if tokens else Rows.NUMBER
    kind = Kind.VECTORS
    if group == PATCHES and parameter.ndim > 1:
        if parameter.ndim != 4:
            return
        kind = Kind.KERNEL
    elif group == NORMS and key.endswith("weight"):
        kind = Kind.GAIN
    role = f"{role} bias" if group == PATCHES and parameter.ndim == 1 else role
    yield Rider(
        role, group, key, kind, on.name, tower.side, axis, rows, first, tokens, width, tower=tower.name, tied=tied
    )


def _pool_norm(towers: Sequence[_Tower], key: str) -> Iterator[Rider]:
    """Yield the gain or bias of the norm before the MLP of attention pooling."""
    on = next((site for tower in towers for site in tower.outside if site.role == "pool MLP up"), None)
    if on is not None:
        kind, name = (Kind.GAIN, "") if key.endswith("weight") else (Kind.VECTORS, " bias")
        yield Rider(f"pool norm{name}", NORMS, key, kind, on.name, "in", width=on.d_in, tower=on.tower)


def _relative(tower: _Tower, key: str, parameter: nn.Parameter, role: str) -> Iterator[Rider]:
    """Yield biases of attention by the distance of two tokens, (buckets, heads), of one block or of all; or a block's
    sinks, (heads,).
    """
    inside = re.match(rf"{re.escape(tower.place)}\.(\d+)\.", key)
    depth = int(inside[1]) if inside else 0
    on = tower.layer(depth, "q")
    if on is not None and parameter.ndim <= 2 and on.d_out % parameter.shape[-1] == 0:
        shared = depth == 0 and parameter.ndim == 2  # T5 keeps in the first block what all blocks use
        place = None if shared else depth
        heads = parameter.shape[-1]
        yield Rider(role, BIASES, key, Kind.HEADS, on.name, width=on.d_out, heads=heads, tower=tower.name, depth=place)


def _inside(model: nn.Module, tower: _Tower, parameters: Mapping[str, nn.Parameter]) -> Iterator[Rider]:
    """Yield the norms and scales of a tower's blocks."""
    for depth, block, norm in _blocks(model, tower):
        on = next((site for site in tower.sites if site.depth == depth and _beside(norm, site)), None)
        key, bias = _names(block, norm.path, f"{tower.place}.{depth}.{norm.path}")
        if on is None or key is None or key not in parameters:
            continue
        side: At = "in" if norm.before else "out"
        width = on.d_in if norm.before else on.d_out
        count = on.d_out // parameters[key].numel() if norm.units else 1
        if parameters[key].numel() * count != width:
            continue
        kind = Kind.UNITS if norm.units else Kind.GAIN
        gain = Rider(
            norm.role, NORMS, key, kind, on.name, side, width=width, heads=count, tower=tower.name, depth=depth
        )
        yield gain
        if bias is not None and not norm.units:
            yield replace(gain, role=f"{norm.role} bias", key=bias, kind=Kind.VECTORS)


def _blocks(model: nn.Module, tower: _Tower) -> Iterator[tuple[int, nn.Module, Norm]]:
    """Yield (depth, block, norm) of those norms that a block has."""
    depths = dict.fromkeys(site.depth for site in tower.sites) if tower.norms else ()  # a traced tower may lie in parts
    for depth in depths:
        block = model.get_submodule(f"{tower.place}.{depth}")
        for norm in tower.norms:
            if depth is not None and norm.only(block) and _names(block, norm.path, "")[0] is not None:
                yield depth, block, norm


def _beside(norm: Norm, site: Site) -> bool:
    """Return whether a layer of the same block is the norm's."""
    if norm.before:
        block = f"{site.tower} block {site.depth}".strip()
        return site.space in {f"{block} {reads}" for reads in norm.before}
    return site.role == (norm.after or norm.scales or norm.units)


def _names(block: nn.Module, path: str, prefix: str) -> tuple[str | None, str | None]:
    """Return the full names of a gain and of its bias; None where there is none."""
    module = attribute(block, path)
    if isinstance(module, nn.Parameter):
        return prefix, None
    own = dict(module.named_parameters(recurse=False)) if isinstance(module, nn.Module) else {}
    gain = next((name for name in ("weight", "lambda1", "gamma") if name in own), None)
    return f"{prefix}.{gain}" if gain else None, f"{prefix}.bias" if "bias" in own else None


def attribute(block: nn.Module, path: str) -> Any:
    """Return the module or attribute at a path below a block; None where there is none."""
    found: Any = block
    for part in path.split("."):
        found = found[int(part)] if part.isdigit() and isinstance(found, nn.ModuleList) else getattr(found, part, None)
        if found is None:
            return None
    return found


def _names_of(model: nn.Module) -> list[list[str]]:
    """Return the names of every parameter; of those of tied embeddings, the one that says so is the first."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [sorted(found, key=lambda name: not re.search(EMBEDDED, name)) for found in names.values()]


def _first(model: nn.Module, key: str) -> int:
    """Return the number of the first row of positions that a text uses: RoBERTa's follow the padding's."""
    module = model.get_submodule(key.rpartition(".")[0])
    padding = getattr(module, "padding_idx", None)
    return 0 if padding is None else int(padding) + 1


def _grid(tokens: Tokens, rows: int) -> Tokens | None:
    """Return the layout of so many positions; None where they lie on no grid, as a text's."""
    patches = Tokens(0, tokens.grid).count if tokens.grid and not tokens.sequence else rows + 1
    return Tokens(rows - patches, tokens.grid) if rows >= patches else None
