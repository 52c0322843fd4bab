"""`hf-bico eval`: models as they are, scored on the same samples as a port would be. Nothing is written."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from hf_bico.core.errors import PortError, setting
from hf_bico.core.method import Track, untracked
from hf_bico.core.methods import Naive
from hf_bico.core.notes import listening
from hf_bico.families.heads import HeadKind
from hf_bico.io.checkpoints import pick_device
from hf_bico.io.hub import Hub
from hf_bico.io.reference import Lineage
from hf_bico.reports.evaluated import EvalReport, ModelScore
from hf_bico.reports.records import Environment, Origin
from hf_bico.tasks.asked import Asked, check_answers, class_order, objective_of
from hf_bico.tasks.columns import parse_columns
from hf_bico.tasks.embeddings import Embedding
from hf_bico.tasks.evaluation import Evaluator
from hf_bico.tasks.overlap import unseen
from hf_bico.tasks.paired import Answered, paired
from hf_bico.tasks.requirements import head_of, require_task
from hf_bico.tasks.samples import Task
from hf_bico.tasks.scores import Score
from hf_bico.tasks.splits import HubDataset
from hf_bico.workflows.choices import ScoringChoices
from hf_bico.workflows.config import EvalConfig
from hf_bico.workflows.early import require_choices
from hf_bico.workflows.opened import Known, known
from hf_bico.workflows.reading import asked_of, dataset_of, scored_parts, task_split
from hf_bico.workflows.recalled import made_from
from hf_bico.workflows.run import Run
from hf_bico.workflows.scored import ScoringPlan, dtype_of, scoring_of
from hf_bico.workflows.scoring import SCORED_AT_ONCE


@dataclass(frozen=True)
class Evaluated:
    """What models scored on the same samples."""

    report: EvalReport
    indices: tuple[int, ...]
    """Rows of the split that were scored."""
    values: tuple[Tensor, ...]
    """Of every model, in order, the values of every sample that its score is made of, (n, m), which paired comparisons
    of the models go by."""

    @property
    def scores(self) -> tuple[Score, ...]:
        """The score of every model, in order."""
        return tuple(each.score for each in self.report.models)


@dataclass(frozen=True)
class _Question:
    """A model, and what it is asked."""

    known: Known
    task: Task
    head: HeadKind


def evaluate(
    refs: str | Path | Sequence[str | Path],
    dataset: str | Path,
    *,
    split: str = "",
    n: int | None = None,
    seed: int = 0,
    config: str | None = None,
    columns: str | None = None,
    templates: Path | None = None,
    streaming: bool = False,
    max_length: int = 256,
    batch_size: int = 8,
    device: str | None = None,
    score_dtype: str | None = None,
    base: str | None = None,
    token: str | None = None,
) -> Evaluated:
    """Score models as they are, by what a port of them would be scored by.

    Args:
        refs: a whole model, a delta or an adapter, each a repo or a folder; or several of these, which are asked about
            the same samples.
        dataset: a Hub dataset, a folder, or a file (csv, json, jsonl, parquet).
        split: the split to score on, or a part of it such as `train[:80%]`; unless given, test or validation.
        n: how many samples of it, drawn by `seed`; all unless given.
        config: the dataset's configuration.
        columns: which column has which role, as role=column,…
        templates: a file of prompts, one a line, {} for the class.
        streaming: read only the first rows of files that are not parquet.
        max_length: the most tokens of a text.
        batch_size: samples in a batch of a port; four times as many are scored at once.
        device: None: an accelerator if there is one, else the CPU.
        score_dtype: by autocast; None: that of the weights.
        base: what deltas and adapters are opened over; None: what they name.
        token: a User Access Token. None: that of `hf auth login` or HF_TOKEN.

    Raises:
        PortError: a model that cannot be opened, or that the samples do not suit.
    """
    names = [refs] if isinstance(refs, str | Path) else refs
    chosen = EvalConfig(
        refs=tuple(map(str, names)),
        dataset=str(dataset),
        split=split,
        n=n,
        seed=seed,
        config=config,
        columns=columns,
        templates=templates,
        streaming=streaming,
        max_length=max_length,
        batch_size=batch_size,
        device=device,
        score_dtype=score_dtype,
        base=base,
    )
    return run(chosen, Hub(token))


def run(config: EvalConfig, hub: Hub, track: Track = untracked) -> Evaluated:
    """Return what the models scored.

    Raises:
        PortError: a model that cannot be opened, or that the samples do not suit.
    """
    running = Run(hub, track)
    with listening(running.notes.append):
        return _run(config, running)


def _run(config: EvalConfig, running: Run) -> Evaluated:
    with running.clock("resolve"):
        require_choices(config)
        scoring = ScoringChoices(eval_n=config.n, score_dtype=config.score_dtype)
        dtype_of(scoring)
        models = [known(each, config.base, running.hub) for each in config.refs]
        dataset = dataset_of(config, running.hub, running.hub.resolve(config.dataset, "dataset"))
        names = scored_parts(dataset, config.split or None)
        asked = [_question(config, each, dataset) for each in models]
        first = asked[0].task
        plan = scoring_of(scoring, names, dataset, first, config.seed)
        _require_one_reading(asked, dataset)
    with running.clock("samples"):
        seen = made_from([each.pinned for each in models], dataset, first, running.hub)
        mend = setting("split")
        indices = unseen(plan.split, plan.name, plan.indices, first, seen, running.track, mend)
    with running.clock("evaluate"):
        found = _scored(config, asked, plan, indices, running)
    lineage = {"dataset": Origin.of(dataset.pinned)}
    told = [_told(name, each.known, score) for name, each, (_, score) in zip(config.refs, asked, found, strict=True)]
    report = EvalReport(
        lineage=lineage,
        split=plan.name,
        n=len(indices),
        seed=None if config.n is None else config.seed,
        overlapping=plan.size - len(indices),
        config=dataset.config,
        dtype=plan.dtype,
        task=first.record(),
        models=_compared(told, found),
        environment=Environment.of(pick_device(config.device), running.clock.seconds),
        notes=tuple(running.notes) or None,
    )
    return Evaluated(report, indices, tuple(values for values, _ in found))


def _compared(told: Sequence[ModelScore], found: Sequence[tuple[Tensor, Score]]) -> tuple[ModelScore, ...]:
    """Return what models scored, each but the first with how it differs from that."""
    first, *others = (Answered.of(score, values) for values, score in found)
    pairs = [None, *(paired(each, first, told[0].name) for each in others)]
    return tuple(replace(each, paired=pair) for each, pair in zip(told, pairs, strict=True))


def _question(config: EvalConfig, model: Known, dataset: HubDataset) -> _Question:
    """Return what a model is asked, by the task that a port of it would read.

    Raises:
        PortError: the samples do not suit it, or it answers them with a head that it does not have.
    """
    name = task_split(dataset)
    task = asked_of(config, dataset, name, dataset.split(name), parse_columns(config.columns), model.purpose)
    require_task(model.purpose, task, Lineage(model.pinned, model.whole, model.whole, dataset.pinned), Naive())
    if model.purpose.labels and task.class_names:
        class_order(task.class_names, model.purpose.labels)
    head = head_of(None, model.purpose, task)
    if head is HeadKind.PROBE:
        raise PortError(
            f"{model.pinned} gives features and has no head for the classes of {dataset.pinned}: name a dataset of "
            "texts with a score, or that belong together, or a model with a classifier"
        )
    if head is HeadKind.NONE and len(config.refs) == 1:
        raise PortError(
            f"{model.pinned} gives features, and {dataset.pinned} has no labels to score them by: name the model that "
            "they are to agree with before it, or a dataset of texts with a score, or that belong together"
        )
    return _Question(model, task, head)


def _require_one_reading(asked: Sequence[_Question], dataset: HubDataset) -> None:
    """Refuse models that read a dataset in different ways, so that they would not be asked about the same samples.

    Raises:
        PortError: they do.
    """
    first = asked[0]
    for each in asked[1:]:
        if (each.task.columns, each.task.labels) != (first.task.columns, first.task.labels):
            raise PortError(
                f"{each.known.pinned} ({each.known.purpose.kind}) reads {dataset.pinned} otherwise than "
                f"{first.known.pinned} ({first.known.purpose.kind}): score them apart"
            )


def _scored(
    config: EvalConfig, asked: Sequence[_Question], plan: ScoringPlan, indices: tuple[int, ...], run: Run
) -> list[tuple[Tensor, Score]]:
    """Return the values of every sample and the score of every model, of which one is held at a time."""
    found: list[tuple[Tensor, Score]] = []
    size, device = SCORED_AT_ONCE * config.batch_size, pick_device(config.device)
    for question, name in zip(asked, config.refs, strict=True):
        model = _opened(question, config, run.hub, device, plan)
        check_answers(model, plan.split, plan.name, indices, question.task)
        evaluator = Evaluator(question.task, plan.name, plan.split, indices, size, run.track)
        values = evaluator.per_sample(name, model)
        reference = None if question.head is not HeadKind.NONE else (found[0][0] if found else values)
        found.append((values, model.objective.score(values, reference)))
    return found


def _opened(question: _Question, config: EvalConfig, hub: Hub, device: str, plan: ScoringPlan) -> Asked:
    """Return a model, live, with its objective and all that is behind it."""
    known, task = question.known, question.task
    loaded = known.load(device)
    objective = objective_of(loaded, known.library, known.purpose, task, config.max_length, text_moves=False)
    if isinstance(objective, Embedding) and known.purpose.sentence is not None:
        extra = known.library.extra(known.pinned.files)
        dense = known.purpose.sentence.layers(hub.fetch(known.pinned, extra))
        objective = replace(objective, dense=dense)
    return Asked(loaded, objective, plan.dtype)


def _told(name: str, known: Known, score: Score) -> ModelScore:
    return ModelScore(
        name=name,
        model=Origin.of(known.pinned),
        base=None if known.base is None else Origin.of(known.base),
        form=known.form,
        purpose=known.purpose.kind.value,
        score=score,
    )
