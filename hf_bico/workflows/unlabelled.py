"""More samples of the same kind, without labels: what they are drawn from, and who has a use for them."""

from dataclasses import dataclass

import numpy as np

from hf_bico.core.errors import PortError, setting
from hf_bico.core.method import Method
from hf_bico.families import Purpose
from hf_bico.io.hub import Hub
from hf_bico.reports.records import CalibrationRecord, ColumnsRecord, Origin, UnlabelledRecord
from hf_bico.tasks.columns import Columns, SampleKind, input_columns
from hf_bico.tasks.labels import Labels
from hf_bico.tasks.samples import Draw, Task, choose, draw
from hf_bico.tasks.slices import Part
from hf_bico.tasks.splits import HubDataset, Split
from hf_bico.tasks.strategies import Calibration
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.polish import LANGUAGE

DEFAULT_N = 200
"""Samples without labels unless told otherwise."""


@dataclass(frozen=True)
class Unlabelled:
    """Which samples without labels will pass through the models."""

    dataset: HubDataset
    name: str
    """Name of the split that they are drawn from."""
    split: Split
    columns: Columns
    calibration: Calibration
    """At random, by the seed of the others."""

    @property
    def n(self) -> int:
        """How many samples are drawn."""
        return self.calibration.size(0)

    def draw(self) -> Draw:
        """Return the samples.

        Raises:
            PortError: an image is broken, a text is empty.
        """
        none = np.broadcast_to(0, self.split.num_rows)
        return draw(self.split, self.name, Task(self.columns, Labels(), ()), self.calibration, none)

    def record(self, drawn: Draw) -> UnlabelledRecord:
        """Return what a report says of the samples."""
        pinned = self.dataset.pinned
        columns = ColumnsRecord(self.columns.kind, dict(self.columns.names))
        samples = CalibrationRecord(**drawn.record(), columns=columns, config=self.dataset.config)
        return UnlabelledRecord(Origin.of(pinned), samples)


def unlabelled_of(
    config: PortConfig,
    hub: Hub,
    labelled: HubDataset,
    drawn: str,
    like: Columns,
    purpose: Purpose,
    method: Method,
) -> Unlabelled | None:
    """Return which samples without labels are taken; None if none were asked for.

    Args:
        labelled: the dataset of the samples with labels.
        drawn: the split of it that these are drawn from.
        like: the columns of those samples.

    Raises:
        PortError: nothing would use them, or the dataset has none that fit.
    """
    name = config.unlabelled
    if name is None:
        if config.unlabelled_n is not None:
            raise PortError(f"{setting('unlabelled_n')} is of samples that {setting('unlabelled')} names: give it too")
        return None
    if purpose.kind in LANGUAGE:
        raise PortError(
            f"{setting('unlabelled')} is for classes: a language model is asked for the tokens of a text or an answer, "
            f"so that samples without them ask nothing. Add whole samples to {setting('dataset')} in its place"
        )
    if like.kind in (SampleKind.TAGS, SampleKind.SPAN, SampleKind.TOGETHER, SampleKind.SPEECH):
        raise PortError(
            f"{setting('unlabelled')} is for samples that are answered as a whole, not for {like.kind}: leave it out"
        )
    if not (config.polish or method.takes_unlabelled):
        raise PortError(
            f"nothing would use samples without labels: {method.name} sees none, or their labels alone. Leave out "
            f"{setting('unlabelled')}, train further with {setting('polish')}, or name another {setting('method')}"
        )
    pinned = hub.resolve(name, "dataset")
    same = all(getattr(pinned, each) == getattr(labelled.pinned, each) for each in ("name", "folder", "file"))
    dataset = HubDataset(hub, pinned, config.config if same else None, streaming=config.streaming)
    wanted = Part.of(drawn) if same else Part(Part.of(drawn).base)
    found = str(wanted) if wanted.base in dataset.splits or len(dataset.splits) != 1 else dataset.splits[0]
    split = dataset.split(found)
    n = config.unlabelled_n or min(DEFAULT_N, split.num_rows)
    choose(split, found, n, config.seed)
    columns = input_columns(str(pinned), split.features, like)
    return Unlabelled(dataset, found, split, columns, Calibration(n, seed=config.seed))
