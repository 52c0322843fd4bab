"""Tables of a page that suites write: each between two marks."""

from collections.abc import Iterable, Sequence
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"


def put_table(mark: str, header: Sequence[str], rows: Iterable[Sequence[str]], page: Path = PAGE) -> None:
    """Put a table between a page's `<!-- mark -->` and `<!-- /mark -->`; rows that are not made anew stay, by their
    first cell.
    """
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(f"<!-- {mark} -->")
    old, after = rest.split(f"<!-- /{mark} -->")
    said = {line.split(" | ")[0].removeprefix("| "): line for line in old.strip().splitlines()[2:]}
    said |= {row[0]: f"| {' | '.join(row)} |" for row in rows}
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|", *(said[name] for name in sorted(said))]
    page.write_text(f"{before}<!-- {mark} -->\n" + "\n".join(lines) + f"\n<!-- /{mark} -->{after}", encoding="utf-8")
