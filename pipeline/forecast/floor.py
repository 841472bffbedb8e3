"""The floor at zero: a series that is often exactly zero and was never below it is not forecast below it.

Demand, rain, occupancy and counts rest on zero; a network's quantiles do not know that it is the end of the scale. Where zero is only
passed by (a temperature), it is rarely met exactly, and the first value below it takes the floor away for good. Called by
`pipeline.forecast.calibrate`; NumPy alone.

Letters: O origins (consecutive ticks), B series, H horizon, Q quantile levels.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from pipeline.forecast.maturing import Floats, Ints, SeriesArrays

LEAST_SHARE = 0.05  # of the observations that are exactly zero


@dataclass
class FloorState(SeriesArrays):
    """What is remembered of B series."""

    count_B: Ints
    """Observations so far, int64."""
    zeros_B: Ints
    """Those of them that were exactly zero, int64."""
    negative_B: Ints
    """Those of them that were below zero, int64."""

    @classmethod
    def fresh(cls, num_series: int) -> Self:
        """Return the state of series of which nothing was read: they have no floor."""
        return cls(*(np.zeros(num_series, np.int64) for _ in range(3)))


class Floor:
    """Lifts quantiles to zero where zero is the end of a series' scale; all ticks at once and one by one give the same.

    >>> floor = Floor(FloorState.fresh(num_series=1))
    >>> floor.advance(np.full((2, 1, 1, 2), [-1.0, 3.0]), np.array([[7.0], [0.0]]))[:, 0, 0].tolist()
    [[-1.0, 3.0], [0.0, 3.0]]
    """

    def __init__(self, state: FloorState) -> None:
        self.state = state

    def advance(self, quantiles_OBHQ: Floats, actual_OB: Floats, issued_O: Ints | None = None) -> Floats:
        """Learn from the value of each tick, then lift the forecasts that are issued.

        Args:
            quantiles_OBHQ: of the issued ticks alone; lifted in place.
            actual_OB: value of every tick; NaN where not observed.
            issued_O: ascending ticks that issue a forecast; None for all.

        Returns:
            The lifted quantiles.
        """
        state = self.state
        count_OB = state.count_B + np.isfinite(actual_OB).cumsum(axis=0)
        zeros_OB = state.zeros_B + (actual_OB == 0).cumsum(axis=0)
        negative_OB = state.negative_B + (actual_OB < 0).cumsum(axis=0)
        state.count_B, state.zeros_B, state.negative_B = count_OB[-1], zeros_OB[-1], negative_OB[-1]
        has_floor_OB = (negative_OB == 0) & (zeros_OB > 0) & (zeros_OB >= LEAST_SHARE * count_OB)
        issued_OB = has_floor_OB if issued_O is None else has_floor_OB[issued_O]
        if issued_OB.any():  # few fleets have such series
            np.maximum(quantiles_OBHQ, np.where(issued_OB, 0.0, -np.inf)[..., None, None], out=quantiles_OBHQ)
        return quantiles_OBHQ
