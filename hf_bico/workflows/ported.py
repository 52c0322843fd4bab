"""A port between live models as data, as a folder and as a repo."""

import copy
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from hf_bico.core.collect import frozen
from hf_bico.core.errors import PortError, listed
from hf_bico.core.methods import Job, Method
from hf_bico.core.transport import Account, Moved, added, check_scale, holding
from hf_bico.core.types import Tensors
from hf_bico.families import Transformers, family_of, library_of
from hf_bico.families.layout import is_transposed
from hf_bico.families.purposes import of_model
from hf_bico.io.changes.delta import SECTION, OpenedBase
from hf_bico.io.changes.forms import LORA, MODEL, Shaped, as_products, check_form
from hf_bico.io.changes.forms import stored as kept_as
from hf_bico.io.changes.peft import write_delta
from hf_bico.io.changes.source import opening_files
from hf_bico.io.checkpoints import Named, SafeTensors
from hf_bico.io.hub import Hub, cached_commit
from hf_bico.io.reference import Lineage, Pinned
from hf_bico.io.writer import copy_files, require_room, staged
from hf_bico.reports.card import write_live_card
from hf_bico.reports.report import (
    SCHEMA,
    Clock,
    environment,
    layer_table,
    method_record,
    stamp,
    task_vector_record,
    write_report,
)
from hf_bico.workflows.destination import destination_of

UNNAMED = "a model in memory"
WEIGHTS = "model.safetensors"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kind:
    """What is written: see `Ported.save_pretrained`."""

    alpha: float
    form: str
    rank: int | None
    energy: float | None
    dtype: str | None
    base: str | None


@dataclass(frozen=True)
class Ported:
    """What a fine-tune learned, in the coordinates of the new base."""

    target: nn.Module
    delta: Tensors
    """The target's change by state-dict name, at α = 1; tensors that do not change are not in it."""
    head: dict[str, Tensor]
    """Tensors of the target's classifier that take the place of its own, whatever α is; empty where it stays."""
    moved: list[Moved]
    account: Account
    record: dict[str, Any] = field(repr=False)
    """How it was made, as plain JSON data."""
    scores: dict[str, float] = field(default_factory=dict)
    """What was measured, by name; see `evaluate`."""
    applied: list[float] = field(default_factory=list, repr=False)
    """The α of every `apply_`."""

    @property
    def report(self) -> dict[str, Any]:
        """Plain JSON data: method and options, pairs, ranks and residuals, what was left and why, ‖τ‖, samples,
        environment, seconds, and scores if any were measured."""
        return self.record | {"scores": dict(self.scores)}

    def tensors(self, alpha: float = 1.0) -> dict[str, Tensor]:
        """θ_B + α τ_B, and the head: what of the target changes, in its own dtype. The target stays as it is.

        Raises:
            PortError: a scale or a sum that is NaN or Inf; the port is in the target already.
        """
        if self.applied:
            raise PortError(
                "the port is in the target already (apply_), and would be added twice: evaluate and save "
                "it before apply_, or save the target itself"
            )
        state = self.target.state_dict()
        return dict(added(state, self.delta, alpha)) | {key: tensor.to(state[key]) for key, tensor in self.head.items()}

    def apply_(self, alpha: float = 1.0) -> nn.Module:
        """θ_B ← θ_B + α τ_B, in place; the target, which now knows the task: a warm start for training. A second time
        adds it once more."""
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
        """Score the target without the port and with it, and keep both for the card; it is as it was afterwards.

        Args:
            score: of a model, in eval mode and without gradients, on samples that the calibration did not see.
            metric: what the card calls it.
        """

        found = measured(self, score, metric, alpha)
        self.scores.update(found)
        return found

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
    ) -> Path:
        """Write θ_B + α τ_B, or α τ_B alone, as a folder with its card and hf_bico.json; the target stays as it is.

        Args:
            folder: a new or an empty one.
            form: model; or delta or lora of the repo or folder that the target was opened from.
            rank, energy: of a lora: the rank, or the share of every layer's ‖τ_B‖² that is kept; all unless given.
            dtype: of a delta's matrices: bfloat16 or float32; bfloat16 unless that is measurable.
            base: of a delta or lora, where the target does not say itself what it was opened from.
            scores: measured values for the card, by name, beside those of `evaluate`.

        Raises:
            PortError: the folder is in use, the disk is full, a sum that is NaN or Inf; the target does not hold what
                its repo holds.
        """

        return save(self, Path(folder).expanduser(), Kind(alpha, form, rank, energy, dtype, base), scores or {})

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
        """The same as one commit to a repo, or one pull request; its URL.

        Raises:
            PortError: no token that may write there, a repo that holds something else or moved meanwhile.
        """

        return push(
            self,
            repo,
            Kind(alpha, form, rank, energy, dtype, base),
            scores or {},
            private=private,
            token=token,
            commit_message=commit_message,
            create_pr=create_pr,
        )


