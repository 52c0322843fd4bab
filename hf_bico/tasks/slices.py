"""Parts of a split: `train[:80%]` as `datasets` has them, and the two parts of a split that is all there is."""

import re
import sys
from dataclasses import dataclass

import datasets
import numpy as np

from hf_bico.core.errors import PortError

HELD, REST = "held-out", "rest"
"""The part of a split that is scored where there is no other, and the one that calibration samples are drawn from."""
SHARE = 0.2
"""About how much of a split is held out."""
SEED = 0
"""Of the numbers by which rows are held out; it is no setting, so that one split is always divided in the same way."""


@dataclass(frozen=True)
class Part:
    """What a split is called: `train`, or a part of it in brackets."""

    base: str
    """Name of the whole split."""
    part: str | None = None
    """What is in the brackets; None without any."""

    @classmethod
    def of(cls, name: str) -> "Part":
        """Return what a name stands for.

        Raises:
            PortError: it has brackets that do not end it.
        """
        found = re.fullmatch(r"([^\[\]]*)(?:\[([^\[\]]+)\])?", name)
        if found is None:
            raise PortError(f"the split {name!r} is not of the form train, train[:80%] or train[100:200]")
        return cls(found[1], found[2])

    def __str__(self) -> str:
        return self.base if self.part is None else f"{self.base}[{self.part}]"

    @property
    def divided(self) -> bool:
        """Whether it is one of the two parts of a split that is all there is."""
        return self.part in (HELD, REST)

    def range(self, rows: int | None) -> range:
        """Return the rows of a slice.

        Args:
            rows: how many the whole split has; None where nobody knows.

        Raises:
            PortError: it is no slice, there is no row in it, or it counts from an end that nobody knows.
        """
        if rows is None and set("%-") & set(self.part or ""):
            raise PortError(
                f"nobody says how many rows the streamed split {self.base!r} has, which {self} counts by: give rows "
                f"from its beginning, such as {self.base}[:1000]"
            )
        try:
            known = sys.maxsize if rows is None else rows
            (found,) = datasets.ReadInstruction.from_spec(str(self)).to_absolute({self.base: known})
        except (ValueError, AssertionError) as error:
            raise PortError(f"the split {str(self)!r}: give train[:80%], train[100:200] or the like") from error
        if found.from_ >= found.to:
            has = "" if rows is None else f"; {self.base!r} has {rows}"
            raise PortError(f"there is no row in the split {str(self)!r}{has}")
        return range(found.from_, found.to)

    def rows(self, rows: int) -> list[int]:
        """Return the rows of one of the two parts of a split of so many rows.

        Which of them a row is in depends on its number alone, so that rows which are added change nothing before them.

        Raises:
            PortError: there are too few rows to divide.
        """
        drawn = np.random.default_rng(SEED).random(rows)
        held = drawn < SHARE
        if rows and not held.any():
            held = drawn == drawn.min()
        found = np.flatnonzero(held if self.part == HELD else ~held)
        if not len(found) or rows < 2:
            raise PortError(f"the split {self.base!r} has {rows} rows: too few to hold some out")
        return [int(row) for row in found]
