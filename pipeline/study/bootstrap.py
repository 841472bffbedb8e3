"""How sure a comparison is: hierarchical bootstrap over series, blocks of origins and seeds, and Holm's correction.

Called by `pipeline.study.comparison`. NumPy in, NumPy out.

Errors of neighbouring origins are alike, because their horizons overlap and the weather stays: origins are drawn in blocks. Errors of
series at one instant are alike, because they share the site: a block is drawn for all series at once. So an interval says how the
comparison would move with other series, another stretch of time and other seeds.

Letters: C cells, K seeds, S series, O origins, R replicates.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError

Floats = NDArray[np.float64]
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval, and how likely a difference as large is where there is none.

    Attributes:
        estimate, low, high: in the unit of what was compared.
        p_value: two-sided, of the estimate being 0.
    """

    estimate: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True)
class Replicates:
    """Mean losses of every cell: as measured, and in each replicate of the world.

    Attributes:
        measured_C: over all seeds, series and origins.
        drawn_CR: in each replicate; the series and origins drawn are the same for all cells, so that differences are paired.
    """

    measured_C: Floats
    drawn_CR: Floats

    def relative_difference(self, cell: int, reference: int) -> Interval:
        """Return by what share the loss of a cell lies above that of another; below 0 it is better."""
        drawn_R = self.drawn_CR[cell] / self.drawn_CR[reference] - 1
        low, high = np.quantile(drawn_R, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        rarer = min((drawn_R <= 0).sum(), (drawn_R >= 0).sum())
        p_value = min(1.0, 2 * (rarer + 1) / (len(drawn_R) + 1))
        return Interval(float(self.measured_C[cell] / self.measured_C[reference] - 1), float(low), float(high), float(p_value))


def resample(losses_CKSO: Floats, *, block_length: int, num_replicates: int, seed: int) -> Replicates:
    """Draw series, then blocks of origins, then seeds, all with replacement.

    Args:
        losses_CKSO: of every cell, seed, series and origin; NaN where a series has no such origin, for all cells alike.
        block_length: origins; at least the horizon.
        num_replicates: how often.
        seed: of the draws.

    Raises:
        ModelError: when the cells are not scored on the same points.
    """
    num_cells, num_seeds, num_series, num_origins = losses_CKSO.shape
    rng = np.random.default_rng(seed)
    series_RS = _counts(rng.integers(num_series, size=(num_replicates, num_series)), num_series)
    origins_RO = _blocks(rng, num_replicates, num_origins, min(block_length, num_origins))
    known_SO = np.isfinite(losses_CKSO[0, 0])
    unlike = (np.isfinite(losses_CKSO) != known_SO).sum()
    if unlike:
        raise ModelError(
            f"A comparison requires every cell to be scored on the same points; got {unlike} that one cell has and another has not. "
            "Look for trainings whose forecasts are not finite."
        )
    points_R = ((origins_RO @ known_SO.T.astype(np.float64)) * series_RS).sum(axis=1)
    means = []
    for losses_KSO in np.where(known_SO, losses_CKSO, 0.0):
        sums_RK = np.stack([((origins_RO @ losses_SO.T) * series_RS).sum(axis=1) for losses_SO in losses_KSO], axis=1)
        seeds_RK = _counts(rng.integers(num_seeds, size=(num_replicates, num_seeds)), num_seeds)  # of each cell its own
        means.append((sums_RK * seeds_RK).sum(axis=1) / num_seeds / points_R)
    measured_C = losses_CKSO[..., known_SO].mean(axis=(1, 2))
    return Replicates(measured_C, np.stack(means)[:, points_R > 0].reshape(num_cells, -1))


def holm(p_values: list[float]) -> list[float]:
    """Return p-values that hold together: Holm's step-down correction.

    Source: Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure".

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = least
    return adjusted


def _counts(drawn_RN: NDArray[np.int64], num: int) -> Floats:
    """Return how often each of `num` was drawn in each replicate (R, num)."""
    rows_R1 = np.arange(len(drawn_RN))[:, None]
    return np.bincount((drawn_RN + rows_R1 * num).ravel(), minlength=len(drawn_RN) * num).reshape(-1, num).astype(np.float64)


def _blocks(rng: np.random.Generator, num_replicates: int, num_origins: int, block_length: int) -> Floats:
    """Return how often each origin is drawn in each replicate (R, O): as many as there are, in blocks that go round at the end.

    Source: Politis and Romano 1992, "A circular block-resampling procedure for stationary data".
    """
    starts_RN = rng.integers(num_origins, size=(num_replicates, -(-num_origins // block_length)))
    drawn_RO = (starts_RN[..., None] + np.arange(block_length)).reshape(num_replicates, -1)[:, :num_origins] % num_origins
    return _counts(drawn_RO, num_origins)
