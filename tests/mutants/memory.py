"""Ports in groups of layers, and what they are said to take."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hf_bico.core.groups import blocks
from hf_bico.core.methods import Weighted
from hf_bico.io.workspace import Workspace
from hf_bico.reports import estimate, memory
from hf_bico.workflows import in_groups
from tests.mutants.changes import instead, of_tests

GROUPS = "tests/core/test_groups.py::test_"
ESTIMATE = "tests/reports/test_estimate_of_memory.py::test_"
PORTS = "tests/workflows/test_memory.py::test_"


def watching_its_own(right: Callable) -> Callable:
    """Return what watches the layers of a group alone."""

    def gather(job: Any, *args: Any, group: slice, **options: Any) -> Any:
        return right(replace(job, pairs=job.pairs[group]), *args, **options)

    return gather


def of_the_group(right: Callable) -> Callable:
    """Return what knows the pairs of a group alone."""
    return lambda self, pairs, seen, which: right(self, pairs[which], seen, slice(None))


BIT_FOR_BIT = f"{GROUPS}groups_give_the_port_of_all_at_once_bit_for_bit"
WITHIN = f"{ESTIMATE}the_estimate_is_within_a_factor_of_what_tensors_take"
FEW = f"{ESTIMATE}groups_are_as_few_as_fit"
MUTANTS = {
    "a group's pass watches its layers alone": of_tests(
        in_groups, "gather", watching_its_own, f"{BIT_FOR_BIT}[method0]"
    ),
    "a layer's heirs in other groups do not count": of_tests(
        Weighted, "share", of_the_group, f"{BIT_FOR_BIT}[method3]"
    ),
    "groups of a block each, whatever fits": of_tests(
        memory, "grouped", lambda right: lambda pairs, *rest: tuple(blocks(pairs)), FEW
    ),
    "groups that moved are moved again": of_tests(
        Workspace, "moved", instead(None), f"{PORTS}an_interrupted_port_goes_on_with_the_group_it_was_in"
    ),
    "a port that does not fit is begun": of_tests(
        estimate, "fitted", instead((slice(0, 0),)), f"{PORTS}what_does_not_fit_is_refused_in_one_line[more0-said0]"
    ),
    "moments are not counted": of_tests(memory, "moments_bytes", instead(0), f"{WITHIN}[many moments-bico]"),
    "the rows of a batch are not counted": of_tests(memory, "_collecting", instead(0), f"{WITHIN}[many rows-bico]"),
    "logits are not counted": of_tests(memory, "_logits", instead(0), f"{WITHIN}[many words-bico]"),
}
