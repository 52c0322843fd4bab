"""The one error that a user sees."""

from collections.abc import Sequence


class PortError(Exception):
    """Something a user can mend. Its message is one line: what is wrong and what to do."""


def listed(items: Sequence[str], most: int = 5) -> str:
    """All items in one line; a long list is cut and says how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
