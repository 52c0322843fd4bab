"""A report as a model card: of a port, of a port between live models, and of maps."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from markupsafe import Markup

from hf_bico.core.account import Left
from hf_bico.core.errors import PortError
from hf_bico.core.types import INPUTS, Signal
from hf_bico.reports.figures import MATCHING_FILE, SCORES_FILE
from hf_bico.reports.markdown import inline, render
from hf_bico.reports.opening import SENTENCES, Opening, Used
from hf_bico.reports.records import MatchingRecord, Origin
from hf_bico.reports.report import Evaluation, MapsReport, PortReport
from hf_bico.reports.usage import loads
from hf_bico.reports.worth import Word, resting
from hf_bico.tasks.paired import ClassChange, shown_difference
from hf_bico.tasks.scores import METRICS, Score

MARKER = "<!-- What stands below this line is kept when `hf-bico card` writes this card anew. -->"


def write_card(folder: Path, report: PortReport, endpoint: str, kept: str = "") -> None:
    """Write the README.md of a port beside its pictures: metadata for the Hub, and a body that says what it is worth,
    how it is used, how it was made and how to redo it. What stands below the marker of a card that is there stays.

    Args:
        endpoint: the Hub's address, for links.
        kept: Markdown for below the marker, where there is no card yet.
    """
    place = folder / "README.md"
    text = place.read_text(encoding="utf-8") if place.exists() else ""
    pictures = {each for each in (SCORES_FILE, MATCHING_FILE) if (folder / each).exists()}
    ModelCard(card_text(report, endpoint, pictures, kept_of(text) or kept)).save(place)


def kept_of(card: str) -> str:
    """Return what stands below the marker of a card; empty where there is no marker."""
    return card.split(MARKER, 1)[1].strip() if MARKER in card else ""


def card_text(report: PortReport, endpoint: str, pictures: Collection[str], kept: str = "") -> str:
    """Return the card of a port.

    Args:
        pictures: names of the pictures that lie beside it.
        kept: Markdown that its owner wrote, for below the marker.

    Raises:
        PortError: the report was written by a version that did not say how the model is opened.
    """
    opening, lineage, scores = report.opening, report.lineage, report.evaluation
    if opening is None:
        raise PortError("its report was written before cards could be made of it: port again to get a card")
    name = opening.repo or "-on-".join(lineage[role].name.split("/")[-1] for role in ("source", "target"))
    licenses, whole = report.licenses or (), report.task_vector.whole
    return render(
        "card.md.j2",
        card_data=metadata(report, opening, name, licenses).to_yaml(),
        name=name,
        report=report,
        links={role: _link(entry, role, endpoint) for role, entry in lineage.items()},
        link_of=lambda entry: _link(entry, "dataset", endpoint),
        word=WORDS[report.verdict.word] if report.verdict else None,
        rows=_scored(scores) if scores else [],
        changes=_changes(scores) if scores else [],
        classes=_extremes(scores.classes or ()) if scores else None,
        opening=opening,
        sentences=opening.library == SENTENCES,
        packages=opening.packages(whole=whole),
        uses=opening.used
        or [Used(code) for code in loads(opening, whole=whole, pinned=bool(lineage["target"].commit))],
        licenses=licenses,
        few=resting(scores.ported) if scores else "",
        metric=METRICS[scores.ported.metric] if scores else None,
        matched=report.matching and _matched(report.matching),
        pictures=pictures,
        sampled=_sampled(report),
        left=_left(report.left),
        mapped=any(row.output or row.input for row in report.moved),
        difference=shown_difference,
        flops=_flops(report),
        marker=Markup(MARKER),
        kept=Markup(kept),
    )


WORDS = {
    Word.WORKS: "Works",
    Word.PARTLY: "Works in part",
    Word.NO_GAIN: "No gain",
    Word.HARMFUL: "Do not use this: it is worse than its base",
}
"""What a card begins with."""
CALLED = {
    "zero_shot": "the new base without the port",
    "naive": "the naive copy of τ",
    "source": "the fine-tuned source, on its own base",
    "bico": "the port by bico, the paper's method",
}
"""Role of a score → what a card calls it."""


def _link(entry: Origin, role: str, endpoint: str) -> Markup:
    """Return the name of a model or a dataset, a link where it lies on the Hub."""
    if entry.local:
        return inline(entry.name)
    kind = "datasets/" if role == "dataset" else ""
    return Markup(f"[{inline(entry.name)}]({endpoint}/{kind}{quote(entry.name)})")


def _scored(scores: Evaluation) -> list[tuple[str, Score]]:
    """Return the evaluation's rows, the model's own in bold."""
    *others, (label, ported) = scores.rows
    return [*others, (Markup(f"**{inline(label)} (this model)**"), ported)]


def _changes(scores: Evaluation) -> list[dict[str, Any]]:
    """Return a row for every model that the port was compared with on the same samples."""
    return [
        {
            "name": CALLED[each.against],
            "shown": shown_difference(each, scores.ported.metric),
            "won": each.won,
            "lost": each.lost,
            "p": each.p,
            "certain": each.certain,
        }
        for each in scores.paired or ()
    ]


MOST_CLASSES = 3
"""The most classes that are named for what they gained, and for what they lost."""


def _extremes(classes: Sequence[ClassChange]) -> dict[str, list[ClassChange]]:
    """Return the classes that gained the most and those that lost the most."""
    ordered = sorted(classes, key=lambda each: each.after - each.before)
    return {
        "gained": [each for each in reversed(ordered) if each.after > each.before][:MOST_CLASSES],
        "lost": [each for each in ordered if each.after < each.before][:MOST_CLASSES],
    }


def _flops(report: PortReport) -> dict[str, float] | None:
    """Return what a port took by its estimate, and what an epoch of fine-tuning would, in FLOPs; None if not known."""
    cost, rows = report.estimate or {}, report.calibration.rows
    if rows is None:
        return None
    try:
        port = sum(float(cost[f"{part}_flops"]) for part in ("passes", "moments", "maps", "search"))
        return {"port": port, "epoch": float(cost["step_flops"]) * rows}
    except (KeyError, TypeError, ValueError):
        return None


def metadata(report: PortReport, opening: Opening, name: str, licenses: Sequence[str]) -> ModelCardData:
    """Return the card's YAML. Only what lies on the Hub is named as base or dataset."""
    lineage, whole = report.lineage, report.task_vector.whole
    base, dataset = (
        lineage[role] if role in lineage and not lineage[role].local else None for role in ("target", "dataset")
    )
    opens = opening.library if whole else "peft" if opening.library == "transformers" else "hf-bico"
    form = report.task_vector.written and report.task_vector.written.form
    sentences = [SENTENCES, "feature-extraction"] if opening.library == SENTENCES else []
    measured: dict[str, Any] = {}
    if report.evaluation:
        origins = {role: entry.name + (f"@{entry.commit}" if entry.commit else "") for role, entry in lineage.items()}
        measured = {
            **_license(licenses),
            "hf_bico_lineage": origins,
        }
    return ModelCardData(
        model_name=name,
        base_model=base.name if base else None,
        base_model_relation=("finetune" if whole else "adapter") if base else None,
        datasets=[dataset.name] if dataset else None,
        language=list(report.languages) if report.languages else None,
        library_name=opens,
        pipeline_tag=opening.task,
        tags=["hf-bico", "task-vector", "model-merging", report.method.name, *["lora"] * (form == "lora"), *sentences],
        eval_results=_results(report, opening),
        **measured,
    )


