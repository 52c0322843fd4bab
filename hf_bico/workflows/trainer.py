"""Ports around a transformers Trainer: onto new bases when training ends, and a ported model to train further."""

import copy
import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import datasets
from torch import Tensor, nn
from transformers import TrainerCallback

from hf_bico.core.brief import brief
from hf_bico.core.errors import PortError, listed, setting
from hf_bico.core.method import Track, untracked
from hf_bico.core.methods import method_of
from hf_bico.families import library_of
from hf_bico.io.changes.forms import Form
from hf_bico.io.checkpoints import pick_device
from hf_bico.io.hub import Hub, opened_from
from hf_bico.io.writer import require_room, staged
from hf_bico.tasks.columns import parse_columns
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.early import require_choices
from hf_bico.workflows.port import Outcome, run

logger = logging.getLogger(__name__)

Data: TypeAlias = str | Path | datasets.Dataset | datasets.DatasetDict
"""A repo or a folder by its name, or raw rows in memory."""
HELD_OUT = "held_out"
"""Split of a single dataset in memory. A Trainer that was given all of it has seen these rows."""
TEST_SHARE = 0.2
"""Share of a single dataset in memory that is scored on, and not calibrated on."""
DEFAULTS = PortConfig(source="", target="", dataset="")
"""All options of `hf-bico port` at their defaults."""


class PortCallback(TrainerCallback):
    """A Trainer's callback that ports the trained model to every new base when training ends: scored, with its card,
    written and pushed as `hf-bico port` does it. It runs in the process of world rank 0 alone.

    What goes wrong with one base is logged and kept in `errors`; neither the other ports nor the training are lost.
    """

    def __init__(
        self,
        to: str | Sequence[str],
        dataset: Data,
        *,
        config: PortConfig = DEFAULTS,
        output: str | Path | None = None,
        push: bool = False,
        base: str | None = None,
        token: str | None = None,
        strict: bool = False,
        **choices: Any,
    ) -> None:
        """Choose what is ported, and to which bases.

        Args:
            to: the new bases.
            dataset: a repo or folder as on the command line, or raw rows in memory, as they are before they are
                tokenized: named splits, or one Dataset, of which a fifth is held out to score on. Rows of that fifth
                that the Trainer has seen flatter the source's score.
            config: all other options; its source, target, dataset, base, output and push are replaced.
            output: a folder that gets a folder for every new base.
            push: publish each as USER/MODEL-on-BASE, or the only one as `config.push_to`.
            base: what training began from; what the model says of itself unless given.
            strict: raise what went wrong, once all bases are done.
            choices: options of `PortConfig` in place of those of `config`, such as columns="image=img,label=y".

        Raises:
            TypeError: there is no such option.
            PortError: no bases, bases whose ports would have one name, or one `push_to` for several.
        """
        self.to = [to] if isinstance(to, str) else list(to)
        if not self.to:
            raise PortError("to= names no new base")
        self.dataset, self.base, self.token, self.strict = dataset, base, token, strict
        self.output = None if output is None else Path(output)
        self.config = config = replace(config, push=push, **choices)
        names = [_last(name) for name in self.to]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise PortError(
                f"two of the new bases are called {', '.join(twice)}, so their ports would have one name: "
                "give each a callback of its own"
            )
        if config.push_to is not None and len(self.to) > 1:
            raise PortError(
                f"push_to names one repo ({config.push_to}) and there are {len(self.to)} new bases: leave "
                "it out, and each gets its own"
            )
        self.outcomes: dict[str, Outcome] = {}
        """By new base: report, scores, folder and URL."""
        self.errors: dict[str, Exception] = {}
        """By new base: why there is no port."""

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        """Say what would stop a port before the training, when Trainer calls this.

        Raises:
            PortError: a folder in use, an option that cannot be right, columns that the data have not; with `strict`, a
                new base that cannot be had.
        """
        if not state.is_world_process_zero:
            return
        hub = Hub(self.token)
        require_choices(self.config)
        method_of(self.config.method, self.config.method_options)
        self._check_columns()
        for target in self.to:
            if self.output:
                require_room(self.output / _last(target), 0, overwrite=self.config.overwrite)
            try:
                hub.resolve(target)
            except PortError as error:
                logger.error("There will be no port to %s: %s", target, error)
                if self.strict:
                    raise

    def _check_columns(self) -> None:
        """Refuse columns that rows in memory do not have."""
        named, data = parse_columns(self.config.columns).values(), self.dataset
        if isinstance(data, str | Path):
            return
        for split in data.values() if isinstance(data, datasets.DatasetDict) else [data]:
            if lacking := [column for column in named if column not in split.column_names]:
                raise PortError(
                    f"{setting('columns')} {self.config.columns}: the dataset has no {listed(lacking)}; it has "
                    f"{listed(split.column_names, 20)}"
                )

    def on_train_end(self, args, state, control, model=None, processing_class=None, **kwargs) -> None:
        """Port the model when Trainer says that the training has ended; see `port`."""
        if not state.is_world_process_zero:
            return
        name = _last(args.hub_model_id or args.output_dir or "model")
        self.port(model, processing_class, name)

    def port(self, model: nn.Module, processing_class: Any = None, name: str = "model") -> None:
        """Port a model as at the end of training; for loops without a Trainer.

        Args:
            model: a model of transformers, or a PEFT model of one.
            processing_class: the tokenizer or processor that belongs to it.
            name: what the ports are named after.

        Raises:
            PortError: with `strict`, what went wrong.
        """
        with tempfile.TemporaryDirectory(prefix="hf-bico-") as folder:
            source = Path(folder) / "model" / name
            for target in self.to:
                try:
                    if not source.exists():
                        save(model, processing_class, Path(folder) / "saving").rename(_made(source.parent) / name)
                    chosen = replace(
                        self.config,
                        source=str(source),
                        base=self.base or base_of(model),
                        target=target,
                        eval_split=scored_on(self.dataset, self.config),
                        dataset=written(self.dataset, Path(folder) / "dataset", self.config),
                        output=self.output and self.output / _last(target),
                    )
                    self.outcomes[target] = run(chosen, Hub(self.token))
                    self._tell(target)
                except Exception as error:  # whatever it is, a trained model must not be lost to it
                    self.errors[target] = error
                    logger.error("The port to %s failed: %s", target, error, exc_info=not isinstance(error, PortError))
        if self.errors and self.strict:
            raise PortError("; ".join(f"the port to {target} failed: {error}" for target, error in self.errors.items()))

    def _tell(self, target: str) -> None:
        outcome = self.outcomes[target]
        logger.info(
            "Ported to %s: %s, without the port %s%s",
            target,
            outcome.evaluation.ported,
            outcome.evaluation.zero_shot,
            f"; {outcome.url}" if outcome.url else "",
        )
        if outcome.refusal:
            logger.warning("The port to %s was %s", target, outcome.refusal)


