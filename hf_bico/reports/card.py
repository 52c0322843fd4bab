"""A report as a model card: of a port, of a port between live models, and of maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from markupsafe import Markup

from hf_bico.core.account import Left
from hf_bico.core.transport import Moved
from hf_bico.core.types import INPUTS, Fit, Signal
from hf_bico.families import Library, Purpose, PurposeKind
from hf_bico.families.purposes import TASKS, kind_of
from hf_bico.reports.figures import MATCHING_FILE
from hf_bico.reports.markdown import inline, render
from hf_bico.reports.records import LayerRow, MatchingRecord
from hf_bico.reports.report import Evaluation, MapsReport, PortReport
from hf_bico.tasks.scores import METRICS, Score


@dataclass(frozen=True)
class Opening:
    """How the model beside a card is opened, and what it is for."""

    library: str | None
    """`library_name` of the whole model."""
    task: str | None
    """The Hub's name of what the model does, its `pipeline_tag`."""
    native: str
    """Python that loads the whole model with its own library."""
    labels: tuple[str, ...] = ()
    """A classifier's classes."""
    zero_shot: bool = False
    """Whether it answers with the texts of the classes."""

    @classmethod
    def of(cls, library: Library, purpose: Purpose, repo: str | None) -> "Opening":
        """Return how the model of a repo is opened; without a repo, that of the folder in which the card lies."""
        if purpose.sentence is not None:
            load = "from sentence_transformers import SentenceTransformer\n\n"
            load += f'model = SentenceTransformer("{repo or "."}")'
            return cls("sentence-transformers", "sentence-similarity", load)
        return cls(
            library.name,
            library.task_type(purpose),
            library.snippet(repo or ".", purpose),
            purpose.labels,
            purpose.kind is PurposeKind.ZERO_SHOT,
        )

    @classmethod
    def of_live(cls, name: str, repo: str | None, *, transformers: bool) -> "Opening":
        """Return how a live model is opened once it is written.

        Args:
            name: the model's class.
            transformers: whether transformers opens it; else it is a state dict alone.
        """
        if transformers:
            load = f'from transformers import {name}\n\nmodel = {name}.from_pretrained("{repo or "."}")'
            kind = kind_of(name)
            return cls("transformers", TASKS.get(kind) if kind else None, load)
        what = f"# the state dict of a {name}"
        if repo is None:
            load = f'from safetensors.torch import load_file\n\ntensors = load_file("model.safetensors")  {what}'
        else:
            load = (
                "from huggingface_hub import hf_hub_download\nfrom safetensors.torch import load_file\n\n"
                f'tensors = load_file(hf_hub_download("{repo}", "model.safetensors"))  {what}'
            )
        return cls(None, None, load)


def write_card(
    folder: Path, report: PortReport, opening: Opening, repo: str | None, licenses: Sequence[str] = ()
) -> None:
    """Write the README.md of a port: metadata for the Hub, and a body that says how it was made and how to redo it.

    Args:
        licenses: of the target, then of the source, each once; live models do not say theirs.
    """
    lineage, scores = report.lineage, report.evaluation
    name = repo or "-on-".join(lineage[role].name.split("/")[-1] for role in ("source", "target"))
    text = render(
        "card.md.j2",
        card_data=metadata(report, opening, name, licenses).to_yaml(),
        name=name,
        report=report,
        rows=_scored(scores) if scores else [],
        snippet=snippet(report, opening, repo or "."),
        licenses=licenses,
        metric=METRICS[scores.ported.metric] if scores else None,
        zero_shot=opening.zero_shot,
        matched=report.matching and _matched(report.matching),
        picture=MATCHING_FILE if (folder / MATCHING_FILE).exists() else None,
        sampled=_sampled(report),
        blocks=_blocks(report.layers),
        maps=_maps(report.moved),
        left=_left(report.left),
    )
    ModelCard(text).save(folder / "README.md")


def _scored(scores: Evaluation) -> list[tuple[str, Score]]:
    """Return the evaluation's rows, the model's own in bold."""
    *others, (label, ported) = scores.rows
    return [*others, (Markup(f"**{inline(label)} (this model)**"), ported)]


def metadata(report: PortReport, opening: Opening, name: str, licenses: Sequence[str]) -> ModelCardData:
    """Return the card's YAML. Only what lies on the Hub is named as base or dataset."""
    lineage, whole = report.lineage, report.task_vector.whole
    base, dataset = (
        lineage[role] if role in lineage and not lineage[role].local else None for role in ("target", "dataset")
    )
    opens = opening.library if whole else "peft" if opening.library == "transformers" else "hf-bico"
    measured: dict[str, Any] = {}
    if report.evaluation:
        origins = {role: entry.name + (f"@{entry.commit}" if entry.commit else "") for role, entry in lineage.items()}
        measured = {
            **_license(licenses),
            "hf_bico_lineage": origins,
            "eval_results": [_result(report, report.evaluation, opening)],
        }
    return ModelCardData(
        model_name=name,
        base_model=base.name if base else None,
        base_model_relation=("finetune" if whole else "adapter") if base else None,
        datasets=[dataset.name] if dataset else None,
        library_name=opens,
        pipeline_tag=opening.task,
        tags=["hf-bico", "task-vector", "model-merging", report.method.name],
        **measured,
    )