def lineage_of(tuned: nn.Module | Tensors, base: nn.Module, target: nn.Module) -> dict[str, dict[str, Any]]:
    """What the models say of where they come from. A fine-tune in training still has its base's name: it is none."""
    found = {"source": _named(tuned), "base": _named(base), "target": _named(target)}
    if found["source"]["name"] in (found["base"]["name"], UNNAMED):
        found["source"] = _entry(f"a fine-tune of {found['base']['name']}", None, local=True)
    return found


def _named(model: Any) -> dict[str, Any]:
    config = getattr(model, "config", None)
    name = getattr(config, "_name_or_path", "") or ""
    if not name:
        return _entry(UNNAMED, None, local=True)
    if Path(name).is_dir():
        return _entry(Path(name).resolve().name, None, local=True)
    return _entry(name, getattr(config, "_commit_hash", None) or cached_commit(name), local=False)


def _entry(name: str, commit: str | None, *, local: bool) -> dict[str, Any]:
    return {"name": name, "commit": commit, "local": local}


def record_of(
    lineage: dict[str, dict[str, Any]],
    method: Method,
    job: Job,
    ratio: float,
    whole: Account,
    moved: list[Moved],
    head: dict[str, Any],
    clock: Clock,
) -> dict[str, Any]:
    """The report of a port between live models, but for scores.

    Args:
        ratio: ‖τ‖/‖θ_A‖
    """
    shown = job.batches()
    device = str(next(job.target.model.parameters()).device)
    return {
        **stamp(SCHEMA),
        "live": True,
        "lineage": lineage,
        "method": method_record(method),
        "calibration": {"n": shown.samples, "batches": len(shown.hashes), "content_sha256": shown.sha256},
        "task_vector": task_vector_record(ratio, whole, moved),
        "layers": layer_table(tuple(job.pairs)),
        "head": head,
        "moved": [asdict(entry) for entry in moved],
        "left": [asdict(entry) for entry in whole.left],
        "environment": environment(device, clock),
    }


def measured(ported: Ported, score: Callable[[nn.Module], float], metric: str, alpha: float) -> dict[str, float]:
    """The target's score without the port and with it."""
    with frozen(ported.target) as target, torch.no_grad():
        without = float(score(target))
        with holding(target, ported.tensors(alpha).items()):
            return {
                f"{metric} of the new base without the port": without,
                f"{metric} with the port (α = {alpha:g})": float(score(target)),
            }


def save(ported: Ported, folder: Path, kind: Kind, scores: Mapping[str, float]) -> Path:
    """See `Ported.save_pretrained`."""
    state = ported.target.state_dict()
    require_room(folder, sum(tensor.nbytes for tensor in state.values()))
    with staged(folder) as stage:
        write(stage, ported, kind, scores, None, Hub())
    return folder


