"""The classifier in a port between live models: what a fine-tune brings on top is carried over whole."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from hf_bico.core.errors import PortError
from hf_bico.core.method import Job, Track, untracked
from hf_bico.core.transport import holding
from hf_bico.core.types import Fit, Site, Tensors
from hf_bico.families import family_of
from hf_bico.families.heads import HeadKind, HeadLayers, carried, head_layers

CHOICES = (HeadKind.TRANSPORT, HeadKind.OWN)


@dataclass(frozen=True)
class LiveHead:
    """What becomes of the classifiers of live models."""

    layers: HeadLayers = field(default_factory=HeadLayers)
    """Empty where the target's classifier is left alone."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """The fine-tune's tensors that are carried whole, as they have no τ; on the CPU."""

    def telling(self, tensors: Tensors) -> "LiveHead":
        """Return the same with others of the fine-tune's tensors in place of those that it carries."""
        return replace(self, tensors={key: tensors.get(key, own).detach().cpu() for key, own in self.tensors.items()})

    def record(self, fit: Fit | None) -> dict[str, Any]:
        """Return what a report says of the head, as plain JSON data."""
        names = [pair.target.name for pair in self.layers.carried]
        kind = HeadKind.TRANSPORT if names else HeadKind.OWN
        return {"kind": kind, "carried": names, "input": fit and asdict(fit)}

    @contextmanager
    def on(self, job: Job, track: Track = untracked) -> Iterator[tuple[dict[str, Tensor], Fit | None]]:
        """Put the fine-tune's classifier on both bases while the block runs, on the target carried through a map.

        Yields:
            The classifier's tensors by the target's names, and how well the map of its input fits.
        """
        if not self.layers.carried:
            yield {}, None
            return
        with ExitStack() as held:
            held.enter_context(holding(job.base.model, self.tensors.items()))
            gains = self.layers.gain(self.tensors, job.weights)
            held.enter_context(holding(job.target.model, gains.items()))
            batches = track(job.batches(), "Carrying the head", 0)
            made, fit = carried(self.layers.carried, self.tensors, job.base, job.target, batches)
            held.enter_context(holding(job.target.model, made.items()))
            yield made | gains, fit


def live_head(tuned: Tensors, base: nn.Module, target: nn.Module, choice: str, family: str | None = None) -> LiveHead:
    """Return what becomes of the layers on top of the blocks.

    Those inside the models' bodies (BERT's pooler) are pre-trained and move like any other; the rest, which is random
    in a base, is carried whole.

    Args:
        choice: "transport", or "own" to leave the target's classifier as it is; it also stays where the target has
            none, or the fine-tune's is its base's.
        family: the family that was asked for by name, if any.

    Raises:
        PortError: no such choice, or the target's classifier is built unlike the fine-tune's.
    """
    if choice not in CHOICES:
        raise PortError(f"head={choice!r} is not one of {', '.join(CHOICES)}")
    base_sites, target_sites = (family_of(model, family).head_sites(model) for model in (base, target))
    if choice == HeadKind.OWN or not target_sites or not _changed(tuned, base, base_sites):
        return LiveHead()
    _require_alike(tuned, base_sites, target_sites, target)
    configs: list[Any] = [model.config for model in (base, target) if _spells(model)]
    blanks = [config.pad_token_id for config in configs]
    if len(set(blanks)) > 1:
        raise PortError(
            f"letters are carried as they are, and the base's blank is the {blanks[0]}-th, the target's the "
            f"{blanks[1]}-th: open the target with pad_token_id={blanks[0]}"
        )
    in_base, in_target = (
        {key for key in model.state_dict() if key.startswith(f"{getattr(model, 'base_model_prefix', '')}.")}
        for model in (base, target)
    )
    gains = zip(*(family_of(model, family).head_gains(model) for model in (base, target)), strict=False)
    lacking = tuple((a, b) for a, b in gains if a not in in_base or b not in in_target)
    layers = replace(head_layers(base_sites, target_sites, in_base, in_target, HeadKind.TRANSPORT), gains=lacking)
    tensors = {key: tuned[key].detach().cpu() for key in layers.tuned_keys}
    odd = [key for key, tensor in tensors.items() if tuple(base.state_dict()[key].shape) != tuple(tensor.shape)]
    if odd:
        raise PortError(f"the base's {odd[0]} has another shape than the fine-tune's: open it with the same num_labels")
    return LiveHead(layers, tensors)


def _changed(tuned: Tensors, base: nn.Module, sites: tuple[Site, ...]) -> bool:
    """Return whether any tensor of the sites differs between the fine-tune and its base."""
    before = base.state_dict()
    keys = [s.key for site in sites for s in site.slices if s.key in tuned]
    return any(
        tuned[key].shape != before[key].shape or not bool((tuned[key].to(before[key]) == before[key]).all())
        for key in keys
    )


def _require_alike(tuned: Tensors, base: tuple[Site, ...], target: tuple[Site, ...], model: nn.Module) -> None:
    """Refuse a target whose classifier has other layers, or another number of classes, than the fine-tune's."""
    what = [", ".join(site.role for site in side) or "none" for side in (base, target)]
    if what[0] != what[1]:
        raise PortError(
            f"the fine-tune's classifier ({what[0]}) is built unlike the target's ({what[1]}): give a "
            f'target with the same layers, or keep its own with head="{HeadKind.OWN}"'
        )
    last, theirs = base[-1], target[-1]
    classes = last.weight.of(tuned[last.weight.key]).shape[0]
    if classes != theirs.d_out:
        count = "vocab_size" if _spells(model) else "num_labels"
        raise PortError(
            f"the fine-tune's classifier has {classes} classes and the target's {theirs.d_out}: open the "
            f"{type(model).__name__} with {count}={classes}"
        )


def _spells(model: Any) -> bool:
    return type(model).__name__.endswith("ForCTC")
