"""A report as a model card that people can check."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from hf_bico.core.types import Signal
from hf_bico.families import Library, Purpose
from hf_bico.families.purposes import TASKS, kind_of
from hf_bico.io.changes.forms import MODEL
from hf_bico.reports.figures import MATCHING_FILE
from hf_bico.tasks.scores import METRICS

TEMPLATE = Path(__file__).parent / "templates" / "card.md.j2"
LIVE_TEMPLATE = TEMPLATE.with_name("live_card.md.j2")
ROWS = {
    "source": "fine-tuned source, on its own base",
    "zero_shot": "target without the port",
    "naive": "target + naive copy of τ",
    "ported": "**target + ported τ (this model)**",
}
"""The evaluation's rows, in the order they are shown."""


def write_card(
    folder: Path, report: dict[str, Any], library: Library, purpose: Purpose, repo: str | None, licenses: Sequence[str]
) -> None:
    """README.md of a written port: metadata for the Hub, and a body that says how it was made and how to redo it."""
    lineage = report["lineage"]
    name = repo or f"{lineage['source']['name'].split('/')[-1]}-on-{lineage['target']['name'].split('/')[-1]}"
    data = metadata(report, library, purpose, name, licenses)
    # Without a repo of its own yet, the folder that the card lies in is what opens.
    snippet = _snippet(report, library, purpose, repo or ".")
    metric = METRICS[report["evaluation"]["ported"]["metric"]]
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        name=name,
        report=report,
        rows=ROWS,
        snippet=snippet,
        licenses=licenses,
        metric=metric,
        zero_shot=purpose.kind == "zero-shot",
        matched=_matched(report["matching"]),
        picture=MATCHING_FILE if (folder / MATCHING_FILE).exists() else None,
        sampled=_sampled(report),
        blocks=_blocks(report["layers"]),
        maps=_maps(report["moved"]),
        left=_left(report["left"]),
    )
    card.save(folder / "README.md")


def metadata(
    report: dict[str, Any], library: Library, purpose: Purpose, name: str, licenses: Sequence[str]
) -> ModelCardData:
    """The card's YAML. Only what lies on the Hub is named as base or dataset."""
    lineage, evaluation = report["lineage"], report["evaluation"]
    base, dataset = (None if lineage[role]["local"] else lineage[role] for role in ("target", "dataset"))
    ported, task = evaluation["ported"], library.task_type(purpose)
    relation = "finetune" if form_of(report) == MODEL else "adapter"
    opens = library.name if relation == "finetune" else "peft" if library.name == "transformers" else "hf-bico"
    metric = ported["metric"]
    result = EvalResult(
        task_type=task,
        task_name=task.replace("-", " ").title(),
        metric_type=metric.replace(" ", "_"),
        metric_name=metric.capitalize(),
        metric_value=round(ported["value"], 6),
        dataset_type=dataset["name"] if dataset else "local",
        dataset_name=lineage["dataset"]["name"],
        dataset_config=report["calibration"]["config"],
        dataset_split=evaluation["split"],
        dataset_revision=lineage["dataset"]["commit"],
    )
    return ModelCardData(
        model_name=name,
        base_model=base and base["name"],
        base_model_relation=relation if base else None,
        datasets=[dataset["name"]] if dataset else None,
        **_license(licenses),
        library_name=opens,
        pipeline_tag=task,
        tags=["hf-bico", "task-vector", "model-merging", report["method"]["name"]],
        eval_results=[result],
        hf_bico_lineage={
            role: entry["name"] + (f"@{entry['commit']}" if entry["commit"] else "") for role, entry in lineage.items()
        },
    )


def form_of(report: dict[str, Any]) -> str:
    return report["task_vector"]["written"]["form"]


def _snippet(report: dict[str, Any], library: Library, purpose: Purpose, repo: str) -> str:
    """What opens it: the library itself, and hf_bico where it is no whole model."""
    native = library.snippet(repo, purpose)
    if form_of(report) == MODEL:
        return native
    pinned = report["lineage"]["target"]["commit"]
    base = "" if pinned else ', base="where the base lies"'
    ours = f'import hf_bico\n\nmodel, preprocess, tokenizer = hf_bico.from_pretrained("{repo}"{base})'
    if library.name != "transformers" or not pinned:  # PEFT would look for the folder's name on the Hub
        return ours
    built = f", num_labels={len(purpose.labels)}" if purpose.labels else ""
    native = native.replace(f'"{repo}")', f'"{repo}"{built})', 1)
    return f"# with peft installed\n{native}\n\n# or, with the base's weights checked\n{ours}"


