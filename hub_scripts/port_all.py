"""Port many fine-tunes of one base over one alignment, by `hf-bico port`, one after the other.

    python hub_scripts/port_all.py SOURCE... --output DIR -- --to NEW_BASE --maps MAPS --dataset DATASET ...

A SOURCE is a repo, a folder of a model, a folder of such folders, or a .txt file with a repo or folder a line, each
with options of its own behind it (`org/ft --dataset org/task`). What is behind `--` goes to every port. Each is written
to DIR/NAME; one that is there is not done again, so a run that was stopped goes on where it was. At the end there is
one table of all scores, DIR/scores.md. The exit code is 1 if a port failed.
"""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

OPENS = ("config.json", "open_clip_config.json", "adapter_config.json")
"""Files of which a model's folder has one."""
PORT = (sys.executable, "-c", "from hf_bico.cli.main import main; main()", "port")
ROWS = ("source", "zero_shot", "naive", "ported")


def sources(words: Iterable[str]) -> Iterator[list[str]]:
    """A fine-tune each, with its own options."""
    for word in words:
        path = Path(word)
        if path.is_file() and path.suffix == ".txt":
            yield from (
                shlex.split(line, comments=True)
                for line in path.read_text().splitlines()
                if shlex.split(line, comments=True)
            )
        elif path.is_dir() and not is_model(path):
            yield from ([str(folder)] for folder in sorted(path.iterdir()) if is_model(folder))
        else:
            yield [word]


def is_model(folder: Path) -> bool:
    return any((folder / name).exists() for name in OPENS)


def place_of(source: str) -> str:
    """A folder's name alone, a repo's with its organisation."""
    path = Path(source)
    return path.resolve().name if path.is_dir() else source.removeprefix("hf://").replace("/", "--").replace("@", "--")


def table(folders: Iterable[Path]) -> str:
    """The scores of finished ports, as Markdown."""
    lines = [
        "| fine-tune | samples | metric | on its base | new base | naive copy | ported | recovered |",
        "|---" * 8 + "|",
    ]
    for folder in folders:
        report = json.loads((folder / "hf_bico.json").read_text())
        scores, lineage = report["evaluation"], report["lineage"]
        recovered = "–" if scores["recovered"] is None else f"{scores['recovered']:.0%}"
        lines.append(
            "| "
            + " | ".join(
                (
                    lineage["source"]["name"],
                    lineage["dataset"]["name"],
                    scores["ported"]["metric"],
                    *(f"{scores[row]['value']:.4g}" for row in ROWS),
                    recovered,
                )
            )
            + " |"
        )
    return "\n".join(lines) + "\n"


def port(source: str, options: Iterable[str], place: Path) -> int:
    """One port, unless it is there; the exit code."""
    if place.exists():
        print(f"{source}: {place} is there, so it is neither ported nor pushed again", file=sys.stderr)
        return 0
    print(f"{source} …", file=sys.stderr)
    words = [*PORT, source, *options, "--output", str(place), "-q"]
    return subprocess.run(words, stdout=subprocess.DEVNULL, check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="+")
    parser.add_argument("--output", type=Path, required=True)
    cut = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    given, common = parser.parse_args(sys.argv[1:cut]), sys.argv[cut + 1 :]
    found = list(sources(given.source))
    places = [given.output / place_of(source) for source, *_ in found]
    if not found:
        parser.error("there is no fine-tune in what was named")
    if len(set(places)) < len(places):
        parser.error("two fine-tunes have one name: rename a folder")
    codes = [
        port(source, [*common, *own], place)  # what is given twice holds as it is given last
        for (source, *own), place in zip(found, places, strict=True)
    ]
    done = [place for place in places if (place / "hf_bico.json").exists()]
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "scores.md").write_text(table(done), encoding="utf-8")
    print(table(done), end="")
    for code, place in zip(codes, places, strict=True):
        if code:
            what = "was ported and not pushed" if place in done else "was not ported"
            print(f"{place.name} {what}: see above", file=sys.stderr)
    return 1 if any(codes) else 0


if __name__ == "__main__":
    sys.exit(main())
