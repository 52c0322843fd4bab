"""Any model with numbered blocks: what its linear maps do is read off a traced forward pass of a tiny copy of it."""

import json
import re
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from hf_bico.core.errors import PortError, setting
from hf_bico.core.gains import Gain
from hf_bico.core.riders import Rider
from hf_bico.core.types import Site
from hf_bico.families.experts import unknown_experts, with_experts
from hf_bico.families.layout import COMMON, HEAD, HEAD_DENSE, ON_TOP, SINGLE, TEXT
from hf_bico.families.riders import riders
from hf_bico.families.traced.along import gains_of, riders_of
from hf_bico.families.traced.examples import WORDS
from hf_bico.families.traced.places import ROWS, named_site, sites_of
from hf_bico.families.traced.reading import Reading, read
from hf_bico.families.traced.roles import place_of

HEADS = ("classifier", "score", "head", "classification_head")
"""Names of a classifier outside the blocks."""
LETTERS, NARROWED, PROJECTED = "lm_head", "projector.weight", r"(^|\.)feature_projection(\.projection)?\.weight$"
"""Names in models of sound: of the head of letters, of the layer before a classifier, and of what the convolutions of
the wave give to the blocks."""
WAVES = r"feature_extractor\.conv_layers\.|(^|\.)encoder\.conv[123]\."
"""In the name of a convolution that hears a sound; fine-tunes leave it as it was."""
LEFT = {
    WAVES: "the convolutions that hear the sound are the target's own",
    r"(^|\.)(running_(mean|var)|num_batches_tracked)$": "a batch norm's running statistics are the target's own",
    **COMMON,
    rf"^{LETTERS}\.": ON_TOP,
    rf"^({'|'.join(HEADS)})\.": ON_TOP,
    r"experts?\.": "experts that are stored as one tensor, or multiplied in another way, are the target's own",
    r"\.\d+\.(.+\.)?(weight|bias)$": "no linear map of rows that the outputs depend on, as a traced forward pass shows",
    r"": "of a model without a table, what is outside the blocks moves only if its name is known",
}


