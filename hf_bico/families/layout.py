"""How a family is written down: a table of its linear maps, and reasons for the tensors that stay behind.

docs/adding_a_family.md says how to add one.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from hf_bico.core.errors import PortError
from hf_bico.core.gains import Gain
from hf_bico.core.riders import Rider
from hf_bico.core.types import Hidden, Site, Slice, Tokens
from hf_bico.families.experts import with_experts
from hf_bico.families.riders import EMBEDDED, PLACED, Norm, attribute, gains, offset_of, riders
from hf_bico.families.word_heads import WORD_DENSE

TEXT = Tokens(prefix=0, grid=(1,), sequence="text")
"""Tokens of a text; every batch says which of them meet."""
LABELS = Tokens(prefix=0, grid=(1,), sequence="labels")
"""Tokens of a decoder's own text; every batch says which of them meet."""
PATCHES, MERGED = "patches", "merged patches"
CUT = Tokens(prefix=0, grid=(1,), sequence=PATCHES, packed=True)
"""Patches of images that are taken as large as they are; a batch says which meet, where they are cut differently."""
JOINED = Tokens(prefix=0, grid=(1,), sequence=MERGED, packed=True)
"""The same once those that lie together are joined."""
SINGLE = Tokens(prefix=1)
"""One row a sample, as after pooling."""
MLP = "MLP"
"""Hidden coordinates of a block's MLP."""
CROSS = "cross "
"""Prefix of the roles and hidden coordinates of a decoder's attention to its encoder."""

GAIN = "a norm's gain is diagonal, not a vector of the space"
SCALE = "a LayerScale's gain is diagonal, not a vector of the space"
VOCABULARY = "the language-model head belongs to the target's vocabulary"
SPECIAL_TOKENS = r"(^|\.)(cls|class|dist|distillation|mask|reg|register)_?(token|tokens|embedding)$"
COMMON = {
    r"(^|\.|_)(layer_?norm|layrnorm|norm|ln)(_?\w+)?\.(weight|bias|gamma|beta)$": GAIN,
    r"(^|\.)\w*(LayerNorm|_layrnorm|layernorm)\w*\.(weight|bias)$": GAIN,
    r"(^|\.)((layer_scale|ls)_?\d\.(lambda1|gamma)|gamma_\d)$": SCALE,
    r"(patch_embed\w*|conv1)\.(\w+\.)*(weight|bias)$": "the patch convolution is the target's own",
    SPECIAL_TOKENS: "special tokens are the target's own",
    r"(^|\.)(head\.probe|attn_pool\.latent)$": "the probe that pools the patches is the target's own",
    PLACED: "position embeddings belong to the target's grid",
    r"relative_attention_bias\.weight$": "relative position biases are scores of heads, not vectors of the space",
    r"token_type_embeddings\.weight$": "segment embeddings are the target's own",
    EMBEDDED: "token embeddings belong to the target's vocabulary",
    r"(^|\.)lm_head\.": VOCABULARY,
    r"(^|\.)position_ids$": "a counter, not a weight",
    r"(^|\.)(rotary_emb\.)?(original_)?inv_freq$": "rotary frequencies are no weights",
    r"(^|\.)attn\.(masked_)?bias$": "a causal mask, not a weight",
    r"logit_(scale|bias)$": "the logit scale is calibrated to the target's features",
}
"""Reasons that every family shares: pattern of a name → why such a tensor stays behind."""


@dataclass(frozen=True)
class Layer:
    """A linear map of every block, or one outside the blocks."""

    role: str
    """What it does: q, k, v, attention output, MLP up, MLP gate, MLP down …; partners have the same role."""
    path: str
    """Its module below the block, or the name of a bare parameter. Outside the blocks: the end of its full name, or,
    after "^", all of it."""
    reads: str = ""
    """Name of its input; the layers of a block that read the same rows share it, or, after "^", those of all blocks.
    Its role unless given."""
    gives: str = ""
    """The block's hidden coordinates that its outputs are ("qk", "v", MLP); "" for the residual stream."""
    uses: str = ""
    """The block's hidden coordinates that its inputs are; "" for the residual stream."""
    part: tuple[int, int] = (0, 1)
    """(i, m): it is the i-th of m equal parts of a fused weight's outputs, from 0."""
    only: Callable[[nn.Module], bool] | None = None
    """Block → whether it has this layer; None: it has it if it has the module."""
    runs: Callable[[nn.Module], bool] | None = None
    """Outside the blocks: model → whether it runs in this use of the model; None: always."""
    tokens: Tokens | Callable[[nn.Module], Tokens] | None = None
    """Its token layout, or model → layout, if not the tower's."""
    bias: str = "bias"
    """Name of the bias in the module."""
    weight: str = "weight"
    """Name of the weight in the module."""
    tower: str = ""
    """Outside the blocks: the tower that it belongs to."""
    known: bool = False
    """Whether its n-th output is the same thing in every model: the gate of a shared expert."""


