"""The papers' tables on the real models and datasets of the Hub, from a file that names them.

    python hub_scripts/paper_tables.py hub_scripts/papers/papers.yaml --plan
    python hub_scripts/paper_tables.py hub_scripts/papers/papers.yaml --table 1 --output paper-tables

Fine-tunes that the file does not name are made once and kept in the output folder. Every finished cell is a line of
`cells.jsonl` there, so that a second start goes on; `results.json` and `tables.md` are written anew after each
comparison. docs/paper_tables.md says what the file holds and what a run takes.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import datasets
import huggingface_hub
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from hf_bico.core.errors import PortError
from hf_bico.core.methods import untracked
from hf_bico.io.checkpoints import pick_device
from hf_bico.io.hub import Hub
from hf_bico.io.writer import staged
from hub_scripts.papers import plan, spec, tables
from hub_scripts.papers.ledger import Ledger
from hub_scripts.papers.plan import FineTune, Unit
from hub_scripts.papers.tune import Run


def kind_of(family: str):
    """The module that fine-tunes and compares a family: its libraries are large, so it is imported at its first use."""
    if family == "t5":
        from hub_scripts.papers import t5

        return t5
    from hub_scripts.papers import clip

    return clip


def tuned_refs(told: spec.Spec, unit: Unit, run: Run) -> dict[str, str]:
    """Both sides' fine-tunes by model: those that the file names, or those that are in the output folder."""
    refs = {}
    for name in (unit.source, unit.target):
        tune = FineTune(name, unit.dataset)
        refs[name] = dict(told.models[name].tuned).get(unit.dataset) or str(run.place(told, tune))
    return refs


def work(told: spec.Spec, chosen: list[spec.Table], run: Run) -> list[str]:
    """All that is not done yet; one line for each comparison that could not be."""
    ledger, failures = Ledger(run.output / "cells.jsonl"), []
    units = [unit for unit in plan.all_units(chosen) if not ledger.has(plan.key_of(told, unit), unit)]
    for number, unit in enumerate(units, 1):
        kind = kind_of(told.models[unit.source].family)
        try:
            for tune in plan.fine_tunes_of(told, [unit]):
                if not run.place(told, tune).is_dir():
                    print(f"fine-tuning {tune}", flush=True)
                    kind.fine_tune(told, tune, run)
            print(f"{number}/{len(units)}: {unit}", flush=True)
            kind.compare(told, unit, tuned_refs(told, unit, run), run, ledger)
        except PortError as error:
            failures.append(f"{unit}: {error}")
        except torch.OutOfMemoryError:
            failures.append(f"{unit}: the device is out of memory; a smaller --batch-size needs less")
        gc.collect()
        write(told, chosen, ledger, run.output)
    write(told, chosen, ledger, run.output)
    return failures


def write(told: spec.Spec, chosen: list[spec.Table], ledger: Ledger, output: Path) -> None:
    found = tables.results(told, chosen, ledger)
    pages = {
        "results.json": json.dumps(found, indent=1, ensure_ascii=False) + "\n",
        "tables.md": tables.markdown(told, chosen, found),
    }
    for name, page in pages.items():
        with staged(output / name) as stage:
            stage.write_text(page, encoding="utf-8")


def picked(told: spec.Spec, names: Iterable[str]) -> list[spec.Table]:
    """
    Raises:
        SpecError: there is no such table.
    """
    unknown = [name for name in names if name not in told.tables]
    if unknown:
        raise spec.SpecError(f"--table {name}: there are {', '.join(told.tables)}" for name in unknown)
    return [told.tables[name] for name in names or told.tables]


def say_plan(told: spec.Spec, chosen: list[spec.Table], output: Path) -> None:
    """Less what the output folder has already."""
    units = plan.all_units(chosen)
    done = kept = ()
    if (output / "cells.jsonl").exists():
        ledger = Ledger(output / "cells.jsonl")
        done = [unit for unit in units if ledger.has(plan.key_of(told, unit), unit)]
    kept = [
        tune
        for tune in plan.fine_tunes_of(told, units)
        if (output / "fine-tunes" / plan.folder_of(told, tune)).is_dir()
    ]
    print(plan.told(told, chosen, done, kept))


def bars(items: Iterable, what: str, total: int) -> Iterable:
    """A bar on a terminal."""
    if not sys.stderr.isatty():
        return untracked(items, what, total)
    from rich.console import Console
    from rich.progress import track

    return track(items, what, total, console=Console(stderr=True), transient=True)


def hush() -> None:
    """The libraries' bars count single small files."""
    datasets.disable_progress_bars()
    huggingface_hub.utils.disable_progress_bars()


def size(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("a whole number from 1 on was expected")
    return int(text)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="a YAML file of models, datasets, protocols and tables")
    parser.add_argument("--table", action="append", default=[], metavar="NAME", help="may be repeated; else all")
    parser.add_argument("--plan", action="store_true", help="say what would be done, and stop")
    parser.add_argument("--output", type=Path, default=Path("paper-tables"), help="folder that keeps everything")
    parser.add_argument("--device", help="else CUDA where there is one, else the CPU")
    parser.add_argument("--batch-size", type=size, default=32, help="samples a pass; changes memory and time alone")
    parser.add_argument("--workers", type=int, default=0, help="processes that load pictures for fine-tuning")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    try:
        told = spec.read(args.file)
        chosen = picked(told, args.table)
        if args.plan:
            say_plan(told, chosen, args.output)
            return
        hush()
        run = Run(Hub(), args.output, pick_device(args.device), args.batch_size, args.workers, bars)
        failures = work(told, chosen, run)
    except (spec.SpecError, PortError) as error:
        failures = str(error).splitlines()
    except KeyboardInterrupt:
        sys.exit("Interrupted; start it again to go on")
    for line in failures:
        print(f"Error: {line}", file=sys.stderr)
    if failures:
        sys.exit(2)
    print(f"Written to {args.output / 'tables.md'}")


if __name__ == "__main__":
    main()
