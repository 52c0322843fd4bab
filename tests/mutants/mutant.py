"""What a wrong implementation is, and who must notice it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import pytest
from support.laws import models


@dataclass(frozen=True)
class Mutant:
    """`owner.name` replaced by `wrong(original)`, and who must notice it: each of them."""

    owner: object
    name: str
    wrong: Callable
    laws: tuple[partial, ...] = ()
    """Assertions that hold of what is right."""
    tests: tuple[str, ...] = ()
    """Tests of ours, by node; their fixtures are made before, of what is right."""
    collecting: bool = False
    """What the samples show is wrong already, or a model is spoiled: nothing known may be used or kept."""

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Hold the wrong implementation in place of the right one."""
        with pytest.MonkeyPatch.context() as patch:
            if self.collecting:
                patch.setattr(models, "KNOWN", {})
            patch.setattr(self.owner, self.name, self.wrong(getattr(self.owner, self.name)))
            yield