@dataclass(frozen=True)
class WarmStart:
    """A ported model to train further."""

    model: nn.Module
    """The model, in float32 and train mode. It says of itself that it was opened from the new base, so that what is
    trained from it is a fine-tune of that base."""
    tokenizer: Any
    """That of the new base; None for a model without texts."""
    preprocess: Callable[[Any], Tensor] | None
    """An image → (3, h, w); None for a model without images."""
    outcome: Outcome
    """Report and scores of the port."""

    def __repr__(self) -> str:
        return f"WarmStart({brief(self.model)}, {self.outcome})"


def warm_start(
    source: str,
    to: str,
    dataset: Data,
    *,
    base: str | None = None,
    config: PortConfig = DEFAULTS,
    token: str | None = None,
    track: Track = untracked,
) -> WarmStart:
    """Port a fine-tune, and open the result for training; nothing is left on disk. For live models see `Ported.apply_`.

    Args:
        source: the fine-tune, as on the command line.
        to: the new base.
        dataset: as on the command line, or raw rows in memory; see `PortCallback`.
        base: what the fine-tune came from, unless its card says so.
        config: all other options; what is named here is replaced, and nothing is pushed.
        track: shows the stages as they pass; quiet unless given.

    Raises:
        PortError: whatever stands in the way of the port.
    """
    if config.form != Form.MODEL:
        raise PortError(f"a warm start trains the whole model: leave form={config.form!r} out")
    hub = Hub(token)
    with tempfile.TemporaryDirectory(prefix="hf-bico-") as folder:
        place = Path(folder) / "ported"
        rows = written(dataset, Path(folder) / "dataset", config)
        chosen = replace(
            config,
            source=str(source),
            target=str(to),
            dataset=rows,
            base=base,
            output=place,
            push=False,
            eval_split=scored_on(dataset, config),
            push_to=None,
            private=None,
            create_pr=False,
            commit_message=None,
        )
        return _opened(place, chosen, run(chosen, hub, track))


