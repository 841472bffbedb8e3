"""The causal normaliser: exponentially weighted mean and variance that are part of the carried state.

Nothing here ever sees a tick after the one it describes, and no scaler is fitted. Called by `models.forecaster`, for one live tick
or once for a whole history with the same numbers, and by `models.covariates`.

Letters: T ticks, B series, K normalisers.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

RELATIVE_FLOOR = 0.02  # of the lifetime standard deviation: a long flat stretch must not make the next change infinite
ABSOLUTE_FLOOR = 1e-6  # of the level, for a series that has never moved
SMALLEST_SCALE = 1e-12  # of a series that was never anything but zero: it has no unit yet
COLD_START = 0.1  # of the level, divided by n^2: one reading says nothing of the spread, and a forecast must not be certain


class Statistics(NamedTuple):
    """What the normaliser carries from tick to tick."""

    count_B: Tensor
    """Observations seen, int64."""
    mean_KB: Tensor
    """Means, float64."""
    variance_KB: Tensor
    """Variances, float64."""
    last_B: Tensor
    """Last observed value, float64."""
    since_B: Tensor
    """Ticks since the last observation, int64."""
    age_B: Tensor
    """Ticks since the first observation, -1 before it, int64."""


class Tracked(NamedTuple):
    """What is known after each of T ticks (shapes as in `models.batch.Sequence`), and what is carried on."""

    filled_TB: Tensor
    mean_KTB: Tensor
    scale_KTB: Tensor
    since_TB: Tensor
    age_TB: Tensor
    after: Statistics


def track(values_TB: Tensor, observed_TB: Tensor, half_lives: tuple[float, ...], before: Statistics) -> Tracked:
    """Advance the statistics of B series through T ticks.

    With a = max(1/n, 1 - 2^(-dt/half_life)), d = x - m: m += a d, v = (1 - a)(v + a d^2); observed ticks only.
    Source: Welford's update with exponential forgetting (Finch 2009, "Incremental calculation of weighted mean and
    variance", section 9); it starts cumulative, so the first readings count in full.

    Args:
        values_TB: float64; read only where observed.
        observed_TB: bool.
        half_lives: in ticks, slowest first; a lifetime normaliser (nothing forgotten) is added as the last of K.
        before: carried from the tick before the first.
    """
    num_ticks = values_TB.shape[0]
    order_T1 = torch.arange(num_ticks, device=values_TB.device).unsqueeze(1)
    last_seen_TB = torch.where(observed_TB, order_T1, -1).cummax(dim=0).values
    never_TB = last_seen_TB < 0
    carried_since_TB = before.since_B + 1 + order_T1
    since_TB = torch.where(never_TB, carried_since_TB, order_T1 - last_seen_TB)
    filled_TB = torch.where(never_TB, before.last_B, values_TB.gather(0, last_seen_TB.clamp(min=0)))

    started_TB = ~never_TB | (before.count_B > 0)
    age_TB = torch.where(before.age_B >= 0, before.age_B + 1 + order_T1, started_TB.long().cumsum(0) - 1)

    gap_TB = torch.cat([before.since_B.unsqueeze(0), since_TB[:-1]]) + 1  # ticks since the observation before this one
    count_TB = before.count_B + observed_TB.long().cumsum(0)
    rates = [_rate(half_life, gap_TB, count_TB, observed_TB) for half_life in (*half_lives, math.inf)]
    rate_TKB = torch.stack(rates, dim=1)

    means, variances = [], []
    mean, variance = before.mean_KB, before.variance_KB
    safe_TB = torch.where(observed_TB, values_TB, 0.0)  # a NaN behind the mask would survive the product with 0
    for value_B, rate_KB in zip(safe_TB.unbind(0), rate_TKB.unbind(0), strict=True):
        difference = value_B - mean
        step = rate_KB * difference
        mean = mean + step
        variance = (1 - rate_KB) * (variance + step * difference)
        means.append(mean)
        variances.append(variance)
    mean_KTB, variance_KTB = torch.stack(means, dim=1), torch.stack(variances, dim=1)
    scale_KTB = _scale(mean_KTB, variance_KTB, count_TB)
    after = Statistics(count_TB[-1], mean, variance, filled_TB[-1], since_TB[-1], age_TB[-1])
    return Tracked(filled_TB, mean_KTB, scale_KTB, since_TB, age_TB, after)


def _rate(half_life: float, gap_TB: Tensor, count_TB: Tensor, observed_TB: Tensor) -> Tensor:
    forgetting_TB = 1 - torch.exp2(-gap_TB.double() / half_life)
    return torch.where(observed_TB, torch.maximum(1 / count_TB.clamp(min=1).double(), forgetting_TB), 0.0)


def _scale(mean_KTB: Tensor, variance_KTB: Tensor, count_TB: Tensor) -> Tensor:
    # The tiny term keeps the gradient of sqrt finite at zero variance (law 2 differentiates through here).
    deviation_KTB = (variance_KTB.clamp(min=0) + 1e-30).sqrt()
    level_share_TB = ABSOLUTE_FLOOR + COLD_START / count_TB.clamp(min=1).double().square()
    floor_KTB = torch.maximum(RELATIVE_FLOOR * deviation_KTB[-1:], level_share_TB * mean_KTB.abs() + SMALLEST_SCALE)
    return torch.maximum(deviation_KTB, floor_KTB)
