"""A port between live models as files: the model or the change, what opens it, the report and the card."""

import copy
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from hf_bico.core.errors import PortError, listed, setting
from hf_bico.core.low_rank import Delta
from hf_bico.core.transport import added, check_scale
from hf_bico.families import Transformers, family_of, library_of
from hf_bico.families.layout import is_transposed
from hf_bico.families.live_words import Added
from hf_bico.families.purposes import of_model
from hf_bico.io.aside import no_place, write_tokens
from hf_bico.io.changes.forms import Form, Shaped, Storage
from hf_bico.io.changes.peft import write_delta
from hf_bico.io.checkpoints import OpenedBase, open_repo
from hf_bico.io.hub import Hub, opened_from
from hf_bico.io.outside import at
from hf_bico.io.reference import Lineage, Pinned
from hf_bico.io.writer import copy_files
from hf_bico.reports.card import write_card
from hf_bico.reports.opening import WEIGHTS, Opening
from hf_bico.reports.records import Origin, Written
from hf_bico.reports.report import PortReport, without_other_models, write_report
from hf_bico.workflows.choices import PushChoices
from hf_bico.workflows.destination import Destination, destination_of, purport_of
from hf_bico.workflows.used import used_live

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LiveForm:
    """What is written: see `Ported.save_pretrained`."""

    alpha: float
    form: str
    rank: int | None
    energy: float | None
    dtype: str | None
    base: str | None

    def storage(self, library: str = "transformers") -> Storage:
        """Return how the change is written.

        Args:
            library: the target's.

        Raises:
            PortError: it cannot be written so.
        """
        return Storage.of(self.form, self.rank, self.energy, self.dtype, library)


@dataclass(frozen=True)
class LiveResult:
    """A port between live models, whatever form it is written in."""

    target: nn.Module
    delta: Delta
    head: Mapping[str, Tensor]
    report: PortReport
    added_tokens: Added | None = None
    """The tokens that it adds, if any; the target has rows for them."""

    @property
    def is_transformers(self) -> bool:
        """Whether the target is a model of transformers."""
        return hasattr(self.target, "save_pretrained") and hasattr(self.target, "config")

    def opened_from(self) -> str | None:
        """Return what the target was opened from, at its commit where that is known; None if it does not say."""
        return opened_from(self.target, self.report.lineage["target"].commit)


def destination_for(report: PortReport, form: LiveForm, hub: Hub, push: PushChoices) -> Destination | None:
    """Return where a live port is pushed to, if a push was asked for.

    Raises:
        PortError: the repo may not be written to, or holds something else.
    """
    source, base, target = (
        Pinned(report.lineage[role].name, report.lineage[role].commit, ()) for role in ("source", "base", "target")
    )
    size = report.task_vector.relative_norm

    def same(earlier: Mapping[str, Any]) -> bool:
        """Return whether a report has a change of this size, for fine-tunes in memory have no names of their own."""
        return at(earlier, "task_vector", "relative_norm") == size

    lineage = Lineage(source, base, target, Pinned("", None, (), kind="dataset"))
    return destination_of(purport_of(lineage, hub, form.storage().form, same), hub, push)


def fill(stage: Path, repo: str | None, result: LiveResult, form: LiveForm, hub: Hub) -> None:
    """Write the folder of a port: the model or the change, what opens it, the report and the card."""
    stage.mkdir()
    check_scale(form.alpha)
    storage, report = form.storage(), result.report
    if result.added_tokens is not None and storage.form is not Form.MODEL:
        raise PortError(no_place(storage.form))
    scores = report.scores or ()
    told = without_other_models(scores, form.alpha, storage.cuts)
    if len(told) < len(scores):
        others = [each.label for each in scores if each not in told]
        logger.warning("Left off the card: %s; what is written is another model", ", ".join(others))
    report = replace(report, alpha=form.alpha, scores=told)
    if storage.form is Form.MODEL:
        _write_model(stage, result, form.alpha, hub)
        base_folder, shaped = None, Shaped(result.delta, form.alpha)
    else:
        base_folder, delta, shaped = _write_delta(stage, result, form, hub)
        base = Origin(delta["base"], delta["commit"], delta["commit"] is None)
        report = replace(report, delta=delta, lineage=report.lineage | {"target": base})
    vector = replace(report.task_vector, written=Written.of(shaped, storage.form))
    opening = Opening.of_live(type(result.target).__name__, repo, transformers=result.is_transformers)
    report = replace(report, task_vector=vector, opening=opening)
    write_report(stage, report)  # a delta opens by it
    opening = used_live(opening, result.target, stage, base_folder, pinned=not report.lineage["target"].local)
    report = replace(report, opening=opening)
    write_report(stage, report)
    write_card(stage, report, hub.api.endpoint)


