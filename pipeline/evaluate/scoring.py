"""Run the live engine over past origins and score what it says beside the baselines, on the very same points.

Called by `pipeline.evaluate.backtest` over the lake and by `pipeline.train` over the panel it trained on.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from models.config import ForecasterConfig
from models.forecaster import CausalForecaster
from pipeline.errors import DataError
from pipeline.evaluate.baselines import last_value, seasonal_naive
from pipeline.evaluate.metrics import ForecastScores, SeasonalScale, moments, seasonal_scale
from pipeline.forecast.engine import Block, StreamEngine
from pipeline.prepare.sequences import Panel

Floats = NDArray[np.float64]

MODEL, UNCALIBRATED = "tidecast", "tidecast, uncalibrated"
SEASONAL_NAIVE, LAST_VALUE = "seasonal naive", "last value"
METRICS = ("mse", "mae", "mase", "rmsse", "wql", "crps", "coverage_80", "width_80")  # those that are reported
METRICS_BY_LEAD = ("mae", "mse", "wql", "coverage_80")


@dataclass(frozen=True)
class Period:
    """The origins to score.

    Attributes:
        start: first origin.
        end: last instant that may be a target.
        stride: ticks between two origins; counted from the epoch, so that series agree on them.
        train_end: scales and standard deviations are taken from what lies before.
    """

    start: datetime
    end: datetime
    train_end: datetime
    stride: int = 1


class Reference(NamedTuple):
    """What the errors of a series are measured by, from its training part alone; see `Period.train_end`."""

    mean: float
    deviation: float
    """1 where there is no spread."""
    scale: SeasonalScale


@dataclass
class Scoreboard:
    """Scores of several forecasters over the same points.

    Squared and absolute errors, CRPS and widths are in standard deviations of each series' training part, so that series of different
    units can be pooled; wQL is in the metrics' own units, as its definition has it.
    """

    horizon: int
    quantile_levels: tuple[float, ...]
    calibrated: bool = True
    standardised: dict[str, ForecastScores] = field(default_factory=dict)
    in_units: dict[str, ForecastScores] = field(default_factory=dict)
    model_seconds: float = 0.0
    num_origins: int = 0

    def add(self, name: str, actual: Floats, quantiles: Floats, against: Reference) -> None:
        """Score a block of one series: actual (O, H) with NaN where unknown, quantiles (O, H, Q)."""
        mean, deviation, scale = against
        for scores in (self.standardised, self.in_units):
            scores.setdefault(name, ForecastScores(self.horizon, self.quantile_levels))
        relative = SeasonalScale(np.asarray(scale.absolute) / deviation, np.asarray(scale.squared) / deviation)
        self.standardised[name].add((actual - mean) / deviation, (quantiles - mean) / deviation, relative)
        self.in_units[name].add(actual, quantiles)

    def overall(self) -> pl.DataFrame:
        """Return one row for each forecaster, over all steps."""
        return self._table(ForecastScores.overall)

    def by_step(self) -> pl.DataFrame:
        """Return one row for each forecaster and step."""
        return self._table(ForecastScores.by_step)

    def by_lead(self) -> dict[str, list[float]]:
        """Return those metrics of the model that are followed by lead: one value for each step."""
        ours = self.by_step().filter(model=MODEL)
        return {metric: ours[metric].to_list() for metric in METRICS_BY_LEAD}

    def skill(self, metric: str) -> float:
        """Return 1 − metric / metric of the seasonal naive forecast: above 0 is better than it; NaN where that was not scored."""
        table = self.overall()
        ours, theirs = (table.filter(model=name)[metric].to_list() for name in (MODEL, SEASONAL_NAIVE))
        return 1 - ours[0] / theirs[0] if ours and theirs and theirs[0] else float("nan")

    def _table(self, of: Callable[[ForecastScores], pl.DataFrame]) -> pl.DataFrame:
        parts = []
        for name, scores in self.standardised.items():
            frame = of(scores).with_columns(of(self.in_units[name])["wql"])
            parts.append(frame.insert_column(0, pl.Series("model", [name] * frame.height)))
        return pl.concat(parts)


def score_forecaster(
    forecaster: CausalForecaster, inputs: Panel, truth: Panel, period: Period, *, baselines: bool = True, calibrate: bool = True
) -> Scoreboard:
    """Forecast every origin of a period in one pass over the history, and score it.

    Every origin whose whole horizon lies inside the period is scored, whatever the batch; points without an observation are not.

    Args:
        forecaster: to score.
        inputs: what was known when each tick closed.
        truth: what is known now; the same series and first ticks as `inputs`.
        period: which origins.
        baselines: whether to score seasonal naive and last value too.
        calibrate: whether to calibrate as the live engine does, from the first tick on; the network's own quantiles are scored too then.

    Raises:
        DataError: when the period holds no origin with a whole horizon.
    """
    config = forecaster.config
    board = Scoreboard(config.horizon, config.quantile_levels, calibrated=calibrate)
    actuals_TB = _padded(truth.values_TB, inputs.values_TB.shape[0])
    for columns_B, origins_O in origin_groups(inputs, period, config.horizon):
        targets_OH = origins_O[:, None] + np.arange(1, config.horizon + 1)
        board.num_origins += len(origins_O) * len(columns_B)
        for block in _forecasts(forecaster, inputs, columns_B, origins_O, board):
            for b, column in enumerate(columns_B[block.columns_B]):
                actual_OH = actuals_TB[block.origins_O[:, None] + np.arange(1, config.horizon + 1), column]
                against = reference(truth, column, period, season_of(config))
                board.add(MODEL, actual_OH, block.quantiles_OBHQ[:, b], against)
                if calibrate:
                    board.add(UNCALIBRATED, actual_OH, block.uncalibrated_OBHQ[:, b], against)
        for column in columns_B if baselines else ():
            against = reference(truth, column, period, season_of(config))
            for name, quantiles_OHQ in _baselines(inputs.values_TB[:, column], origins_O, board, season_of(config)):
                board.add(name, actuals_TB[targets_OH, column], quantiles_OHQ, against)
    if not board.num_origins:
        num_ticks = max((period.end - period.start) // truth.interval, 0)
        observed = "" if num_ticks < config.horizon else " without a series that was observed on time"
        raise DataError(
            f"A score requires a period of at least {config.horizon} ticks, the horizon, in which a series was observed; got {num_ticks}"
            f"{observed}, from {period.start:%Y-%m-%d %H:%M} to {period.end:%Y-%m-%d %H:%M} UTC. "
            "Widen the period, ingest more, or use a model with a shorter horizon."
        )
    return board


def season_of(config: ForecasterConfig) -> int:
    """Return the season of the naive baseline and the scales: the shortest, or one tick where there is none."""
    return min(config.seasons, default=1)


def origin_groups(panel: Panel, period: Period, horizon: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield columns that share their origins, with these: rows from the period's start to a horizon before its end."""
    first_B = np.maximum(panel.rows_until(period.start) - 1, _first_observed(panel))
    last_B = np.minimum(panel.rows_until(period.end), panel.length_B) - 1 - horizon
    # rows_until is clipped at the panel; a period that starts after a series' end has no origin in it
    ended_B = np.array([panel.label(b, int(panel.length_B[b]) - 1) < period.start for b in range(len(panel.series_ids))])
    unseen_B = ~panel.observed_TB.any(axis=0)  # nothing was known on time: there is nothing to forecast from
    keys = np.stack([panel.first_tick_B, first_B, last_B, ended_B | unseen_B], axis=1)
    for key in np.unique(keys, axis=0):
        first_tick, first, last, ended = (int(part) for part in key)
        rows = np.arange(first, last + 1, dtype=np.int64)
        rows = rows[(first_tick + rows) % period.stride == 0]
        if len(rows) and not ended:
            yield np.flatnonzero((keys == key).all(axis=1)), rows


