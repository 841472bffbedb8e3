"""Least absolute errors by least squares whose weights are renewed: each by the error that the last fit left.

Source: Schlossmacher 1973, "An Iterative Technique for Absolute Deviations Curve Fitting". Called by `pipeline.train.anchor_mix` and
`pipeline.train.regression`, for one step of the horizon at a time.

Letters: N origins, F regressors.
"""

from typing import NamedTuple

import torch
from torch import Tensor

RENEWALS = 3  # of the weights, each after a least-squares fit
SMALLEST_ERROR = 0.1  # of the median error: below it, every error weighs alike


class Moments(NamedTuple):
    """What least squares needs of one step, or, with another axis in front, of several."""

    gram_FF: Tensor
    """Weighted means of regressor times regressor, float64."""
    moment_F: Tensor
    """Weighted means of regressor times what is wanted."""


def weighted_moments(x_NF: Tensor, wanted_N: Tensor, weight_N: Tensor) -> Moments:
    """Return the moments under weights of any sum (N,), all 0 where nothing was observed."""
    weighted_FN = (x_NF * (weight_N / weight_N.sum().clamp(min=1e-9)).unsqueeze(1)).T
    return Moments((weighted_FN @ x_NF).double(), (weighted_FN @ wanted_N).double())


def renewed_weights(error_N: Tensor, observed_N: Tensor) -> Tensor:
    """Return the weights (N,) that make squared errors absolute ones: 1 over the size of each error, 0 where not observed."""
    size_N = error_N.abs()
    smallest = (SMALLEST_ERROR * size_N[observed_N].nanmedian()).nan_to_num(nan=1.0).clamp(min=1e-6)
    return observed_N / torch.maximum(size_N, smallest)


def stacked(parts: list[Moments]) -> Moments:
    """Return the moments of several steps as one."""
    return Moments(*(torch.stack(part) for part in zip(*parts, strict=True)))