def push(
    ported: Ported,
    repo: str,
    kind: Kind,
    scores: Mapping[str, float],
    *,
    private: bool | None,
    token: str | None,
    commit_message: str | None,
    create_pr: bool,
) -> str:
    """See `Ported.push_to_hub`."""
    hub, names = Hub(token), ported.record["lineage"]
    pinned = [Pinned(names[role]["name"], names[role]["commit"], ()) for role in ("source", "base", "target")]
    lineage = Lineage(*pinned, dataset=Pinned("", None, (), kind="dataset"))
    size = ported.record["task_vector"]["relative_norm"]

    def same(report: Mapping[str, Any]) -> bool:
        """Two fine-tunes in memory have no names that tell them apart; the sizes of their changes do."""
        return report.get("task_vector", {}).get("relative_norm") == size

    destination = destination_of(
        lineage,
        hub,
        push=True,
        push_to=repo,
        private=private,
        create_pr=create_pr,
        commit_message=commit_message,
        form=kind.form,
        same=same,
    )
    message = commit_message or f"Port {pinned[0].name} to {pinned[2].name}"
    with tempfile.TemporaryDirectory(prefix="hf-bico-") as folder:
        place = Path(folder) / "ported"
        with staged(place) as stage:
            write(stage, ported, kind, scores, destination.repo, hub)
        return hub.push(
            place,
            destination.repo,
            parent=destination.parent,
            message=message,
            private=private,
            create_pr=create_pr,
            stale=() if create_pr else destination.left_over,
        )


def write(stage: Path, ported: Ported, kind: Kind, scores: Mapping[str, float], repo: str | None, hub: Hub) -> None:
    """The folder of a port: the model or its change, what opens it, its report and its card."""
    stage.mkdir()
    report = ported.report | {"alpha": kind.alpha, "scores": kept_scores(ported.scores, kind) | dict(scores)}
    check_scale(kind.alpha)
    check_form(kind.form, kind.rank, kind.energy, kind.dtype, "transformers")
    if kind.form == MODEL:
        _write_model(stage, ported, kind.alpha, hub)
        shaped = Shaped(ported.delta, kind.alpha)
    else:
        report[SECTION], shaped = _write_delta(stage, ported, kind, hub)
        report["lineage"] = report["lineage"] | {
            "target": _entry(
                report[SECTION]["base"], report[SECTION]["commit"], local=report[SECTION]["commit"] is None
            )
        }
    report["task_vector"] = report["task_vector"] | {"written": shaped.record(kind.form)}
    write_report(stage, report)
    write_live_card(stage, report, repo, type(ported.target).__name__, is_transformers(ported.target))


def kept_scores(scores: Mapping[str, float], kind: Kind) -> dict[str, float]:
    """Without those of `evaluate` that are of another model than what is written: of another α, or before a cut."""
    cut = kind.rank is not None or kind.energy is not None
    other = [name for name in scores if "(α = " in name and (cut or f"(α = {kind.alpha:g})" not in name)]
    if other:
        logger.warning("Left off the card: %s; what is written is another model", ", ".join(other))
    return {name: value for name, value in scores.items() if name not in other}


def is_transformers(model: nn.Module) -> bool:
    return hasattr(model, "save_pretrained") and hasattr(model, "config")


def _write_model(stage: Path, ported: Ported, alpha: float, hub: Hub) -> None:
    """The whole target: natively if it is of transformers, with its tokenizer and processor; else its state dict."""
    target = ported.target
    state = target.state_dict() | ported.tensors(alpha)
    if is_transformers(target):
        with naming(target, ported):
            target.save_pretrained(stage, state_dict=state)
        _copy_extra(stage, ported, hub)
        return
    held: set[int] = set()
    for key, tensor in state.items():  # safetensors takes no two names of one storage
        shared = tensor.data_ptr() in held
        held.add(tensor.data_ptr())
        state[key] = tensor.detach().clone() if shared else tensor.detach().contiguous()
    save_file(state, stage / WEIGHTS, metadata={"format": "pt"})


