"""Samples that are scored and that a port was made from: found by their content, whatever split and row they are in."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from hf_bico.core.errors import PortError
from hf_bico.core.method import Track
from hf_bico.core.notes import note
from hf_bico.tasks.samples import Sample, Task, samples_of, sha256_of
from hf_bico.tasks.splits import Split


@dataclass(frozen=True)
class Seen:
    """What a port was made from, by the hashes of its samples."""

    samples: frozenset[str] = frozenset()
    """Those of the calibration samples, with their labels."""
    inputs: frozenset[str] = frozenset()
    """Those of samples that were taken without their labels."""

    @classmethod
    def of(cls, samples: Iterable[Sample], unlabelled: Iterable[Sample] = ()) -> "Seen":
        """Return the hashes of calibration samples, and of those without labels."""
        return cls(_hashes(samples), _hashes(unlabelled))

    def __or__(self, other: "Seen") -> "Seen":
        return Seen(self.samples | other.samples, self.inputs | other.inputs)

    def has(self, sample: Sample) -> bool:
        """Return whether a sample is one of them; its label is not looked at where theirs were not."""
        if sha256_of([sample]) in self.samples:
            return True
        return bool(self.inputs) and sha256_of([replace(sample, label=None)]) in self.inputs


def _hashes(samples: Iterable[Sample]) -> frozenset[str]:
    return frozenset(sha256_of([sample]) for sample in samples)


def unseen(
    split: Split, name: str, indices: Sequence[int], task: Task, seen: Seen, track: Track, mend: str
) -> tuple[int, ...]:
    """Return those of some rows that no port was made from; how many are left out is said.

    Args:
        name: the split's.
        mend: the setting that names another split.

    Raises:
        PortError: there are none.
    """
    samples = track(samples_of(split, indices, task), "Comparing samples", len(indices))
    found = tuple(index for index, sample in zip(indices, samples, strict=True) if not seen.has(sample))
    if not found:
        raise PortError(
            f"all {len(indices)} evaluation samples of the split {name!r} are calibration samples: name another split "
            f"with {mend}"
        )
    if left := len(indices) - len(found):
        are = "is a calibration sample and is" if left == 1 else "are calibration samples and are"
        note(f"{left} of {len(indices)} evaluation samples {are} not scored")
    return found
