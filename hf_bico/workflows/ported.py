"""The result of a port between live models: to be applied, evaluated, saved and pushed."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hf_bico.core.account import Account
from hf_bico.core.collect import frozen
from hf_bico.core.errors import PortError
from hf_bico.core.low_rank import Delta
from hf_bico.core.transport import Moved, added, holding
from hf_bico.families.live_words import Added
from hf_bico.families.new_tokens import make_room, with_room
from hf_bico.io.hub import Hub
from hf_bico.reports.records import Measured
from hf_bico.reports.report import PortReport
from hf_bico.workflows.choices import PushChoices
from hf_bico.workflows.deliver import Delivery
from hf_bico.workflows.live_files import LiveForm, LiveResult, destination_for, fill


@dataclass(frozen=True)
class Ported:
    """What a fine-tune learned, in the coordinates of the new base."""

    target: nn.Module
    """The new base; it is left as it is until `apply_`."""
    delta: Delta
    """The target's change by state-dict name, at α = 1; tensors that do not change are not in it."""
    head: dict[str, Tensor]
    """Tensors of the target's classifier that take the place of its own, whatever α is; empty where it stays."""
    moved: Sequence[Moved]
    """Every layer that moved: the ranks and residuals of its maps, the share of τ they kept."""
    account: Account
    """What of τ moved, what was left, and why."""
    record: PortReport = field(repr=False)
    """How it was made."""
    added_tokens: Added | None = field(default=None, repr=False)
    """The tokens that it adds to the target's vocabulary, if any."""
    scores: list[Measured] = field(default_factory=list)
    """What `evaluate` measured."""
    applied: list[float] = field(default_factory=list, repr=False)
    """The α of every `apply_`."""

    def __repr__(self) -> str:
        names = " → ".join(self.record.lineage[role].name for role in ("source", "target"))
        told = [f"{len(self.moved)} layers moved, {self.account.moved_share:.1%} of ‖τ‖²"]
        told += [f"{len(self.head)} tensors of a head"] if self.head else []
        told += [f"{each.label}: {each.value:.4g}" for each in self.scores]
        told += [f"applied at α = {', '.join(f'{alpha:g}' for alpha in self.applied)}"] if self.applied else []
        return f"Ported({names} by {self.record.method.name}: {'; '.join(told)})"

    @property
    def report(self) -> dict[str, Any]:
        """Plain JSON data: method and options, pairs, ranks and residuals, what was left and why, ‖τ‖, samples,
        environment, seconds, and scores if any were measured."""
        return replace(self.record, scores=tuple(self.scores)).to_json()

    @property
    def tokenizer(self) -> Any:
        """The target's tokenizer with the tokens that the port adds; None if it adds none."""
        return self.added_tokens.tokenizer if self.added_tokens else None

    @property
    def _roomy(self) -> AbstractContextManager[None]:
        """The target with rows for added tokens, while a block runs."""
        return with_room(self.added_tokens.side) if self.added_tokens else nullcontext()

    def tensors(self, alpha: float = 1.0) -> dict[str, Tensor]:
        """Return the tensors of the target that change, by state-dict name in its own dtype: θ_B + α τ_B, and the head.

        The target stays as it is.

        Raises:
            PortError: a scale or a sum that is NaN or Inf; the port is in the target already.
        """
        self._require_unapplied()
        with self._roomy:
            state = self.target.state_dict()
            changed = dict(added(state, self.delta, alpha))
        return changed | {key: tensor.to(state[key]) for key, tensor in self.head.items()}

    def _require_unapplied(self) -> None:
        if self.applied:
            raise PortError(
                "the port is in the target already (apply_), and would be added twice: evaluate and save "
                "it before apply_, or save the target itself"
            )

    def apply_(self, alpha: float = 1.0) -> nn.Module:
        """Add the port to the target in place: θ_B ← θ_B + α τ_B. A second call adds it once more.

        Returns:
            The target, which now knows the task and is a warm start for training.
        """
        if self.added_tokens and not self.applied:
            make_room(self.added_tokens.side)
        state = self.target.state_dict()
        with torch.no_grad():
            for key, tensor in added(state, self.delta, alpha):
                state[key].copy_(tensor)
            for key, tensor in self.head.items():
                state[key].copy_(tensor)
        self.applied.append(alpha)
        return self.target

    def evaluate(
        self, score: Callable[[nn.Module], float], metric: str = "accuracy", alpha: float = 1.0
    ) -> dict[str, float]:
        """Score the target without the port and with it, and keep both scores for the card; the target stays as it is.

        Args:
            score: gives a number for a model, which is in eval mode and without gradients; take samples that the
                calibration did not see.
            metric: what the card calls the number.

        Returns:
            Both scores, by what the card calls them.
        """
        with frozen(self.target) as target, torch.no_grad():
            without = Measured(metric, float(score(target)), without_port=True)
            tensors = self.tensors(alpha)
            with self._roomy, holding(target, tensors.items()):
                ported = Measured(metric, float(score(target)), alpha)
        for found in (without, ported):
            self.scores[:] = [each for each in self.scores if each.label != found.label]
            self.scores.append(found)
        return {found.label: found.value for found in (without, ported)}

    def save_pretrained(
        self,
        folder: str | Path,
        alpha: float = 1.0,
        *,
        form: str = "model",
        rank: int | None = None,
        energy: float | None = None,
        dtype: str | None = None,
        base: str | None = None,
        scores: Mapping[str, float] | None = None,
        overwrite: bool = False,
    ) -> Path:
        """Write θ_B + α τ_B, or α τ_B alone, as a folder with its card and hf_bico.json; the target stays as it is.

        Args:
            folder: a new or an empty one.
            form: "model"; or "delta" or "lora", of the repo or folder that the target was opened from.
            rank, energy: of a lora, the rank, or the share of every layer's ‖τ_B‖² that is kept; all unless given.
            dtype: of a delta's matrices, "bfloat16" or "float32"; bfloat16 unless its rounding is measurable.
            base: what the target was opened from, for a delta or lora of one that does not say so itself.
            scores: measured values for the card, by name, beside those of `evaluate`.
            overwrite: replace an earlier result that is in the folder, once the new one is whole.

        Raises:
            PortError: the folder is in use, the disk is full, a sum is NaN or Inf; the target does not hold what its
                repo holds.
        """
        place = Path(folder).expanduser()
        delivery = Delivery("port is", place, None, overwrite=overwrite)
        delivery.require_room(sum(tensor.nbytes for tensor in self.target.state_dict().values()))
        self._send(delivery, LiveForm(alpha, form, rank, energy, dtype, base), scores, Hub())
        return place

    def push_to_hub(
        self,
        repo: str,
        alpha: float = 1.0,
        *,
        form: str = "model",
        rank: int | None = None,
        energy: float | None = None,
        dtype: str | None = None,
        base: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str | None = None,
        create_pr: bool = False,
        scores: Mapping[str, float] | None = None,
    ) -> str:
        """Push what `save_pretrained` writes to a repo, as one commit or one pull request, and return its URL.

        Raises:
            PortError: no token that may write there; a repo that holds something else, or that moved meanwhile.
        """
        hub, chosen = Hub(token), LiveForm(alpha, form, rank, energy, dtype, base)
        push = PushChoices(push=True, push_to=repo, private=private, create_pr=create_pr, commit_message=commit_message)
        destination = destination_for(self.record, chosen, hub, push)
        url = self._send(Delivery("port is", None, destination), chosen, scores, hub)
        assert url is not None  # there is a destination, for a push was asked for
        return url

    def _send(self, delivery: Delivery, form: LiveForm, scores: Mapping[str, float] | None, hub: Hub) -> str | None:
        self._require_unapplied()
        told = [*self.scores, *(Measured(name, float(value)) for name, value in (scores or {}).items())]
        report = replace(self.record, scores=tuple(told))
        result = LiveResult(self.target, self.delta, self.head, report, self.added_tokens)
        with self._roomy:
            return delivery.send(lambda stage, repo: fill(stage, repo, result, form, hub), hub)
