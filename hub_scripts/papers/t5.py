"""Texts: T5's encoder, fine-tuned with a linear head, compared under linear probes of the calibration samples."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from hf_bico.core.collect import Batch, Side
from hf_bico.core.compare import compare as compare_methods
from hf_bico.core.errors import PortError
from hf_bico.core.methods import Job
from hf_bico.io.writer import staged
from hf_bico.tasks.strategies import Calibration, chosen
from hf_bico.workflows.compare import calibrations_of
from hf_bico.workflows.compare import chosen as chosen_methods
from hf_bico.workflows.live import job_of
from hub_scripts.papers.ledger import REFERENCE, SOURCE, ZERO, Ledger, name_of
from hub_scripts.papers.plan import Cell, FineTune, Unit, key_of
from hub_scripts.papers.spec import Spec
from hub_scripts.papers.texts import Texts, load, load_tokenizer, read
from hub_scripts.papers.tune import Run, card, endless, learn, parted
from hub_scripts.world.text.probe import fit_probe, pooled, probe_loss


def fine_tune(spec: Spec, tune: FineTune, run: Run) -> None:
    """The encoder after the protocol's steps with a linear head on its mean output, which is then dropped.

    The token table stays as it is: no port would move it.
    """
    entry, protocol, ref = spec.datasets[tune.dataset], spec.protocols["t5"], spec.models[tune.model].ref
    torch.manual_seed(protocol.seed)
    model, tokenizer = load(ref, run), load_tokenizer(ref, run)
    texts = read(entry, entry.split, tokenizer, protocol.length, run)
    rows, kept = parted(len(texts), protocol)
    head = nn.Linear(model.config.d_model, int(texts.labels.max()) + 1).to(run.device)
    model.to(run.device).train().requires_grad_(True).shared.requires_grad_(False)

    def loss(batch: tuple[Tensor, ...]) -> Tensor:
        ids, mask, labels = (tensor.to(run.device) for tensor in batch)
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
        mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return F.cross_entropy(head(mean), labels, reduction="sum")

    loader = DataLoader(
        rows,
        protocol.batch,
        shuffle=True,
        collate_fn=texts.padded,
        generator=torch.Generator().manual_seed(protocol.seed),
    )
    parameters = [p for p in (*model.parameters(), *head.parameters()) if p.requires_grad]
    learn(parameters, loss, endless(loader), protocol, run.size, run.track, f"Fine-tuning {tune}")
    model.eval().requires_grad_(False)
    fitted = head.weight.detach(), head.bias.detach()
    score = accuracy(model, fitted, texts.of(kept), run) if kept else None
    with staged(run.place(spec, tune)) as stage:
        model.cpu().save_pretrained(stage)
        tokenizer.save_pretrained(stage)
        (stage / "README.md").write_text(card(spec, tune, "transformers", score), encoding="utf-8")


@torch.no_grad()
def probe(model: nn.Module, texts: Texts, classes: int, run: Run) -> tuple[Tensor, Tensor]:
    """A linear probe of the model's own features, on the device."""
    rows, labels = zip(
        *((pooled(model, ids).cpu(), labels.cpu()) for ids, labels in texts.batches(run.size, run.device)), strict=True
    )
    weight, bias = fit_probe(torch.cat(rows), torch.cat(labels), classes)
    return weight.to(run.device), bias.to(run.device)


@torch.no_grad()
def accuracy(model: nn.Module, fitted: tuple[Tensor, Tensor], texts: Texts, run: Run) -> float:
    """The share of texts that a probe gets right."""
    weight, bias = fitted
    right = sum(
        int(((pooled(model, ids) @ weight.T + bias).argmax(1) == labels).sum())
        for ids, labels in texts.batches(run.size, run.device)
    )
    return right / len(texts)


@dataclass(frozen=True)
class Task:
    """The texts of a comparison, and how an encoder is scored on them."""

    train: Texts
    test: Texts
    classes: int
    run: Run

    @classmethod
    def of(cls, spec: Spec, unit: Unit, run: Run) -> Task:
        """
        Raises:
            PortError: the two models do not read the same tokens.
        """
        entry, length = spec.datasets[unit.dataset], spec.protocols["t5"].length
        words = [load_tokenizer(spec.models[name].ref, run) for name in (unit.source, unit.target)]
        test, other = (read(entry, entry.eval_split, each, length, run, entry.eval_n) for each in words)
        if test.ids != other.ids:
            raise PortError(f"{unit.source} and {unit.target} split texts into different tokens: no port between them")
        train = read(entry, entry.split, words[0], length, run)
        return cls(train, test, int(train.labels.max()) + 1, run)

    def drawn(self, choice: Calibration) -> Texts:
        counts = torch.as_tensor(self.train.labels).bincount(minlength=self.classes)
        if choice.per_class is not None and counts.min() < choice.per_class:
            raise PortError(f"{choice.per_class} samples of every class asked for, one class has {int(counts.min())}")
        return self.train.of(chosen(self.train.labels, choice.kind, choice.size(self.classes), choice.seed))

    def score(self, model: nn.Module, few: Texts) -> float:
        """Under a fresh probe of the calibration samples."""
        return accuracy(model, probe(model, few, self.classes, self.run), self.test, self.run)


def compare(spec: Spec, unit: Unit, tuned: dict[str, str], run: Run, ledger: Ledger) -> None:
    """All cells of a comparison into the ledger, each as it is done.

    Args:
        tuned: the fine-tune's ref or folder, by the model's name.
    """
    config = unit.config()
    task, methods = Task.of(spec, unit, run), chosen_methods(config)
    base, target, source = (
        load(ref, run) for ref in (spec.models[unit.source].ref, spec.models[unit.target].ref, tuned[unit.source])
    )
    idle = job_of(tuned=source, base=base, target=target, calibration=(), loss=_no_loss, only=["linear"])
    for model in (base, target, source):  # the job's tensors stay where they are: on the CPU
        model.to(run.device)
    reference = cache(lambda: load(tuned[unit.target], run).to(run.device))
    for choice in calibrations_of(config):
        few, size = task.drawn(choice), choice.per_class or choice.size(0)
        once = partial(ledger.once, key_of(spec, unit), size, choice.seed)
        for what, model in ((ZERO, lambda: target), (SOURCE, lambda: source), (REFERENCE, reference)):
            once(what, lambda model=model, few=few: task.score(model(), few))
        rows = compare_methods(
            job_on(idle, task, few),
            methods,
            len(few),
            partial(task.score, few=few),
            alphas=unit.alphas,
            once=once,
            track=run.track,
        )
        for row in rows:
            once(name_of(Cell(size, choice.seed, row.method, row.alpha)), lambda row=row: asdict(row))


def job_on(idle: Job, task: Task, few: Texts) -> Job:
    """The same port with these samples; the losses are under either base's own probe of them."""
    sides = [
        Side(side.model, probe_loss(*probe(side.model, few, task.classes, task.run)))
        for side in (idle.base, idle.target)
    ]
    batches = [Batch(batch, batch) for batch in few.batches(task.run.size, task.run.device)]
    return replace(idle, base=sides[0], target=sides[1], batches=lambda: batches)


def _no_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    raise AssertionError("the losses come with the samples, from their probes")