def _opened(place: Path, config: PortConfig, outcome: Outcome) -> WarmStart:
    """Return a port that was written, live."""
    library = library_of([path.name for path in place.iterdir()])
    assert library is not None  # it was written just now
    side = library.load(place, pick_device(config.device), library.purpose(place))
    if hasattr(side.model, "config"):
        target = outcome.report["lineage"]["target"]
        name = str(Path(config.target).resolve()) if target["local"] else target["name"]
        own: Any = side.model.config
        own._name_or_path, own._commit_hash = name, target["commit"]
    return WarmStart(side.model.train(), side.tokenizer, side.preprocess, outcome)


def save(model: Any, processing_class: Any, folder: Path) -> Path:
    """Save a model in a folder that a port opens, and return the folder; an adapter gets the config of its whole model.

    Raises:
        PortError: it is not of transformers.
    """
    if not hasattr(model, "save_pretrained"):
        raise PortError(
            f"a {type(model).__name__} is not a model of transformers or PEFT, and PortCallback saves no other: use "
            "hf_bico.port on the live models"
        )
    model.save_pretrained(folder)
    if hasattr(model, "peft_config"):
        whole = model.get_base_model()
        config = copy.deepcopy(whole.config)
        config.architectures = [type(whole).__name__]
        config.save_pretrained(folder)
    if processing_class is not None and hasattr(processing_class, "save_pretrained"):
        processing_class.save_pretrained(folder)
    return folder


def base_of(model: nn.Module) -> str:
    """Return what a model says it was opened from, with its commit where that is known.

    Raises:
        PortError: the model does not say.
    """
    found = opened_from(model)
    if not found:
        raise PortError(f"the trained model does not say what it was opened from: name its base with {setting('base')}")
    return found


def scored_on(data: Data, config: PortConfig) -> str | None:
    """Return the split to score on: what is held out of a single dataset in memory, else what the config says."""
    return HELD_OUT if isinstance(data, datasets.Dataset) else config.eval_split


def written(data: Data, folder: Path, config: PortConfig) -> str:
    """Return a dataset as a port takes it: one in memory is written as parquet into the folder, once.

    Raises:
        PortError: it is no dataset, or one without named splits and with too few rows for two.
    """
    if isinstance(data, str | Path):
        return str(data)
    if not isinstance(data, datasets.Dataset | datasets.DatasetDict):
        raise PortError(
            f"a {type(data).__name__} cannot be written as parquet: give a Dataset, a DatasetDict or a repo"
        )
    first = data if isinstance(data, datasets.Dataset) else next(iter(data.values()))
    place = folder / (first.info.dataset_name or "dataset-in-memory")
    if place.exists():
        return str(place)
    splits = data
    if isinstance(data, datasets.Dataset):
        if len(data) < 2:
            raise PortError(f"the dataset has {len(data)} rows, too few to calibrate on some and score on others")
        parts = data.train_test_split(test_size=TEST_SHARE, seed=config.seed)
        splits = datasets.DatasetDict({config.split: parts["train"], HELD_OUT: parts["test"]})
    with staged(place) as stage:
        (stage / "data").mkdir(parents=True)
        for name, split in splits.items():
            split.with_format(None).to_parquet(stage / "data" / f"{name}-00000-of-00001.parquet")
    return str(place)


def _last(name: str) -> str:
    """Return a repo's or a folder's own name, without owner and revision."""
    last = name.removeprefix("hf://").split("@")[0].rstrip("/").split("/")[-1]
    return Path(name).resolve().name if Path(name).is_dir() or last.strip(".") == "" else last


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
