"""The code of a card, run on the very files that it lies beside, with one evaluation sample."""

import contextlib
import io
import shutil
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from PIL.Image import Image

from hf_bico.core.errors import PortError
from hf_bico.core.notes import note
from hf_bico.families.sounds import Sound
from hf_bico.io.hub import Hub
from hf_bico.reports.opening import Opening, Used
from hf_bico.reports.usage import PICTURE, SAMPLE, SOUND, WHERE, Shown, shown_texts, usage
from hf_bico.tasks.samples import Sample, samples_of
from hf_bico.workflows.plan import Plan

LINES = 12
"""The most lines of an output that are kept."""


def used(opening: Opening, plan: Plan, folder: Path, base: Path, hub: Hub, *, whole: bool, runs: bool) -> Opening:
    """Return how a port is opened, with the code of its card and what that printed.

    Args:
        folder: that of the port, with all that opens it.
        base: the target's.
        whole: whether it holds the whole model.
        runs: whether there is memory to run it, which opens the port once more.
    """
    scoring, task = plan.scored, plan.samples.task
    sample = next(iter(samples_of(scoring.split, scoring.indices[:1], task)))
    ours = plan.lineage.dataset.folder is None and hub.about(plan.lineage.dataset).is_open
    shown = Shown(_texts(sample, ours), task.class_names, task.templates[0] if task.templates else Shown.template)
    target = plan.lineage.target
    place = folder / ".sample"  # where whatever a kill leaves is removed by the next command
    place.mkdir()
    try:
        files = _files(sample, place)
        names = {opening.repo or ".": str(folder), WHERE: str(base), **files}
        programs = usage(opening, shown, whole=whole, pinned=target.folder is None)
        return opening.using(*(_run(code, names) if runs else Used(code) for code in programs))
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _texts(sample: Sample, ours: bool) -> tuple[str, ...]:
    """Return the texts of a sample as code shows them; a text of our own where they are not for everybody's eyes."""
    inputs = sample.inputs
    texts = [inputs] if isinstance(inputs, str) else list(inputs) if isinstance(inputs, tuple | list) else []
    if not texts or not all(isinstance(text, str) for text in texts):
        return ()
    if not ours:
        return (SAMPLE,) * min(len(texts), 2)
    words = isinstance(inputs, list)
    return shown_texts([" ".join(texts)] if words else texts[:2])


def _files(sample: Sample, place: Path) -> dict[str, str]:
    """Write the file that code reads, if any; what it is called there → where it lies."""
    if isinstance(sample.inputs, Image):
        sample.inputs.save(place / PICTURE)
        return {PICTURE: str(place / PICTURE)}
    if isinstance(sample.inputs, Sound):
        from scipy.io import wavfile

        wavfile.write(place / SOUND, sample.inputs.rate, sample.inputs.samples)
        return {SOUND: str(place / SOUND)}
    return {}


def _run(code: str, names: Mapping[str, str]) -> Used:
    """Return a program with what it printed, or why it failed.

    Args:
        names: string in the code → what stands in its place when it is run.
    """
    program = code
    for name, place in names.items():
        for before, after in (("", ""), ("hf-hub:", "local-dir:"), ("local-dir:", "local-dir:")):
            program = program.replace(f'"{before}{name}"', repr(after + place))
    printed = io.StringIO()
    try:
        with _quietly(), contextlib.redirect_stdout(printed), torch.random.fork_rng(devices=[]):
            exec(compile(program, "the card's code", "exec"), {"__name__": "card"})
    except Exception as error:
        why = error.message if isinstance(error, PortError) else traceback.format_exception_only(error)[-1]
        why = " ".join(why.split())
        note(f"the card's code could not be run here: {why}")
        return Used(code, error=why)
    lines = printed.getvalue().rstrip().splitlines()
    return Used(code, "\n".join(lines[:LINES] + ["…"] * (len(lines) > LINES)))


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep the libraries' remarks off the screen while the block runs."""
    from transformers.utils import logging as remarks

    before = remarks.get_verbosity()
    remarks.set_verbosity_error()
    try:
        yield
    finally:
        remarks.set_verbosity(before)
