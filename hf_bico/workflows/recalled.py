"""Which samples a port was made from, by the report in its repo, so that they are not scored."""

from collections.abc import Iterable

from hf_bico.core.errors import PortError
from hf_bico.core.notes import note
from hf_bico.io.changes.delta import REPORT_FILE
from hf_bico.io.hub import Hub
from hf_bico.io.reference import Pinned
from hf_bico.reports.records import CalibrationRecord, Origin
from hf_bico.reports.report import PortReport
from hf_bico.tasks.columns import Columns
from hf_bico.tasks.labels import Labels
from hf_bico.tasks.overlap import Seen
from hf_bico.tasks.samples import Sample, Task, samples_of, sha256_of
from hf_bico.tasks.splits import HubDataset
from hf_bico.tasks.usable import labelled


def made_from(models: Iterable[Pinned], dataset: HubDataset, task: Task, hub: Hub) -> Seen:
    """Return the hashes of the samples of a dataset that any of some models was made from, if they are ports."""
    found = Seen()
    for pinned in models:
        report = _report(pinned, hub)
        if report is None:
            continue
        own = _recalled(pinned, report.lineage.get("dataset"), report.calibration, dataset, task)
        found |= Seen.of(own)
        more = report.unlabelled
        columns = None if more is None else more.samples.columns
        if more is not None and columns is not None:
            bare = Task(Columns(columns.kind, columns.names), Labels(), ())
            found |= Seen.of((), _recalled(pinned, more.dataset, more.samples, dataset, bare))
    return found


def _report(pinned: Pinned, hub: Hub) -> PortReport | None:
    """Return the report of a port; None of a model that is none, or whose report is of another kind."""
    data = hub.json(pinned, REPORT_FILE)
    try:
        return PortReport.from_json(data) if data else None
    except PortError:
        return None


def _recalled(
    pinned: Pinned, where: Origin | None, record: CalibrationRecord, dataset: HubDataset, task: Task
) -> list[Sample]:
    """Return the samples that a record tells of; none of another dataset."""
    if where is None or where.name != dataset.pinned.name or record.split is None or record.indices is None:
        return []
    try:
        split = labelled(dataset.split(record.split), record.split, task)
        samples = list(samples_of(split, record.indices, task)) if max(record.indices) < split.num_rows else []
    except PortError:
        samples = []
    if sha256_of(samples) == record.content_sha256:
        return samples
    if not where.local:  # another folder may have the same name
        note(
            f"the samples that {pinned} was made from are not in {dataset.pinned} where its report says "
            f"({record.split}): they are scored if they are among the others"
        )
    return []
