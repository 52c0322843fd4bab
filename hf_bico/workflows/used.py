"""The code of a card, run on the very files that it lies beside: with an evaluation sample, or something plain."""

import contextlib
import io
import shutil
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn

from hf_bico.core.errors import PortError
from hf_bico.core.notes import note
from hf_bico.families import PurposeKind
from hf_bico.families.sounds import Sound
from hf_bico.io.hub import Hub
from hf_bico.reports.opening import WEIGHTS, Embedder, Opening, Used
from hf_bico.reports.usage import PICTURE, SAMPLE, SOUND, WHERE, Shown, loads, shown_texts, usage
from hf_bico.tasks.samples import Sample, samples_of
from hf_bico.workflows.plan import Plan

LINES = 12
"""The most lines of an output that are kept."""
MOST_OPENED = 2 * 2**30
"""Bytes of the largest live model that is opened once more."""
PREPARING = ("tokenizer_config.json", "preprocessor_config.json", "processor_config.json")
"""Files of which one is there where a model has what prepares its inputs."""
_PICTURE = "a grey picture", Image.new("RGB", (256, 256), "grey")
_TONE = (
    "a second of a 440 Hz tone",
    Sound(np.sin(np.arange(16_000) * 2 * np.pi * 440 / 16_000, dtype=np.float32), 16_000),
)
PLAIN: Mapping[PurposeKind, tuple[str, Any]] = {
    PurposeKind.IMAGE_CLASSES: _PICTURE,
    PurposeKind.ZERO_SHOT: _PICTURE,
    PurposeKind.SOUND_CLASSES: _TONE,
    PurposeKind.CTC: _TONE,
    PurposeKind.SPEECH: _TONE,
}
"""What a live port is asked, and what that is called; texts stand in the code itself."""


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
    texts = _texts(sample, ours)
    shown = Shown(texts, task.class_names, task.templates[0] if task.templates else Shown.template)
    programs = usage(opening, shown, whole=whole, pinned=plan.lineage.target.folder is None)
    if not runs:
        return opening.using(*map(Used, programs))
    ran, model = _Files(opening.repo, folder, base).run(programs, sample.inputs)
    opening = opening.using(*ran, asked=None if texts else "the first evaluation sample")
    return replace(opening, embedder=_embedder(model)) if type(model).__name__ == "SentenceTransformer" else opening


def used_live(opening: Opening, target: nn.Module, folder: Path, base: Path | None, *, pinned: bool) -> Opening:
    """Return how a live port is opened, with the code of its card and what that printed.

    Its own samples are tensors by then, so that it is asked a plain picture, a tone or a sentence of ours. One that is
    large is not opened, for a training script's memory is taken already.

    Args:
        folder: that of the port, with all that opens it.
        base: where the repo lies that a change belongs to; None where the whole model is written.
        pinned: whether that has a commit on the Hub; else it is a folder.
    """
    whole = base is None
    if any((place / name).exists() for place in (folder, base or folder) for name in PREPARING):
        programs = usage(opening, Shown((SAMPLE,), ("cat", "dog")), whole=whole, pinned=pinned)
    else:
        programs = loads(opening, whole=whole, pinned=pinned)
    if sum(tensor.nbytes for tensor in target.state_dict().values()) > MOST_OPENED:
        return opening.using(*map(Used, programs))
    asked, inputs = PLAIN.get(opening.kind, (None, None)) if opening.kind else (None, None)
    ran, _ = _Files(opening.repo, folder, base or folder).run(programs, inputs)
    return opening.using(*ran, asked=asked)


class _Files(NamedTuple):
    """Where that lies which a card's code names."""

    repo: str | None
    """What the port is called; None for a folder."""
    folder: Path
    base: Path

    def run(self, programs: Sequence[str], inputs: Any) -> tuple[list[Used], Any]:
        """Return programs with what they printed, and the last one's `model`.

        Args:
            inputs: the picture or the sound that they read, if any.
        """
        place = self.folder / ".sample"  # where whatever a kill leaves is removed by the next command
        place.mkdir()
        try:
            folder, weights, found = str(self.folder), str(self.folder / WEIGHTS), dict[str, Any]()
            names = {self.repo or ".": folder, WHERE: str(self.base), WEIGHTS: weights, **_files(inputs, place)}
            calls = {f"hf_hub_download({folder!r}, {weights!r})": repr(weights)}
            return [_run(code, names, calls, found) for code in programs], found.get("model")
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


def _files(inputs: Any, place: Path) -> dict[str, str]:
    """Write the file that code reads, if any; what it is called there → where it lies."""
    if isinstance(inputs, Image.Image):
        inputs.save(place / PICTURE)
        return {PICTURE: str(place / PICTURE)}
    if isinstance(inputs, Sound):
        from scipy.io import wavfile

        wavfile.write(place / SOUND, inputs.rate, inputs.samples)
        return {SOUND: str(place / SOUND)}
    return {}


def _run(
    code: str,
    names: Mapping[str, str],
    calls: Mapping[str, str] = MappingProxyType({}),
    found: dict[str, Any] | None = None,
) -> Used:
    """Return a program with what it printed, or why it failed.

    Args:
        names: string in the code → what stands in its place when it is run.
        calls: call that is left → what it would return.
        found: gets the program's variables.
    """
    found = {} if found is None else found
    program = code
    for name, place in names.items():
        for before, after in (("", ""), ("hf-hub:", "local-dir:"), ("local-dir:", "local-dir:")):
            program = program.replace(f'"{before}{name}"', repr(after + place))
    for call, returned in calls.items():
        program = program.replace(call, returned)
    printed = io.StringIO()
    try:
        with _quietly(), contextlib.redirect_stdout(printed), torch.random.fork_rng(devices=[]):
            exec(compile(program, "the card's code", "exec"), found)
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


def _embedder(model: Any) -> Embedder:
    """Return what a model of sentence-transformers says of itself."""
    return Embedder(
        model.get_max_seq_length(), model.get_sentence_embedding_dimension(), model.similarity_fn_name, str(model)
    )