@contextmanager
def naming(target: nn.Module, ported: Ported) -> Iterator[None]:
    """The target with the names of classes that a carried classifier has."""
    labels, before = ported.record["head"].get("labels"), target.config
    if labels:
        target.config = copy.deepcopy(before)
        target.config.id2label = dict(enumerate(labels))
        target.config.label2id = {name: k for k, name in enumerate(labels)}
    try:
        yield
    finally:
        target.config = before


def _write_delta(stage: Path, ported: Ported, kind: Kind, hub: Hub) -> tuple[dict[str, Any], Shaped]:
    """The change of the repo or folder that the target was opened from, and what it was rounded to.

    Raises:
        PortError: nobody says what that is, or the target is no longer what lies there.
    """
    target = ported.target
    name = (kind.base and str(kind.base)) or getattr(getattr(target, "config", None), "_name_or_path", "")
    if not name:
        raise PortError(
            "the target does not say what it was opened from, which a delta is added to: name that with base="
        )
    pinned = hub.resolve(name if kind.base else opened_from(ported, name))
    library = library_of(pinned.files)
    if library is None or not library.weights(pinned.files):
        raise PortError(f"{pinned} is no model with safe weights, which a delta needs: write form='model'")
    check_form(kind.form, kind.rank, kind.energy, kind.dtype, library.name)
    folder = hub.fetch(pinned, opening_files(library, pinned))
    stored = SafeTensors.of(library, pinned, folder)
    with naming(target, ported) if is_transformers(target) else nullcontext():
        purpose = of_model(target)
    base = OpenedBase(pinned, library, purpose, folder, Named(stored, library.names(target, stored)))
    own = own_head(ported, base)
    delta, cuts = ported.delta, ()
    if kind.form == LORA:
        delta, cuts = as_products(delta, kind.rank, kind.energy)
    shaped = kept_as(delta, kind.alpha, "float32" if kind.form == LORA else kind.dtype, cuts)
    transposed = [f"{name}.weight" for name, module in target.named_modules() if is_transposed(module)]
    head = {key: tensor.detach().cpu() for key, tensor in (own | ported.head).items()}
    return write_delta(stage, base, shaped, head, [key for key in transposed if key in shaped.delta]), shaped


def own_head(ported: Ported, base: OpenedBase) -> dict[str, Tensor]:
    """The target's own classifier, where its repo has none or another.

    Raises:
        PortError: anything else of the live target is not what its repo holds, so that the change is not that of the
            repo; the port is in the target already.
    """
    ported.tensors(0.0)  # refuses where it is
    on_top = family_of(ported.target).on_top(ported.target)
    other = {
        key: p.detach()
        for key, p in ported.target.named_parameters()
        if key not in ported.head and (key not in base.weights or not torch.equal(base.weights[key].to(p), p))
    }
    odd = [key for key in other if key not in on_top or key in ported.delta]
    if odd:
        raise PortError(
            f"the target's {listed(odd)} is not what {base.pinned} holds, so its change cannot be added to "
            "that: write form='model', or open the target anew"
        )
    return other


def opened_from(ported: Ported, name: str) -> str:
    """The target's name as a reference, at its commit where that is known."""
    commit = ported.record["lineage"]["target"]["commit"]
    return name if Path(name).is_dir() else f"hf://{name}" + (f"@{commit}" if commit else "")


def _copy_extra(stage: Path, ported: Ported, hub: Hub) -> None:
    """Tokenizer, processor and the like of where the target was opened from; a warning where that is out of reach."""
    name = getattr(ported.target.config, "_name_or_path", "")
    if not name:
        return
    try:
        pinned = hub.resolve(opened_from(ported, name))
        extra = Transformers().extra(pinned.files)
        folder = hub.fetch(pinned, extra)
    except PortError as error:
        logger.warning("No tokenizer or processor was copied: %s", error)
        return
    copy_files(folder, stage, [file for file in extra if not (stage / file).exists()])
