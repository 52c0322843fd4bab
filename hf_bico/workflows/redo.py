"""What makes a result again, every input pinned: a command, and a recipe. Files go by their names alone."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_bico.io.reference import Lineage, Pinned
from hf_bico.reports.verdict import Grade, Verdict
from hf_bico.tasks.columns import SampleKind
from hf_bico.workflows.choices import INDEX
from hf_bico.workflows.config import AlignConfig, CheckConfig, PortConfig, TaskChoices
from hf_bico.workflows.options import chosen, words, words_of
from hf_bico.workflows.plan import Plan
from hf_bico.workflows.recipe import recipe_of

READING = ("config", "columns", "streaming", "templates", "family", "layers", "skip")
"""What a command says about reading samples and models, beside what is pinned."""
SOURCE = ("subfolder", "source_kind")
"""What a command says about its source, beside its name."""
TASK = (*SOURCE, "base", "trust_base", *READING, "split", "eval_split", "score_dtype", "max_length", "head", "matching")
"""What a check hands on to the command that comes next."""


def pinned_name(pinned: Pinned) -> str:
    """Return what a model, a dataset or maps are called in a command."""
    if pinned.commit is None:
        return f"./{pinned.name}"
    return f"{pinned.name}@{pinned.commit}" + (f":{pinned.file}" if pinned.file else "")


@dataclass(frozen=True)
class Redo:
    """What makes a result again: the settings of a command, every input pinned, said as its words or as a recipe."""

    name: str
    """The command."""
    config: type
    """That of its options."""
    settings: Mapping[str, Any]
    """Setting → value; a file is a path, of which its name alone is told."""

    @property
    def command(self) -> str:
        """The command, for a shell."""
        return shlex.join(["hf-bico", self.name, *words(self.config, self.settings)])

    @property
    def recipe(self) -> str:
        """The same settings as a recipe's YAML."""
        return recipe_of(self.settings)


def redo_port(config: PortConfig, plan: Plan, alpha: float) -> Redo:
    """Return what makes a port again; a search for α is not repeated, the α that it found is named."""
    lineage, unlabelled = plan.lineage, plan.unlabelled
    settings: dict[str, Any] = {
        **{role: pinned_name(getattr(lineage, role)) for role in ("source", "base", "target", "dataset")},
        **{"split": plan.samples.name, "eval_split": plan.scored.name, "alpha": alpha, "head": plan.models.head.value},
        **_draw(config, plan),
        **({"maps": pinned_name(plan.maps.pinned)} if plan.maps else _method(config)),
        **chosen(config, (*SOURCE, "trust_base", "eval_n", "score_dtype", "only", "add_tokens", "model_dtype")),
        **chosen(config, ("form", "rank", "energy", "dtype", "polish", "polish_rank", "scales")),
    }
    if unlabelled:
        settings |= {"unlabelled": pinned_name(unlabelled.dataset.pinned), "unlabelled_n": unlabelled.n}
    if plan.others:
        settings |= {"also": tuple(pinned_name(each.pinned) for each in plan.others)}
    return Redo("port", PortConfig, settings | {"output": told_place(config.output, "ported")})


def redo_align(config: AlignConfig, plan: Plan) -> Redo:
    """Return what makes maps again."""
    lineage = plan.lineage
    settings: dict[str, Any] = {
        **{role: pinned_name(getattr(lineage, role)) for role in ("base", "target", "dataset")},
        **{"split": config.split, **_draw(config, plan), **_method(config), **chosen(config, ("head", "map_dtype"))},
    }
    return Redo("align", AlignConfig, settings | {"output": told_place(config.output, "maps")})


def told_place(output: Path | None, otherwise: str) -> str:
    """Return what is published of the folder that a result is written to: as it was given where that is relative, of
    any other its last name alone, for where it lies is nobody's business.

    Args:
        otherwise: what is said where there is none, as of a push.
    """
    if output is None:
        return otherwise
    return output.name if output.is_absolute() else str(output)


def _draw(config: PortConfig | AlignConfig, plan: Plan) -> dict[str, Any]:
    """Return the settings for which samples are drawn, how they go in, and which blocks they are for."""
    calibration, each = plan.samples.calibration, plan.samples.calibration.per_class
    found: dict[str, Any] = {"seed": config.seed}
    found |= {"n": calibration.size(0)} if each is None else {"per_class": each}
    found |= {"strategy": calibration.kind} if calibration.kind != "random" else {}
    text = plan.samples.task.columns.kind is not SampleKind.IMAGE
    return found | chosen(config, READING) | ({"max_length": config.max_length} if text else {})


def _method(config: PortConfig | AlignConfig) -> dict[str, Any]:
    """Return the settings for how maps are made."""
    found = {"method": config.method} | chosen(config, ("method_options", "bank"))
    return found | ({} if config.matching == INDEX else {"matching": Path(config.matching).name})


def asked_of(config: TaskChoices, lineage: Lineage) -> str:
    """Return the words that say which port is meant: its models and its dataset by their names, and how they are read.

    Where a local input lies is nobody's business, so it goes by its name alone, as in the command that makes it again.
    """
    roles = ("source", *(("base",) if config.base else ()), "target", "dataset")
    settings = {role: _unpinned(getattr(lineage, role)) for role in roles}
    settings |= chosen(config, [name for name in TASK if name not in ("base", "matching")])
    if config.matching != INDEX:
        settings["matching"] = Path(config.matching).name
    return shlex.join(words(PortConfig, settings))


def _unpinned(pinned: Pinned) -> str:
    return pinned.name if pinned.commit else pinned_name(pinned)


def next_command(config: CheckConfig, verdict: Verdict, n: int, rivals: Sequence[str] = ()) -> str:
    """Return the command to run after a verdict, with n samples; empty where no port is possible.

    Args:
        rivals: methods that a doubtful port is compared with.
    """
    if verdict.grade is Grade.IMPOSSIBLE:
        return ""
    said = ["--to", config.target, *(["--dataset", config.dataset] if config.dataset else [])]
    said += words_of(config, TASK)
    if not config.dataset:
        return shlex.join(["hf-bico", "check", config.source, *said]) + " --dataset DATASET"
    if verdict.grade is Grade.GOOD or verdict.instead:
        named = ["--method", verdict.instead] if verdict.instead else words_of(config, ("method", "method_options"))
        said += named
        return shlex.join(["hf-bico", "port", config.source, *said, "-n", str(n), "--output", "ported"])
    methods = dict.fromkeys((config.method, *rivals))
    each = [word for name in methods for word in ("--method", name)]
    return shlex.join(["hf-bico", "compare", config.source, *said, "-n", str(n), *each])