@dataclass(frozen=True)
class Tower:
    """A stack of blocks of one shape."""

    blocks: str
    """The end of the module list's full name, or, after "^", all of it."""
    layers: tuple[Layer, ...]
    """The layers of a block; those that a block lacks are skipped (not every model has gates)."""
    tokens: Tokens | Callable[[nn.Module], Tokens]
    """Token layout of the rows, or model → layout."""
    name: str = ""
    """"" for a model's only or main tower; depths and partners are per tower."""
    heads: str | Callable[[nn.Module], int | None] = ""
    """Attribute of a block with its number of attention heads of equal width, or block → that number; "" or None where
    heads cannot be permuted (rotary positions, grouped queries)."""
    one_order: bool = False
    """Whether all blocks must permute their heads alike, as they share the first block's position biases (T5)."""
    required: tuple[str, ...] = ()
    """Roles without which a block is not of this family."""
    norms: tuple[Norm, ...] = ()
    """The norms and scales of a block."""
    optional: bool = False
    """Whether the model's main job does not need it (CLIP's text tower); it moves only where τ changes it."""


@dataclass(frozen=True)
class FamilyLayout:
    """The insides of a kind of model, as a table."""

    name: str
    model_types: tuple[str, ...]
    """The values of `model_type` in config.json that it covers."""
    towers: tuple[Tower, ...]
    outside: tuple[Layer, ...] = ()
    """Linear maps outside the blocks that are pre-trained and that every use of the model runs: projections."""
    head: tuple[Layer, ...] = ()
    """A classifier's layers on top, in the order they run, the last with role "head"; a new base may lack them."""
    head_norms: tuple[str, ...] = ()
    """Norms among them, which are not linear: the ends of their names."""
    final: str = ""
    """Pattern of the end of the name of the norm behind the blocks whose output a head reads, and nothing else; of
    several the last counts."""
    left: Mapping[str, str] = field(default_factory=dict)
    """Pattern of a name → why such a tensor stays behind, besides `COMMON`."""

    def knows(self, model: nn.Module) -> bool:
        return getattr(getattr(model, "config", None), "model_type", None) in self.model_types

    def sites(self, model: nn.Module, *, every: bool = False) -> tuple[Site, ...]:
        """Return the linear maps whose task vector is moved; with `every`, those of optional towers too.

        Raises:
            PortError: a block lacks a layer that the family requires, or there are no blocks.
        """
        towers = [tower for tower in self.towers if every or not tower.optional]
        names = {tower.name for tower in towers}
        known = _names(model)
        found = [site for tower in towers for site in _tower_sites(model, tower, known)]
        if not found:
            raise PortError(f"{type(model).__name__} has no blocks like those of {self.name}")
        found = list(with_experts(model, found))
        return (*found, *_outside(model, [layer for layer in self.outside if layer.tower in names], known))

    def riders(self, model: nn.Module) -> tuple[Rider, ...]:
        """Return what moves beside the linear maps, of optional towers too."""
        return riders(model, self.sites(model, every=True), {tower.name: tower.norms for tower in self._towers(model)})

    def gains(self, model: nn.Module) -> tuple[Gain, ...]:
        """Return the gains whose change the linear maps can tell."""
        return gains(model, self.sites(model, every=True), {tower.name: tower.norms for tower in self._towers(model)})

    def _towers(self, model: nn.Module) -> list[Tower]:
        known = _names(model)
        return [tower for tower in self.towers if _place(known, tower.blocks) is not None]

    def head_sites(self, model: nn.Module) -> tuple[Site, ...]:
        """Return the classifier's layers, in the order they run; empty for a model without one."""
        found = _outside(model, self._head_of(model), _names(model))
        return tuple(found) if any(site.role == HEAD for site in found) else ()

    def on_top(self, model: nn.Module) -> frozenset[str]:
        """Return the names of all tensors on top of the blocks (classifier, pooler, norms), which a base may lack."""
        found = _outside(model, self._head_of(model), _names(model))
        return frozenset(s.key for site in found for s in site.slices) | frozenset(self.head_gains(model))

    def _head_of(self, model: nn.Module) -> tuple[Layer, ...]:
        """Return the layers on top as a class runs them: on every token where every token is answered for."""
        if type(model).__name__.endswith("ForMaskedLM"):
            return ()
        every_token = "ForTokenClassification", "ForQuestionAnswering"
        if not any(each in type(model).__name__ for each in every_token):
            return self.head
        return tuple(replace(layer, tokens=TEXT) for layer in (*self.head, Layer(HEAD, "^qa_outputs")))

    def head_gains(self, model: nn.Module) -> tuple[str, ...]:
        """Return the names of the parameters of norms within the classifier."""
        return tuple(key for key, _ in model.named_parameters() for name in self.head_norms if f".{name}." in f".{key}")

    def final_gain(self, model: nn.Module) -> Gain | None:
        """Return the gain that gives to the head's first layer, and to nothing else; None where none is known."""
        first, *_ = (*self.head_sites(model), None)
        norms = [
            (name, norm)
            for name, norm in model.named_modules()
            if self.final and re.search(rf"(^|\.)({self.final})$", name) and getattr(norm, "weight", None) is not None
        ]
        pooled = any(site.role.startswith("pool") for site in self.sites(model))
        if first is None or not norms or pooled:
            return None
        (name, norm), own = norms[-1], () if first.bias is None else (first.bias,)
        bias = f"{name}.bias" if getattr(norm, "bias", None) is not None else None
        return Gain(f"{name}.weight", "in", (first.weight,), own, bias, offset_of(norm))

    def left_reason(self, key: str) -> str | None:
        """Return why a tensor outside the sites stays behind; None if the family cannot account for it."""
        on_top = "|".join(
            re.escape(path) for path in ("qa_outputs", *(each.path.removeprefix("^") for each in self.head))
        )
        patterns = {**self.left, **COMMON, rf"(^|\.)({on_top})\.(weight|bias)$": ON_TOP}
        return next((reason for pattern, reason in patterns.items() if re.search(pattern, key)), None)


