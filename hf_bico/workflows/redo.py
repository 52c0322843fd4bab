"""Options as the words of a command that does a thing again, every input pinned; files go by their names alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_bico.io.reference import Pinned
from hf_bico.tasks.columns import SampleKind
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.plan import Sampled


def ref(pinned: Pinned) -> str:
    """What a model or a dataset is called in a command."""
    return f"{pinned.name}@{pinned.commit}" if pinned.commit else f"./{pinned.name}"


def given_words(options: Mapping[str, Any]) -> list[str]:
    """Those that have a value."""
    return [word for option, value in options.items() if value is not None for word in (option, str(value))]


def drawing_words(config: PortConfig, plan: Sampled) -> list[str]:
    """Which samples, how they go in, and which blocks they are for."""
    calibration = plan.calibration
    words = ["--seed", str(config.seed)]
    words += (
        ["-n", str(calibration.size(0))]
        if calibration.per_class is None
        else ["--per-class", str(calibration.per_class)]
    )
    words += ["--strategy", calibration.kind] if calibration.kind != "random" else []
    words += ["--streaming"] if config.streaming else []
    templates = config.templates and config.templates.name
    return words + given_words(
        {
            "--config": config.config,
            "--columns": config.columns,
            "--templates": templates,
            "--family": config.family,
            "--layers": config.layers,
            "--skip": config.skip,
            "--max-length": None if plan.task.columns.kind is SampleKind.IMAGE else config.max_length,
        }
    )


def method_words(config: PortConfig) -> list[str]:
    """How maps are made."""
    words = ["--method", config.method]
    for option in config.method_options:
        words += ["--set", option]
    matching = None if config.matching == "index" else Path(config.matching).name
    return words + given_words({"--bank": config.bank and config.bank.name, "--matching": matching})