@dataclass(frozen=True)
class Traced:
    """The family of models whose roles are read off a traced forward pass, and trusted where permuting by them
    changes nothing. Layers of which no role is known pair by their names in the block.

    Args:
        named: whether it was asked for by name: then models of which no tiny copy runs pair by names alone.
    """

    named: bool = False

    @property
    def name(self) -> str:
        return "traced"

    def knows(self, model: nn.Module) -> bool:
        return any(place_of(name) and p.ndim > 1 for name, p in model.named_parameters())

    def reading(self, model: nn.Module) -> Reading | None:
        """Return what a traced pass of a tiny copy shows; None where none runs and the family was asked for by name.

        Raises:
            PortError: none runs.
        """
        found = _read(model)
        if isinstance(found, Reading) or self.named:
            return found if isinstance(found, Reading) else None
        raise PortError(found)

    def require_known(self, model: nn.Module) -> None:
        """Refuse a model of which no tiny copy runs, or whose experts cannot be told apart.

        Raises:
            PortError: it is one, with the reason.
        """
        kind = getattr(getattr(model, "config", None), "model_type", None)
        what = f"{type(model).__name__}{f' ({kind})' if kind else ''} is of no known family: no table names it, and "
        hint = f"; {setting('family')} generic pairs its linear maps by their names"
        found = _read(model)
        if not isinstance(found, Reading):
            raise PortError(f"{what}{found}{hint}")
        if experts := unknown_experts(model):
            raise PortError(
                f"{what}its experts ({experts[0]} …) are stored in a way that is not known, so that they cannot be "
                f"matched{hint}, and leaves experts that are stored as one tensor"
            )

    def sites(self, model: nn.Module, *, every: bool = False) -> tuple[Site, ...]:
        """Return the linear maps in numbered blocks as sites.

        Raises:
            PortError: there are none, or no tiny copy of the model runs.
        """
        found = with_experts(model, sites_of(model, self.reading(model)))
        if not found:
            raise PortError(f"{type(model).__name__} has no linear map inside numbered blocks: nothing pairs")
        heard = [name for name, _ in model.named_parameters() if re.search(PROJECTED, name)]
        return (*found, *(replace(named_site(model, name, "feature projection"), tokens=ROWS) for name in heard))

    def riders(self, model: nn.Module) -> tuple[Rider, ...]:
        """Return what moves beside the linear maps: what a trace shows beside them, and what lies outside the blocks
        and is named as it is elsewhere.
        """
        reading = self.reading(model)
        seen = riders_of(model, reading) if reading else ()
        scaled = {each.tower for each in seen if each.role.startswith("scale of")}
        named = riders(model, self.sites(model, every=True), {}, scaled)
        keys, stays = {each.key for each in named}, self.on_top(model)
        found = (*named, *(each for each in seen if each.key not in keys))
        return tuple(each for each in found if each.key not in stays and not re.search(WAVES, each.key))

    def gains(self, model: nn.Module) -> tuple[Gain, ...]:
        """Return the gains whose change the linear maps can tell."""
        reading = self.reading(model)
        return gains_of(model, reading) if reading else ()

    def head_sites(self, model: nn.Module) -> tuple[Site, ...]:
        """Return a classifier's layers outside the blocks, in the order they run; empty without one."""
        if type(model).__name__.endswith("ForCTC"):
            if not isinstance(getattr(model, LETTERS, None), nn.Linear):
                raise PortError(
                    f"the head of a {type(model).__name__} is no linear layer {LETTERS}: it is not served yet"
                )
            return (replace(named_site(model, f"{LETTERS}.weight", HEAD), tokens=ROWS, on_top=True),)
        if not re.search(r"For\w*Classification", type(model).__name__):
            return ()
        outside = {name for name, p in model.named_parameters() if p.ndim == 2 and not place_of(name)}
        last = [name for name in outside if {*name.split(".")[:1], *name.split(".")[-2:-1]} & {*HEADS}]
        if not last:
            return ()
        reading = self.reading(model)
        ran = [name for name in reading.maps if name in last] if reading else last
        seen = reading.maps[ran[-1]] if reading and ran else None
        before = NARROWED if NARROWED in outside else seen.follows if seen and seen.follows in outside else ""
        chain = [*filter(None, [before]), (ran or last)[-1]]
        of_tokens = seen is not None and seen.kind == "text" and seen.rows == WORDS
        dense = zip(chain[:-1], [HEAD_DENSE], strict=False)
        tokens = {name: ROWS if name == NARROWED else TEXT if of_tokens else SINGLE for name in chain}
        return tuple(
            replace(named_site(model, name, role), tokens=tokens[name], on_top=True)
            for name, role in (*dense, (chain[-1], HEAD))
        )

    def on_top(self, model: nn.Module) -> frozenset[str]:
        own = frozenset(s.key for site in self.head_sites(model) for s in site.slices)
        return own | frozenset(self.head_gains(model))

    def head_gains(self, model: nn.Module) -> tuple[str, ...]:
        """Return the names of the parameters of norms within the classifier."""
        own = {s.key for site in self.head_sites(model) for s in site.slices}
        beside = [name for name, p in model.named_parameters() if p.ndim == 1 and name not in own]
        return tuple(name for name in beside if own and name.split(".")[0] in HEADS and not place_of(name))

    def final_gain(self, model: nn.Module) -> None:
        return None

    def left_reason(self, key: str) -> str:
        """Return why a tensor that belongs to no site stays behind; there is always a reason."""
        return next(reason for pattern, reason in LEFT.items() if re.search(pattern, key))

    def told(self, model: nn.Module) -> str:
        """Return, in a line, how far the roles of a model's layers are known."""
        reading, sites, what = self.reading(model), self.sites(model), type(model).__name__
        if reading is None:
            return f"{what}: no tiny copy of it runs, so its {len(sites)} linear maps pair by their names"
        known = sum(site.role in reading.roles or site.known or site.expert is not None for site in sites)
        doubt = f" ({', '.join(reading.refuted)} were refuted)" if reading.refuted else ""
        return (
            f"{what} has no table: the roles of {known} of its {len(sites)} linear maps are read off a traced forward "
            f"pass of a tiny copy, its MLPs checked by permuting them; the others pair by their names{doubt}"
        )


_known: dict[tuple[type[nn.Module], str], Reading | str] = {}
"""What was read of the models of a class and a config; or why nothing could be."""
MOST = 32
"""How many of them are kept."""


def _read(model: Any) -> Reading | str:
    """Return what is known of a model, or why nothing is."""
    config: Any = getattr(model, "config", None)
    key = type(model), json.dumps(config.to_dict(), default=str, sort_keys=True) if hasattr(config, "to_dict") else ""
    if key not in _known:
        while len(_known) >= MOST:
            _known.pop(next(iter(_known)))
        try:
            with torch.device("cpu"):
                _known[key] = read(model)
        except PortError as error:
            _known[key] = str(error)
    return _known[key]
