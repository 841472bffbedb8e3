"""The pinball loss, masked where nothing was observed."""

import torch
from torch import Tensor


def pinball(quantiles: Tensor, target: Tensor, observed: Tensor, levels_Q: Tensor) -> Tensor:
    """Return the mean pinball loss over levels and observed targets.

    rho_q(u) = max(q u, (q - 1) u) with u = target - quantile. Source: Koenker and Bassett 1978, "Regression Quantiles".

    Args:
        quantiles: (..., Q).
        target: (...), arbitrary where not observed.
        observed: (...) bool.
        levels_Q: (Q,) probabilities.

    Returns:
        A scalar, 0 where nothing was observed.
    """
    error = (torch.where(observed, target, 0.0).unsqueeze(-1) - quantiles) * observed.unsqueeze(-1)
    loss = torch.maximum(levels_Q * error, (levels_Q - 1) * error)
    return loss.sum() / (observed.sum() * levels_Q.numel()).clamp(min=1)
