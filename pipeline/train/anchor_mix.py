"""The mix of anchors before the highway: for each step, the shares of the anchors that leave the least absolute error.

Called by `pipeline.train.regression`. A series that is all but a random walk is best forecast near its last value, and a ridge
regression would have to find its way there from the mean of all anchors against its own penalty.

Letters: N origins, H horizon, A anchors, the slowest mean (0 in normalised units) the last of them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.train.least_absolute import RENEWALS, Moments, renewed_weights, stacked, weighted_moments

STEPS, RATE = 2_000, 0.5  # of the descent
SMALLEST_SHARE = 1e-300  # while descending
LEAST_SHARE = 0.003  # an anchor without any share could not be found again by gradients


def fit_mix(anchors: Sequence[Tensor], target_NH: Tensor, observed_NH: Tensor) -> Tensor:
    """Return the shares (H, A), float64; each row sums to 1.

    Args:
        anchors: (N, 1) or (N, H) each, without the slowest mean.
        target_NH: in the same units; read only where observed.
        observed_NH: bool.
    """
    num_rows, horizon = target_NH.shape
    share_HA = torch.empty(0)
    for renewal in range(RENEWALS + 1):
        parts = []
        for step in range(horizon):
            columns = [anchor[:, min(step, anchor.shape[1] - 1)] for anchor in anchors]
            x_NA = torch.stack([*columns, target_NH.new_zeros(num_rows)], dim=1)
            wanted_N = torch.where(observed_NH[:, step], target_NH[:, step], 0.0)
            weight_N = observed_NH[:, step].to(x_NA.dtype)
            if renewal:
                weight_N = renewed_weights(wanted_N - x_NA @ share_HA[step].to(x_NA.dtype), observed_NH[:, step])
            parts.append(weighted_moments(x_NA, wanted_N, weight_N))
        share_HA = _descend(stacked(parts))
    share_HA = share_HA.clamp(min=LEAST_SHARE)
    return share_HA / share_HA.sum(dim=-1, keepdim=True)


def _descend(moments: Moments) -> Tensor:
    """Return the shares of least squares, on the way from equal ones.

    Source: Kivinen and Warmuth 1997, "Exponentiated gradient versus gradient descent for linear predictors", section 3.
    """
    gram_HAA, moment_HA = moments
    share_HA = torch.full_like(moment_HA, 1 / moment_HA.shape[1])
    size_H1 = gram_HAA.diagonal(dim1=1, dim2=2).mean(dim=-1, keepdim=True).clamp(min=1e-9)
    for _ in range(STEPS):
        slope_HA = ((gram_HAA @ share_HA.unsqueeze(-1)).squeeze(-1) - moment_HA) / size_H1
        share_HA = (share_HA.clamp(min=SMALLEST_SHARE).log() - RATE * slope_HA).softmax(dim=-1)  # exp of steep slopes would be infinite
    return share_HA