def _write_model(stage: Path, result: LiveResult, alpha: float, hub: Hub) -> None:
    """Write the whole target: natively if it is of transformers, with tokenizer and processor; else its state dict."""
    target: Any = result.target
    before = result.target.state_dict()
    head = {key: tensor.to(before[key]) for key, tensor in result.head.items()}
    changed = dict(added(before, result.delta, alpha)) | head
    places = {before[key].data_ptr(): tensor for key, tensor in changed.items()}  # a tied tensor has several names
    state = {key: changed.get(key, places.get(tensor.data_ptr(), tensor)) for key, tensor in before.items()}
    if result.is_transformers:
        with naming_classes(result):
            target.save_pretrained(stage, state_dict=state)
        _copy_extra(stage, result, hub)
        if result.added_tokens is not None:
            write_tokens(stage, result.added_tokens.tokenizer, result.added_tokens.new)
        return
    held: set[int] = set()
    for key, tensor in state.items():  # safetensors takes no two names of one storage
        shared = tensor.data_ptr() in held
        held.add(tensor.data_ptr())
        state[key] = tensor.detach().clone() if shared else tensor.detach().contiguous()
    save_file(state, stage / WEIGHTS, metadata={"format": "pt"})


@contextmanager
def naming_classes(result: LiveResult) -> Iterator[None]:
    """Give the target the class names of a carried classifier, for as long as the block runs."""
    target: Any = result.target
    labels, before = result.report.head.labels, target.config
    if labels:
        target.config = copy.deepcopy(before)
        target.config.id2label = dict(enumerate(labels))
        target.config.label2id = {name: k for k, name in enumerate(labels)}
    try:
        yield
    finally:
        target.config = before


def _write_delta(stage: Path, result: LiveResult, form: LiveForm, hub: Hub) -> tuple[Path, dict[str, Any], Shaped]:
    """Write the change of the repo or folder that the target was opened from; return where that lies, what opens the
    change, and what is stored.

    Raises:
        PortError: nobody says what it was opened from, or the target is no longer what lies there.
    """
    target, name = result.target, str(form.base) if form.base else result.opened_from()
    if not name:
        raise PortError(
            f"the target does not say what it was opened from, to which a delta is added: name that with "
            f"{setting('base')}"
        )
    pinned = hub.resolve(name)
    library = library_of(pinned.files)
    if library is None or not library.weights(pinned.files):
        raise PortError(f"{pinned} is no model with safe weights, which a delta needs: write form='model'")
    storage = form.storage(library.name)
    if (others := [row.target for row in result.report.beside or ()]) and isinstance(library, Transformers):
        raise PortError(
            f"a {storage.form} of transformers holds linear maps alone, and {listed(others)} moved too: port with "
            f"{setting('only')} linear, or write {setting('form')} model"
        )
    with naming_classes(result) if result.is_transformers else nullcontext():
        purpose = of_model(target)
    base = open_repo(hub, pinned, library, purpose, model=target)
    own = own_head(result, base)
    delta, cuts = storage.truncated(result.delta)
    shaped = storage.stored(delta, form.alpha, cuts)
    transposed = [f"{name}.weight" for name, module in target.named_modules() if is_transposed(module)]
    head = {key: tensor.detach().cpu() for key, tensor in (own | dict(result.head)).items()}
    return (
        base.folder,
        write_delta(stage, base, shaped, head, [key for key in transposed if key in shaped.delta]),
        shaped,
    )


def own_head(result: LiveResult, base: OpenedBase) -> dict[str, Tensor]:
    """Return the target's own classifier, where its repo has none or another.

    Raises:
        PortError: anything else of the live target differs from what its repo holds, so that the change does not belong
            there.
    """
    target = result.target
    on_top = family_of(target).on_top(target)
    other = {
        key: p.detach()
        for key, p in target.named_parameters()
        if key not in result.head and (key not in base.weights or not torch.equal(base.weights[key].to(p), p))
    }
    odd = [key for key in other if key not in on_top or key in result.delta]
    if odd:
        raise PortError(
            f"the target's {listed(odd)} is not what {base.pinned} holds, so its change cannot be added to "
            "that: write form='model', or open the target anew"
        )
    return other


def _copy_extra(stage: Path, result: LiveResult, hub: Hub) -> None:
    """Copy tokenizer, processor and the like from where the target was opened; warn where that is out of reach."""
    name = result.opened_from()
    if not name:
        return
    try:
        pinned = hub.resolve(name)
        extra = Transformers().extra(pinned.files)
        folder = hub.fetch(pinned, extra)
    except PortError as error:
        logger.warning("No tokenizer or processor was copied: %s", error)
        return
    copy_files(folder, stage, [file for file in extra if not (stage / file).exists()])