def _license(licenses: Sequence[str]) -> dict[str, str]:
    """The licence that a filter on the Hub reads: `other` where target and source have different ones."""
    if len(licenses) > 1:
        return {"license": "other", "license_name": " and ".join(licenses)}
    return {"license": licenses[0] if licenses else "unknown"}


def _sampled(report: dict[str, Any]) -> bool:
    """Whether the calibration samples had a say: in the method's evidence, its own steps, or the search for α."""
    method = report["method"]
    return bool(set(method["signals"]) - {Signal.WEIGHT.value} or method["search"] or not report["moved"])


def _matched(matching: dict[str, Any]) -> str:
    """The rule that blocks were matched by, and what it goes by."""
    why = {
        "index": "the paper's rule, both stacks from end to end in even steps",
        "cka": "the monotone assignment with the largest sum of CKA between the blocks' inputs on the samples",
    }
    return f"{matching['rule']} ({why.get(matching['rule'], 'a file of pairs')})"


def _blocks(layers: list[dict[str, Any]]) -> list[dict[str, str]]:
    """A row a block: which block of the source it takes from, and its widths."""

    def label(row: dict[str, Any], side: str) -> str:
        return f"{row['tower']} {'outside the blocks' if row[side] is None else row[side]}".strip()

    return [
        {
            "target": label(row, "target"),
            "source": label(row, "source"),
            "sites": "; ".join(
                f"{s['role']} {'×'.join(map(str, s['source']))} → {'×'.join(map(str, s['target']))}"
                for s in row["sites"]
            ),
        }
        for row in layers
    ]


def _maps(moved: list[dict[str, Any]]) -> list[dict[str, str]]:
    """A row a site that has maps: rank and residual of both sides, and the share of τ inside their span."""

    def side(fit: dict[str, Any] | None) -> str:
        return f"{fit['rank']} of {fit['full']}, {fit['residual']:.3f}" if fit else "as it is"

    return [
        {
            "target": row["target"],
            "source": row["source"],
            "output": side(row["output"]),
            "input": side(row["input"]),
            "kept": f"{row['kept']:.1%}",
        }
        for row in moved
        if row["output"] or row["input"]
    ]


def _left(left: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What stays behind, by reason."""
    reasons: dict[str, list[float]] = {}
    for row in left:
        reasons.setdefault(row["reason"], []).append(row["norm"] ** 2)
    return [{"reason": reason, "count": len(norms), "norm": sum(norms) ** 0.5} for reason, norms in reasons.items()]


def write_live_card(folder: Path, report: dict[str, Any], repo: str | None, cls: str, transformers: bool) -> None:
    """README.md of a port that was made between live models: what is known of it, and that nothing else is.

    Args:
        cls: the target's class.
        transformers: it opens with that; else it is a state dict alone.
    """
    target = report["lineage"]["target"]
    base = None if target["local"] else target["name"]
    kind, whole = kind_of(cls) if transformers else None, form_of(report) == MODEL
    opens = ("transformers" if whole else "peft") if transformers else None if whole else "hf-bico"
    name = repo or f"{report['lineage']['source']['name'].split('/')[-1]}-on-{target['name'].split('/')[-1]}"
    data = ModelCardData(
        model_name=name,
        base_model=base,
        base_model_relation=("finetune" if whole else "adapter") if base else None,
        library_name=opens,
        pipeline_tag=TASKS.get(kind),
        tags=["hf-bico", "task-vector", "model-merging", report["method"]["name"]],
    )
    card = ModelCard.from_template(
        data,
        template_path=str(LIVE_TEMPLATE),
        name=name,
        report=report,
        model_class=cls,
        transformers=transformers,
        form=form_of(report),
        repo=repo or ".",
        blocks=_blocks(report["layers"]),
        maps=_maps(report["moved"]),
        left=_left(report["left"]),
    )
    card.save(folder / "README.md")
