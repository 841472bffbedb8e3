"""The stream engine: carried state in, new ticks in, forecasts out; one step for each tick and series, never a window.

The same code runs live (one tick), catching up (some) and in a backtest (all of them in one pass): law 4 proves that
they agree. Called by `pipeline.forecast.rolling`, `pipeline.forecast.once` and `pipeline.evaluate.backtest`.
"""

from collections.abc import Iterator
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray

from models.batch import CarriedState
from models.forecaster import CausalForecaster
from pipeline.forecast.calibrate import CalibrationState, OnlineCalibration
from pipeline.prepare.covariates import PanelCovariates, require_names, tensors

CHUNK_SERIES = 4_096  # one tick of a million series: 2.0 s with it, 5.1 s unchunked, 57 s in chunks of 256 (2 cores)
CHUNK_CELLS = 500_000  # series x ticks of one call: bounds memory when catching up over a long history
CHUNK_QUANTILES = 16_000_000  # decoded by one call: 128 MB


class Block(NamedTuple):
    """Forecasts of some series at some origins.

    Attributes:
        columns_B: which of the given series.
        origins_O: which of the given ticks.
        quantiles_OBHQ: float64, in the metric's unit; calibrated, where the engine calibrates.
        uncalibrated_OBHQ: as the network has them.
    """

    columns_B: NDArray[np.int64]
    origins_O: NDArray[np.int64]
    quantiles_OBHQ: NDArray[np.float64]
    uncalibrated_OBHQ: NDArray[np.float64]


class StreamEngine:
    """Advances the carried state of B series and decodes forecasts where they are wanted.

    With calibration every tick is decoded, wanted or not: what calibration has learned then depends on the observations alone, not on
    restarts, replays, lost snapshots, or which forecasts were asked for.
    """

    def __init__(self, forecaster: CausalForecaster, carried: CarriedState, calibration: CalibrationState | None = None) -> None:
        self.forecaster = forecaster.eval()
        self.carried = carried
        self.calibration = calibration

    @classmethod
    def fresh(cls, forecaster: CausalForecaster, num_series: int, *, calibrate: bool) -> Self:
        """Return an engine for series of which nothing has been read."""
        calibration = CalibrationState.fresh(forecaster.config.horizon, num_series) if calibrate else None
        return cls(forecaster, forecaster.initial_state(num_series), calibration)

    def advance(
        self,
        values_TB: NDArray[np.float64],
        time_TB: NDArray[np.int64],
        origins_O: NDArray[np.int64] | None = None,
        covariates: PanelCovariates | None = None,
    ) -> Iterator[Block]:
        """Read T ticks of every series and yield forecasts; the state has moved once the iterator is exhausted.

        Args:
            values_TB: in the metric's unit, NaN where not observed.
            time_TB: labels, seconds since the epoch.
            origins_O: ascending rows that issue a forecast; None for the last alone.
            covariates: of the same series and first tick, for a forecaster that reads some; rows after the last tick are read of
                plans alone.

        Raises:
            DataError: when the covariates are not those of the forecaster.
        """
        require_names(covariates, self.forecaster.config.covariate_names)
        num_ticks, num_series = values_TB.shape
        wanted_O = np.array([num_ticks - 1]) if origins_O is None else np.asarray(origins_O, dtype=np.int64)
        for start in range(0, num_series, CHUNK_SERIES):
            columns_B = np.arange(start, min(start + CHUNK_SERIES, num_series))
            yield from self._advance_chunk(columns_B, values_TB, time_TB, wanted_O, covariates)

    def _advance_chunk(
        self,
        columns_B: NDArray[np.int64],
        values_TB: NDArray[np.float64],
        time_TB: NDArray[np.int64],
        wanted_O: NDArray[np.int64],
        covariates: PanelCovariates | None,
    ) -> Iterator[Block]:
        index = torch.from_numpy(columns_B)
        some = None if covariates is None else covariates.columns(columns_B)
        state, calibration = self.carried.select(index), self._calibration_of(columns_B)
        decoded_O = wanted_O if calibration is None else np.arange(len(values_TB))
        for ticks in self._spans(len(values_TB), decoded_O, len(columns_B)):
            values = torch.from_numpy(values_TB[ticks, columns_B])
            times = torch.from_numpy(time_TB[ticks, columns_B])
            here_O = decoded_O[(decoded_O >= ticks.start) & (decoded_O < ticks.stop)]
            known = tensors(some, ticks.start, ticks.start + len(values), self.forecaster.config.horizon)
            with torch.inference_mode():
                decoded, state = self.forecaster.advance(
                    state, values, ~values.isnan(), times, torch.from_numpy(here_O - ticks.start), known
                )
            rows_O = np.flatnonzero(np.isin(here_O, wanted_O))
            quantiles_OBHQ = decoded.numpy()
            calibrated_OBHQ = quantiles_OBHQ if calibration is None else calibration.advance(quantiles_OBHQ, values.numpy(), rows_O)
            if len(rows_O):
                yield Block(columns_B, here_O[rows_O], calibrated_OBHQ, quantiles_OBHQ[rows_O])
        self.carried.replace(index, state)
        if self.calibration is not None and calibration is not None:
            self.calibration.replace(columns_B, calibration.state)

    def _calibration_of(self, columns_B: NDArray[np.int64]) -> OnlineCalibration | None:
        if self.calibration is None:
            return None
        config = self.forecaster.config
        return OnlineCalibration(config.horizon, config.quantile_levels, state=self.calibration.select(columns_B))

    def _spans(self, num_ticks: int, decoded_O: NDArray[np.int64], num_series: int) -> Iterator[slice]:
        """Cut the ticks into stretches whose states and forecasts fit into memory."""
        config = self.forecaster.config
        most_ticks = max(1, CHUNK_CELLS // num_series)
        most_origins = max(1, CHUNK_QUANTILES // (num_series * config.horizon * len(config.quantile_levels)))
        start = 0
        while start < num_ticks:
            stop = min(start + most_ticks, num_ticks)
            here_O = decoded_O[(decoded_O >= start) & (decoded_O < stop)]
            if len(here_O) > most_origins:
                stop = int(here_O[most_origins])
            yield slice(start, stop)
            start = stop