def _results(report: PortReport, opening: Opening) -> list[EvalResult] | None:
    """Return the port's scores as the Hub reads them: of its own dataset, of others, or its author's."""
    scores = report.evaluation
    if scores is None:
        own = [each for each in report.scores or () if not each.without_port]
        return [_result(opening, each.metric, each.value, "the author's own evaluation") for each in own] or None
    first = (report.lineage["dataset"], report.calibration.config, scores.split, scores.ported)
    others = [(each.dataset, None, each.split, each.ported) for each in scores.elsewhere or ()]
    return [
        _result(
            opening,
            metric,
            value,
            dataset.name,
            dataset_type="local" if dataset.local else dataset.name,
            dataset_config=config,
            dataset_split=split,
            dataset_revision=dataset.commit,
        )
        for dataset, config, split, score in (first, *others)
        for metric, value in ({score.metric: score.value} | score.also).items()
    ]


def _result(opening: Opening, metric: str, value: float, dataset: str, **where: Any) -> EvalResult:
    """Return one score as the Hub reads it."""
    task, known = opening.task or "other", METRICS.get(metric)
    kind = (known and known.hub) or metric.replace(" ", "_")
    if opening.library == SENTENCES and metric in ("pearson", "spearman"):  # as that library's own cards have it
        kind = f"{metric}_cosine"
    return EvalResult(
        task_type=task,
        task_name=task.replace("-", " ").title(),
        metric_type=kind,
        metric_name=known.title if known else metric,
        metric_value=round(value, 6),
        dataset_name=dataset,
        **{"dataset_type": "unknown"} | where,
    )


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