def _result(report: PortReport, scores: Evaluation, opening: Opening) -> EvalResult:
    """Return the port's score as the Hub reads it."""
    task, ported, dataset = opening.task, scores.ported, report.lineage["dataset"]
    assert task is not None  # there is one, for what is scored here comes from a repo
    return EvalResult(
        task_type=task,
        task_name=task.replace("-", " ").title(),
        metric_type=METRICS[ported.metric].hub or ported.metric.replace(" ", "_"),
        metric_name=METRICS[ported.metric].title,
        metric_value=round(ported.value, 6),
        dataset_type="local" if dataset.local else dataset.name,
        dataset_name=dataset.name,
        dataset_config=report.calibration.config,
        dataset_split=scores.split,
        dataset_revision=dataset.commit,
    )


def snippet(report: PortReport, opening: Opening, repo: str) -> str:
    """Return Python that opens the port: with its own library, and with hf_bico where it is not a whole model."""
    if report.task_vector.whole:
        return opening.native
    pinned = report.lineage["target"].commit
    base = "" if pinned else ', base="where the base lies"'
    ours = f'import hf_bico\n\nmodel, preprocess, tokenizer = hf_bico.from_pretrained("{repo}"{base})'
    if opening.library != "transformers" or not pinned:  # PEFT would look for the folder's name on the Hub
        return ours
    built = f", num_labels={len(opening.labels)}" if opening.labels else ""
    native = opening.native.replace(f'"{repo}")', f'"{repo}"{built})', 1)
    return f"# with peft installed\n{native}\n\n# or, with the base's weights checked\n{ours}"


def _license(licenses: Sequence[str]) -> dict[str, str]:
    """Return the licence that a filter on the Hub reads: `other` where target and source have different ones."""
    if len(licenses) > 1:
        return {"license": "other", "license_name": " and ".join(licenses)}
    return {"license": licenses[0] if licenses else "unknown"}


def _sampled(report: PortReport) -> bool:
    """Return whether the calibration samples had a say: in the statistics, the method's steps, or the search for α."""
    method = report.method
    return bool(set(method.signals) - {Signal.WEIGHT.value} or method.search or report.polish or not report.moved)


def _matched(matching: MatchingRecord) -> str:
    """Return the rule that blocks were matched by, and what it goes by."""
    why = {
        "index": "the paper's rule, both stacks from end to end in even steps",
        "cka": "the monotone assignment with the largest sum of CKA between the blocks' inputs on the samples",
    }
    return f"{matching.rule} ({why.get(matching.rule, 'a file of pairs')})"


def _blocks(layers: Sequence[LayerRow]) -> list[dict[str, str]]:
    """Return a row for every block: which block of the base it takes from, and its widths."""

    def label(tower: str, depth: int | None) -> str:
        return f"{tower} {'outside the blocks' if depth is None else depth}".strip()

    return [
        {
            "target": label(row.tower, row.target),
            "source": label(row.tower, row.source),
            "sites": "; ".join(
                f"{s.role} {'×'.join(map(str, s.source))} → {'×'.join(map(str, s.target))}" for s in row.sites
            ),
        }
        for row in layers
    ]


def _maps(moved: Sequence[Moved]) -> list[dict[str, str]]:
    """Return a row for every site that has maps: rank and residual of both sides, and the share of τ in their span."""

    def side(fit: Fit | None) -> str:
        return f"{fit.rank} of {fit.full}, {fit.residual:.3f}" if fit else "as it is"

    return [
        {
            "target": row.target,
            "source": row.source,
            "output": side(row.output),
            "input": side(row.input),
            "kept": f"{row.kept:.1%}",
        }
        for row in moved
        if row.output or row.input
    ]


def _left(left: Sequence[Left]) -> list[dict[str, Any]]:
    """Return what stays behind, by reason."""
    reasons: dict[str, list[float]] = {}
    for row in left:
        reasons.setdefault(row.reason, []).append(row.norm**2)
    return [{"reason": reason, "count": len(norms), "norm": sum(norms) ** 0.5} for reason, norms in reasons.items()]


def write_maps_card(folder: Path, report: MapsReport, repo: str | None, endpoint: str) -> None:
    """Write the README.md beside maps: between which bases, made from what, and how a fine-tune is ported over them.

    Args:
        endpoint: the Hub's address, for links.
    """
    source, target, calibration = report.source, report.target, report.calibration
    name = repo or "-to-".join(side["name"].split("/")[-1] for side in (source, target)) + "-maps"
    data = ModelCardData(
        model_name=name,
        base_model=None if target["local"] else target["name"],
        library_name="hf_bico",
        datasets=None if calibration["local"] else [calibration["dataset"]],
        tags=["hf-bico", "hf-bico-maps", "task-vector", report.method.name],
    )
    text = render(
        "maps_card.md.j2",
        card_data=data.to_yaml(),
        name=name,
        record=report,
        endpoint=endpoint,
        repo=repo or "FOLDER",
        labelled=bool(set(report.method.signals) - {signal.value for signal in INPUTS}),
        size=sum(file["bytes"] for file in report.files.values()),
        mean=_means(report.maps),
    )
    ModelCard(text).save(folder / "README.md")


def _means(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return for either side the mean share of directions that the samples determine, and the mean residual."""
    found = {}
    for side in ("output", "input"):
        fits = [row[side] for row in rows if row[side]]
        if fits:
            found[side] = {
                "share": sum(fit["rank"] / fit["full"] for fit in fits) / len(fits),
                "residual": sum(fit["residual"] for fit in fits) / len(fits),
            }
    return found
