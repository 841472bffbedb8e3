"""The stream engine: carried state in, new ticks in, forecasts out; one step for each tick and series, never a window.

The same code runs live (one tick), catching up (some) and in a backtest (all of them in one pass): law 4 proves that
they agree. Called by `pipeline.forecast.rolling`, `pipeline.forecast.once` and `pipeline.evaluate.backtest`.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from models.batch import CarriedState
from models.forecaster import CausalForecaster

CHUNK_SERIES = 16_384  # one tick of a million series: 2.0 s so, 5.1 s unchunked, 57 s in chunks of 256 (2 cores)
CHUNK_CELLS = 500_000  # series x ticks of one call: bounds memory when catching up over a long history


class Block(NamedTuple):
    """Forecasts of some series at some origins.

    Attributes:
        columns_B: which of the given series.
        origins_O: which of the given ticks.
        quantiles_OBHQ: float64, in the metric's unit.
    """

    columns_B: NDArray[np.int64]
    origins_O: NDArray[np.int64]
    quantiles_OBHQ: NDArray[np.float64]


class StreamEngine:
    """Advances the carried state of B series and decodes forecasts where they are wanted."""

    def __init__(self, forecaster: CausalForecaster, carried: CarriedState) -> None:
        self.forecaster = forecaster.eval()
        self.carried = carried

    def advance(
        self, values_TB: NDArray[np.float64], time_TB: NDArray[np.int64], origins_O: NDArray[np.int64] | None = None
    ) -> Iterator[Block]:
        """Read T ticks of every series and yield forecasts; the state has moved once the iterator is exhausted.

        Args:
            values_TB: in the metric's unit, NaN where not observed.
            time_TB: labels, seconds since the epoch.
            origins_O: ascending rows that issue a forecast; None for the last alone.
        """
        num_ticks, num_series = values_TB.shape
        wanted_O = np.array([num_ticks - 1]) if origins_O is None else np.asarray(origins_O, dtype=np.int64)
        for start in range(0, num_series, CHUNK_SERIES):
            columns_B = np.arange(start, min(start + CHUNK_SERIES, num_series))
            yield from self._advance_chunk(columns_B, values_TB, time_TB, wanted_O)

    def _advance_chunk(
        self,
        columns_B: NDArray[np.int64],
        values_TB: NDArray[np.float64],
        time_TB: NDArray[np.int64],
        wanted_O: NDArray[np.int64],
    ) -> Iterator[Block]:
        index = torch.from_numpy(columns_B)
        state = self.carried.select(index)
        stride = max(1, CHUNK_CELLS // len(columns_B))
        for start in range(0, values_TB.shape[0], stride):
            values = torch.from_numpy(values_TB[start : start + stride, columns_B])
            times = torch.from_numpy(time_TB[start : start + stride, columns_B])
            here_O = wanted_O[(wanted_O >= start) & (wanted_O < start + stride)]
            with torch.inference_mode():
                quantiles, state = self.forecaster.advance(state, values, ~values.isnan(), times, torch.from_numpy(here_O - start))
            if len(here_O):
                yield Block(columns_B, here_O, quantiles.numpy())
        self.carried.replace(index, state)
