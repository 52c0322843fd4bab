"""Keys of interrupted work that lack one field."""

from collections.abc import Callable

from hf_bico.workflows import align, compare, port
from tests.mutants.changes import of_tests, then

RESUME = "tests/workflows/test_resume.py::test_"


def without(part: str, number: int | None = None) -> Callable:
    """Return what leaves a part out of a dict, or one entry of that part."""

    def cut(key: dict) -> dict:
        rest = {} if number is None else {part: [each for place, each in enumerate(key[part]) if place != number]}
        return {name: value for name, value in key.items() if name != part} | rest

    return then(cut)


FIELDS = {"models": 4, "method": 9, "evaluation": 9, "calibration": 4}
"""Parts of a port's key, and how many fields each has."""
MUTANTS = {
    f"a port's key without field {number} of its {part}": of_tests(
        port, "_key", without(part, number), f"{RESUME}every_field_of_the_key_counts[{part}-{number}]"
    )
    for part, count in FIELDS.items()
    for number in range(count)
}
MUTANTS |= {
    f"a comparison's key without its {part}": of_tests(
        compare, "_key", without(part), f"{RESUME}every_field_of_a_comparisons_key_counts[{part}]"
    )
    for part in ("models", "task", "batch", "head", "pairs", "evaluation")
}
MUTANTS |= {
    f"an alignment's key without its {part}": of_tests(
        align, "_key", without(part), f"{RESUME}every_field_of_an_alignments_key_counts[{part}]"
    )
    for part in ("models", "head", "method", "calibration")
}
MUTANTS |= {
    "an alignment's key without its bases": of_tests(
        align, "_key", without("maps"), f"{RESUME}an_alignment_of_other_bases_has_another_key"
    ),
    "a key without the version": of_tests(port, "_key", without("hf_bico"), f"{RESUME}another_version_is_another_key"),
}