ON_TOP = "the head is the target's own, if it is not carried whole"
HEAD, HEAD_DENSE = "head", "head dense"
"""Roles in a classifier: its last layer, which outputs the scores, and the one before it."""


@dataclass(frozen=True)
class OfClass:
    """Tells whether the name of a model's class has an end; an object, so that tables can be compared."""

    end: str

    def __call__(self, model: nn.Module) -> bool:
        return type(model).__name__.endswith(self.end)


def words_through(path: str, only: str = "") -> tuple[Layer, ...]:
    """Return the layer between the blocks and the rows of the vocabulary, of a head that scores words.

    Args:
        path: its full name.
        only: the end of the name of the classes that run it so; "" for all that have it.
    """
    return (Layer(WORD_DENSE, f"^{path}", tokens=TEXT, runs=OfClass(only)),)


def image_tokens(prefix: int | str, config: str = "") -> Callable[[nn.Module], Tokens]:
    """Return model → token layout of an image tower: `prefix` special tokens, then the patches of its config.

    Args:
        prefix: a number, or the name of the config's number of registers, which come after the class token.
        config: name of the config within the model's that has the sizes; "" for the model's own.
    """

    def tokens(model: nn.Module) -> Tokens:
        whole: Any = model.config
        own = getattr(whole, config, whole) if config else whole
        special = 1 + getattr(own, prefix, 0) if isinstance(prefix, str) else prefix
        sizes = (side if isinstance(side, list | tuple) else (side, side) for side in (own.image_size, own.patch_size))
        return Tokens(special, tuple(image // patch for image, patch in zip(*sizes, strict=True)))

    return tokens


def is_transposed(module: nn.Module) -> bool:
    """Return whether a module stores its weight (d_in, d_out)."""
    return type(module).__name__ == "Conv1D"


def roles(layers: tuple[Layer, ...], *, but: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return the roles of layers, without those in `but`; for a tower's `required`."""
    return tuple(layer.role for layer in layers if layer.role not in but)


def _tower_sites(model: nn.Module, tower: Tower, known: Sequence[str]) -> list[Site]:
    """Return the sites of a tower's blocks, in order; none where the model lacks the tower."""
    place = _place(known, tower.blocks)
    if place is None:
        return []
    tokens = tower.tokens if isinstance(tower.tokens, Tokens) else tower.tokens(model)
    sites = []
    blocks: Any = model.get_submodule(place)
    for depth, block in enumerate(blocks):
        name = f"{tower.name} block {depth}".strip()
        found = [
            site
            for layer in tower.layers
            for site in _site(block, layer, f"{place}.{depth}", name, depth, tokens, tower)
        ]
        missing = set(tower.required) - {site.role for site in found}
        if missing:
            raise PortError(
                f"{name} of {type(model).__name__} has no {', '.join(sorted(missing))}, which "
                "its family has: blocks of this shape are not supported"
            )
        sites += found
    return sites


def _outside(model: nn.Module, layers: Iterable[Layer], known: Sequence[str]) -> list[Site]:
    """Return layers outside the blocks as sites; none of those that the model lacks."""
    return [site for layer in layers for site in _outer(model, layer, known)]


def _outer(model: nn.Module, layer: Layer, known: Sequence[str]) -> list[Site]:
    """Return a layer outside the blocks as a site; none where the model lacks it."""
    place = _place(known, layer.path)
    if place is None or (layer.runs and not layer.runs(model)):
        return []
    owner, _, path = place.rpartition(".")
    tokens = layer.tokens(model) if callable(layer.tokens) else layer.tokens
    found = _site(
        model.get_submodule(owner),
        replace(layer, path=path, tokens=tokens),
        owner,
        "",
        None,
        tokens or SINGLE,
        Tower("", (), SINGLE, layer.tower),
    )
    return [replace(site, on_top=site.role in (HEAD, HEAD_DENSE, WORD_DENSE)) for site in found]


def _site(
    block: nn.Module, layer: Layer, prefix: str, name: str, depth: int | None, tokens: Tokens, tower: Tower
) -> list[Site]:
    """Return a layer of a block as a site; none where the block lacks it."""
    module = attribute(block, layer.path)
    weight = module if isinstance(module, nn.Parameter) else getattr(module, layer.weight, None)
    if not isinstance(weight, nn.Parameter) or (layer.only and not layer.only(block)):
        return []
    bare = weight is module
    key = ".".join(filter(None, (prefix, layer.path)))
    # A bare parameter (x @ W) and GPT-2's Conv1D are stored (d_in, d_out).
    transposed = bare or is_transposed(module)
    d_out, d_in = weight.shape[::-1] if transposed else weight.shape
    i, parts = layer.part
    rows = None if parts == 1 else (i * d_out // parts, (i + 1) * d_out // parts)
    has_bias = not bare and getattr(module, layer.bias, None) is not None
    own, reads = f"{name} {layer.role}".strip(), layer.reads or layer.role
    return [
        Site(
            own,
            layer.role,
            depth,
            Slice(key if bare else f"{key}.{layer.weight}", rows, transposed),
            Slice(f"{key}.{layer.bias}", rows) if has_bias else None,
            d_out // parts,
            d_in,
            f"{tower.name} {reads[1:]}".strip() if reads.startswith("^") else f"{name} {reads}".strip(),
            layer.tokens if isinstance(layer.tokens, Tokens) else tokens,
            _hidden(name, layer.gives, block, tower),
            _hidden(name, layer.uses, block, tower),
            tower.name,
            known=layer.known,
        )
    ]


def _hidden(name: str, what: str, block: nn.Module, tower: Tower) -> Hidden | None:
    """Return the hidden coordinates `what` of a block; None where they cannot be permuted."""
    if not what or what.endswith(MLP):
        return Hidden(f"{name} {what}") if what else None
    heads = tower.heads(block) if callable(tower.heads) else tower.heads and attribute(block, tower.heads)
    cross = what.startswith(CROSS)
    order = tower.name if tower.one_order and not cross else name
    return Hidden(f"{name} {what}", heads, f"{order} {CROSS * cross}attention".strip()) if heads else None


def _names(model: nn.Module) -> list[str]:
    """Return the full names of a model's modules and parameters."""
    return [name for name, _ in (*model.named_modules(), *model.named_parameters())]


def _place(known: Sequence[str], path: str) -> str | None:
    """Return which of the known names of modules and parameters ends so, or, after "^", is that.

    Of several the one with the fewest parts is taken, as others lie inside blocks; None where there is none.
    """
    whole, end = path.removeprefix("^"), f".{path}"
    names = [name for name in known if name == whole or name.endswith(end)]
    return min(names, key=lambda name: name.count("."), default=None)
