"""How the last layer of a head is fitted to samples in closed form, by what it answers with."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from hf_bico.core.errors import PortError
from hf_bico.core.ridge import ridge_classifier, ridge_labels, ridge_regression
from hf_bico.families.feeding import UNASKED, Encoded
from hf_bico.families.protocol import Answer


class Fitting(NamedTuple):
    """How a head's last layer is fitted in closed form."""

    rows: Callable[[Tensor, Encoded], tuple[Tensor, Tensor]]
    """Its input (n, T, d) of a batch → the rows (m, d) that are asked for, and what each is to give, (m,) or (m, K)."""
    solve: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    """Those of all samples → W (K, d) and b (K,)."""


def fitting_of(answer: Answer | None, classes: int) -> Fitting:
    """Return how the head of a model is fitted.

    Args:
        classes: how many there are, where samples or words have one each.
    """
    if answer is Answer.CLASSES:
        return Fitting(_of_samples, ridge_labels)
    if answer is Answer.NUMBER:
        return Fitting(_of_samples, lambda x, y: ridge_regression(x, y[:, None]))
    if answer is Answer.SPAN:
        return Fitting(_of_ends, _solve_ends)
    one = partial(ridge_classifier, classes=classes)
    return Fitting(_of_words if answer is Answer.WORD_CLASSES else _of_samples, one)


def _of_samples(rows: Tensor, batch: Encoded) -> tuple[Tensor, Tensor]:
    return _read(rows, batch), _labels(batch)


def _of_words(rows: Tensor, batch: Encoded) -> tuple[Tensor, Tensor]:
    labels = _labels(batch).to(rows.device)
    asked = labels != UNASKED
    return rows[asked], labels[asked]


def _of_ends(rows: Tensor, batch: Encoded) -> tuple[Tensor, Tensor]:
    """Return every token but padding, with 1 where it is the first and where it is the last of the answer."""
    labels = _labels(batch).to(rows.device)
    wanted = torch.zeros(*rows.shape[:2], 2, device=rows.device)
    for end in range(2):
        wanted[torch.arange(len(rows)), labels[:, end], end] = 1
    asked = batch.inputs["attention_mask"].to(rows.device) != 0
    return rows[asked], wanted[asked]


def _solve_ends(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return a ridge regression of the ends of answers, scaled so that a right end is on average as far above the mean
    as the right one of as many classes as a text has tokens."""
    weight, bias = ridge_regression(x, y)
    logits = x.float() @ weight.T + bias
    right = y > 0
    above = (logits[right].mean() - logits.mean()).clamp_min(1e-12)
    scale = (torch.tensor(2 * len(y) / max(float(right.sum()), 1.0)).log() + 2) / above
    return scale * weight, scale * bias


def _labels(batch: Encoded) -> Tensor:
    assert batch.labels is not None  # heads are fitted for tasks with labels only
    return batch.labels


def _read(rows: Tensor, batch: Encoded) -> Tensor:
    """Return the rows (n, d) of (n, T, d) that a classifier answers from: of a text's tokens, the last real one's."""
    if rows.shape[1] == 1:
        return rows[:, 0]
    mask = batch.inputs["attention_mask"].to(rows.device)
    return rows[torch.arange(len(rows)), mask.sum(1) - 1]


def solved(fitting: Fitting, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return W (K, d) and b (K,) of a layer fitted to rows x (m, d).

    Raises:
        PortError: the features are all alike.
    """
    try:
        return fitting.solve(x, y)
    except ValueError as error:
        raise PortError(f"no head can be fitted: {error}") from error
