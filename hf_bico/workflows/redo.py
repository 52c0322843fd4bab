"""The command that makes a result again, every input pinned; files go by their names alone."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from hf_bico.io.reference import Pinned
from hf_bico.reports.verdict import Grade, Verdict
from hf_bico.tasks.columns import SampleKind
from hf_bico.workflows.config import INDEX, AlignConfig, CheckConfig, PortConfig
from hf_bico.workflows.options import words_of
from hf_bico.workflows.plan import Plan

READING = ("config", "columns", "streaming", "templates", "family", "layers", "skip")
"""What a command says about reading samples and models, beside what is pinned."""
SOURCE = ("subfolder", "source_kind")
"""What a command says about its source, beside its name."""
TASK = (*SOURCE, "base", "trust_base", *READING, "split", "eval_split", "score_dtype", "max_length", "head", "matching")
"""What a check hands on to the command that comes next."""


def pinned_name(pinned: Pinned) -> str:
    """Return what a model, a dataset or maps are called in a command."""
    return f"{pinned.name}@{pinned.commit}" if pinned.commit else f"./{pinned.name}"


def redo_port(config: PortConfig, plan: Plan, alpha: float) -> str:
    """Return the command that makes a port again; a search for α is not repeated, the α that it found is named."""
    lineage = plan.lineage
    words = ["hf-bico", "port", pinned_name(lineage.source), "--base", pinned_name(lineage.base)]
    words += ["--to", pinned_name(lineage.target), "--dataset", pinned_name(lineage.dataset)]
    words += ["--split", config.split, "--eval-split", plan.scored.name, "--alpha", repr(alpha)]
    words += ["--head", plan.models.head, *_draw(config, plan)]
    words += ["--maps", pinned_name(plan.maps.pinned)] if plan.maps else _method(config)
    words += words_of(config, (*SOURCE, "trust_base", "eval_n", "score_dtype", "only", "add_tokens", "model_dtype"))
    words += words_of(config, ("form", "rank", "energy", "dtype"))
    words += words_of(config, ("polish", "polish_rank", "scales"))
    if plan.unlabelled:
        words += ["--unlabelled", pinned_name(plan.unlabelled.dataset.pinned), "--unlabelled-n", str(plan.unlabelled.n)]
    for other in plan.others:
        words += ["--also", pinned_name(other.pinned)]
    return shlex.join([*words, "--output", "ported"])


def redo_align(config: AlignConfig, plan: Plan) -> str:
    """Return the command that makes maps again."""
    lineage = plan.lineage
    words = ["hf-bico", "align", pinned_name(lineage.base), pinned_name(lineage.target)]
    words += ["--dataset", pinned_name(lineage.dataset), "--split", config.split]
    words += [*_draw(config, plan), *_method(config), *words_of(config, ("head",))]
    return shlex.join([*words, "--output", "maps"])


def _draw(config: PortConfig | AlignConfig, plan: Plan) -> list[str]:
    """Return the words for which samples are drawn, how they go in, and which blocks they are for."""
    calibration, each = plan.samples.calibration, plan.samples.calibration.per_class
    words = ["--seed", str(config.seed)]
    words += ["-n", str(calibration.size(0))] if each is None else ["--per-class", str(each)]
    words += ["--strategy", calibration.kind] if calibration.kind != "random" else []
    words += words_of(config, READING)
    text = plan.samples.task.columns.kind is not SampleKind.IMAGE
    return words + (["--max-length", str(config.max_length)] if text else [])


def _method(config: PortConfig | AlignConfig) -> list[str]:
    """Return the words for how maps are made; a file of pairs goes by its name."""
    words = ["--method", config.method, *words_of(config, ("method_options", "bank"))]
    return words + ([] if config.matching == INDEX else ["--matching", Path(config.matching).name])


def next_command(config: CheckConfig, verdict: Verdict, n: int, rivals: Sequence[str] = ()) -> str:
    """Return the command to run after a verdict, with n samples; empty where no port is possible.

    Args:
        rivals: methods that a doubtful port is compared with.
    """
    if verdict.grade is Grade.IMPOSSIBLE:
        return ""
    words = ["--to", config.target, *(["--dataset", config.dataset] if config.dataset else [])]
    words += words_of(config, TASK)
    if not config.dataset:
        return shlex.join(["hf-bico", "check", config.source, *words]) + " --dataset DATASET"
    if verdict.grade is Grade.GOOD or verdict.instead:
        named = ["--method", verdict.instead] if verdict.instead else words_of(config, ("method", "method_options"))
        words += named
        return shlex.join(["hf-bico", "port", config.source, *words, "-n", str(n), "--output", "ported"])
    methods = dict.fromkeys((config.method, *rivals))
    chosen = [word for name in methods for word in ("--method", name)]
    return shlex.join(["hf-bico", "compare", config.source, *words, "-n", str(n), *chosen])
