"""A linear classifier in closed form."""

import torch
from torch import Tensor

PENALTIES = torch.logspace(-4, 4, 17)
"""Ridge penalties to try, as multiples of the mean σ² of the centred features' singular values σ."""


def ridge_classifier(x: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return W (K, d) and b (K,), float32, of the ridge classifier of features x (n, d) with labels (n,).

    Targets are 1 for the class and 0 else, less their mean; the penalty on ‖W‖² is the one with the least squared
    leave-one-out error, all of them from one SVD (Golub, Heath, Wahba 1979). Logits are scaled so that a sample's
    largest is on average log K + 2 above their mean: about as confident as a fine-tuned head.

    Args:
        classes: K.

    Raises:
        ValueError: the features are all alike.
    """
    x = x.double()
    y = torch.nn.functional.one_hot(labels, classes).double()
    mean_x, mean_y = x.mean(0), y.mean(0)
    u, sigma, vt = torch.linalg.svd(x - mean_x, full_matrices=False)
    if not sigma[0] > 0:
        raise ValueError("the features of all samples are alike")
    uy = u.T @ (y - mean_y)
    penalties = PENALTIES.double() * sigma.square().mean()
    shrunk = [sigma.square() / (sigma.square() + penalty) for penalty in penalties]
    errors = [_left_out(u, uy, y - mean_y, shares) for shares in shrunk]
    best = shrunk[int(torch.stack(errors).argmin())]
    weight = ((vt.T * (best / sigma.clamp_min(1e-300))) @ uy).T
    logits = (x - mean_x) @ weight.T
    spread = (logits.amax(-1) - logits.mean(-1)).mean().clamp_min(1e-12)
    scale = (torch.tensor(float(classes)).log() + 2) / spread
    weight = scale * weight
    bias = scale * mean_y - weight @ mean_x
    return weight.float(), bias.float()


def _left_out(u: Tensor, uy: Tensor, y: Tensor, shares: Tensor) -> Tensor:
    """Return the summed squared error of every sample under the classifier fitted to all others.

    The mean counts as one more direction in the leverage.
    """
    fitted = u @ (shares[:, None] * uy)
    leverage = (u.square() * shares).sum(-1) + 1 / len(u)
    return ((y - fitted) / (1 - leverage).clamp_min(1e-6)[:, None]).square().sum()
