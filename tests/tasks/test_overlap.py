"""Samples are told by their content: wherever they lie, and whatever is scored of them."""

import numpy as np
import pytest
from PIL import Image
from support.datasets import opened
from support.tasks import KINDS, model_of, task_of, words, write_rows

from hf_bico import PortError
from hf_bico.core.method import untracked
from hf_bico.core.notes import noted
from hf_bico.tasks.overlap import Seen, unseen
from hf_bico.tasks.samples import Sample, read_task, samples_of


def left(split, task, seen, rows=range(30)):
    return unseen(split, "test", rows, task, seen, untracked, "split=")


def test_rows_that_were_seen_are_left_out_and_said(folder):
    dataset = opened(folder)
    split = dataset.split("test")
    task = read_task(dataset, split, {}, None)
    samples = list(samples_of(split, [3, 7, 29], task))
    with noted() as lines:
        assert left(split, task, Seen.of(samples)) == tuple(i for i in range(30) if i not in (3, 7, 29))
    assert lines == ["3 of 30 evaluation samples are calibration samples and are not scored"]
    with noted() as lines:
        assert left(split, task, Seen.of(samples[:1]), [3, 4]) == (4,)
        assert left(split, task, Seen()) == tuple(range(30))
    assert lines == ["1 of 2 evaluation samples is a calibration sample and is not scored"]
    with pytest.raises(PortError, match="all 2 evaluation samples of the split 'test' are calibration samples"):
        left(split, task, Seen.of(samples), [3, 7])


def test_a_sample_of_another_label_is_another_unless_labels_were_not_looked_at(folder):
    dataset = opened(folder)
    split = dataset.split("test")
    task = read_task(dataset, split, {}, None)
    (sample,) = samples_of(split, [3], task)
    other = Sample(sample.inputs, (sample.label + 1) % 4)
    assert Seen.of([sample]).has(sample) and not Seen.of([other]).has(sample)
    unlabelled = Seen.of((), [Sample(sample.inputs, None)])
    assert unlabelled.has(sample) and unlabelled.has(other)
    both = Seen.of([other]) | unlabelled
    assert both.has(sample) and both.has(other)
    pixels = np.asarray(sample.inputs).copy()
    pixels[0, 0, 0] ^= 1
    assert not unlabelled.has(Sample(Image.fromarray(pixels), sample.label))


@pytest.mark.parametrize("kind", KINDS)
def test_samples_of_every_kind_are_told_apart(kind, tmp_path):
    _, samples = task_of(write_rows(tmp_path / "task", kind), model_of(kind, words()))
    seen = Seen.of(samples[:20])
    assert [seen.has(sample) for sample in samples] == [True] * 20 + [False] * (len(samples) - 20)