def _first_observed(panel: Panel) -> NDArray[np.int64]:
    rows_B: NDArray[np.int64] = panel.observed_TB.argmax(axis=0)
    return rows_B


def _forecasts(
    forecaster: CausalForecaster, inputs: Panel, columns_B: NDArray[np.int64], origins_O: NDArray[np.int64], board: Scoreboard
) -> Iterator[Block]:
    """Yield the engine's forecasts, timing the engine alone."""
    until = int(origins_O[-1]) + 1
    engine = StreamEngine.fresh(forecaster, len(columns_B), calibrate=board.calibrated)
    part = inputs.columns(columns_B)
    blocks = engine.advance(part.values_TB[:until], part.time_TB[:until], origins_O, part.covariates)
    while True:
        started = time.perf_counter()
        block = next(blocks, None)
        board.model_seconds += time.perf_counter() - started
        if block is None:
            return
        yield block


def _baselines(values_T: Floats, origins_O: NDArray[np.int64], board: Scoreboard, season: int) -> Iterator[tuple[str, Floats]]:
    origins = origins_O.tolist()
    levels = board.quantile_levels
    yield SEASONAL_NAIVE, seasonal_naive(values_T, origins, horizon=board.horizon, season=season, quantile_levels=levels)
    yield LAST_VALUE, last_value(values_T, origins, horizon=board.horizon, quantile_levels=levels)


def reference(truth: Panel, column: int, period: Period, season: int) -> Reference:
    """Return mean, standard deviation and seasonal scale of a series before `period.train_end`."""
    past_T = truth.values_TB[: int(truth.rows_until(period.train_end)[column]), column]
    return Reference(*moments(past_T), seasonal_scale(past_T, season))


def _padded(values_TB: Floats, num_ticks: int) -> Floats:
    missing = max(0, num_ticks - values_TB.shape[0])
    return np.pad(values_TB, ((0, missing), (0, 0)), constant_values=np.nan)
