"""What of the choices is wrong whatever the repos hold: refused before the first of them is asked for."""

from pathlib import Path
from typing import Any

from hf_bico.core.errors import PortError, setting
from hf_bico.core.pairing import by_index, read_matching, subset
from hf_bico.families import GENERIC
from hf_bico.families.beside import groups_of
from hf_bico.families.heads import HeadKind
from hf_bico.io.adapter import SOURCE_KINDS
from hf_bico.io.changes.forms import Storage
from hf_bico.io.checkpoints import pick_device
from hf_bico.io.maps.shards import DTYPES
from hf_bico.io.writer import require_apart, require_room
from hf_bico.tasks.columns import parse_columns
from hf_bico.tasks.splits import lines
from hf_bico.workflows.choices import (
    CKA,
    INDEX,
    FormChoices,
    HeadChoices,
    MatchingChoices,
    MovingChoices,
    OutputChoices,
    PushChoices,
    ReadingChoices,
    ScoringChoices,
    SourceChoices,
)
from hf_bico.workflows.destination import is_wanted
from hf_bico.workflows.scored import dtype_of

SAMPLES = ("n", "sizes", "per_class", "eval_n", "unlabelled_n")
"""Settings that are numbers of samples, or lists of such."""
COUNTS = (*SAMPLES, "max_length", "batch_size", "polish_rank", "scales")
"""Settings that are at least 1, if they are given."""
INPUTS = (
    "source",
    "base",
    "target",
    "target_tuned",
    "dataset",
    "unlabelled",
    "maps",
    "templates",
    "bank",
    "matching",
)
"""Settings that name what is read."""
FAMILIES = (None, GENERIC)


def require_choices(config: Any) -> None:
    """Refuse a config's choices that nothing which is downloaded could make right.

    Args:
        config: of any workflow; what it does not choose is not looked at.

    Raises:
        PortError: the first that is wrong.
    """
    for name in COUNTS:
        value = getattr(config, name, None)
        for each in value if isinstance(value, tuple | list) else (value,):
            if isinstance(each, int) and each < 1:
                why = "asks for no samples" if name in SAMPLES else "is less than 1"
                raise PortError(f"{setting(name)} {each} {why}")
    if isinstance(config, FormChoices):
        Storage.of(config.form, config.rank, config.energy, config.dtype, "transformers")
    if isinstance(config, HeadChoices) and config.head not in (None, *HeadKind):
        raise PortError(f"{setting('head')} {config.head}: a head is one of {', '.join(HeadKind)}")
    if isinstance(config, MatchingChoices):
        _require_matching(config)
    if isinstance(config, MovingChoices):
        groups_of(config.only)
    if isinstance(config, ScoringChoices):
        dtype_of(config)
    if isinstance(config, SourceChoices) and config.source_kind not in (None, *SOURCE_KINDS):
        raise PortError(f"{setting('source_kind')} {config.source_kind}: give {' or '.join(SOURCE_KINDS)}")
    if isinstance(config, PushChoices):
        is_wanted(config)
    if isinstance(config, ReadingChoices):
        parse_columns(config.columns)
    if getattr(config, "bank", None) is not None:
        lines(Path(config.bank))
    if (stored := getattr(config, "map_dtype", None)) not in (None, *DTYPES):
        raise PortError(f"{setting('map_dtype')} {stored}: maps are stored in {' or '.join(DTYPES)}")
    pick_device(config.device)
    if isinstance(config, OutputChoices) and config.output is not None:
        require_room(config.output, 0, overwrite=config.overwrite)
        named = (getattr(config, name, None) for name in INPUTS)
        require_apart(config.output, (*named, *getattr(config, "also", ())))


def _require_matching(config: MatchingChoices) -> None:
    if config.family not in FAMILIES:
        raise PortError(
            f"{setting('family')} {config.family}: families are found by themselves; only {GENERIC} can be named"
        )
    rule = by_index if config.matching in (INDEX, CKA) else read_matching(Path(config.matching))
    subset(rule, config.layers, config.skip)
