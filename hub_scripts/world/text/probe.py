"""The linear probe that texts are scored with, and the loss that it gives."""

from __future__ import annotations

import warnings

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def pooled(model: nn.Module, ids: Tensor) -> Tensor:
    """(n, T) → (n, d): the encoder's output, averaged over the tokens."""
    return model(input_ids=ids).last_hidden_state.mean(1)


@torch.no_grad()
def features(model: nn.Module, ids: Tensor, size: int = 200) -> Tensor:
    """`pooled`, in batches."""
    return torch.cat([pooled(model, part) for part in ids.split(size)])


def fit_probe(rows: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Logistic regression on the features as they are: weight (classes, d) and bias (classes,)."""
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 1,000 steps are enough for its ranking of classes
        fitted = LogisticRegression(max_iter=1000).fit(rows.numpy(), labels.numpy())
    weight, bias = np.atleast_2d(fitted.coef_), fitted.intercept_
    if len(weight) == 1:  # two classes: one row, of the second
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return _placed(weight, fitted.classes_, classes, 0.0), _placed(bias, fitted.classes_, classes, -1e4)


def _placed(rows: np.ndarray, seen: np.ndarray, classes: int, empty: float) -> Tensor:
    """A row for every class, those that the samples do not show included."""
    out = torch.full((classes, *rows.shape[1:]), empty)
    out[torch.from_numpy(seen)] = torch.from_numpy(rows).float()
    return out


def probe(model: nn.Module, ids: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """A probe of the model's own features of these samples."""
    return fit_probe(features(model, ids), labels, classes)


def probe_loss(weight: Tensor, bias: Tensor):
    """Cross-entropy of (ids, labels) under a probe, summed over the samples."""

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        ids, labels = batch
        return F.cross_entropy(pooled(model, ids) @ weight.T + bias, labels, reduction="sum")

    return loss


def accuracy(model: nn.Module, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], classes: int) -> float:
    """Percent of the test split that a fresh probe, trained on `train`, gets right."""
    weight, bias = probe(model, *train, classes)
    guess = (features(model, test[0]) @ weight.T + bias).argmax(1)
    return 100 * (guess == test[1]).float().mean().item()
