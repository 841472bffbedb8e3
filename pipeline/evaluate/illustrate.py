"""The two pictures of a scored period: some forecasts as fans, and error and coverage by lead time.

Called by `pipeline.train.train`, which logs them with the run, and by `pipeline.evaluate.backtest`.
"""

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from models.forecaster import CausalForecaster
from pipeline.evaluate.baselines import seasonal_naive
from pipeline.evaluate.pictures import MAX_FANS, Fan, draw_fans, draw_leads
from pipeline.evaluate.scoring import Period, Scoreboard, origin_groups, season_of
from pipeline.forecast.engine import StreamEngine
from pipeline.prepare.sequences import Panel

CONTEXT_HORIZONS = 3  # ticks shown before the origin, in horizons: a forecast must not drown in its past


def illustrate(
    board: Scoreboard,
    forecaster: CausalForecaster,
    inputs: Panel,
    truth: Panel,
    period: Period,
    folder: Path,
    units: dict[str, str | None] | None = None,
) -> list[Path]:
    """Draw `fans.png` and `leads.png` of a scored period into a folder.

    Args:
        board: the scores.
        forecaster: that was scored.
        inputs: what it read.
        truth: what came true.
        period: the origins scored.
        folder: made where it does not exist.
        units: of the series, for the axes.

    Returns:
        The paths of the two pictures.
    """
    by_step = board.by_step()
    frames = {str(name): frame for (name,), frame in by_step.partition_by("model", as_dict=True, maintain_order=True).items()}
    leads = draw_leads(frames, folder / "leads.png", sample_interval=inputs.interval)
    fans = _fans(forecaster, inputs, truth, period, units or {}, calibrated=board.calibrated)
    return [draw_fans(fans, folder / "fans.png"), leads]


def _fans(
    forecaster: CausalForecaster, inputs: Panel, truth: Panel, period: Period, units: dict[str, str | None], *, calibrated: bool
) -> list[Fan]:
    """Return forecasts from the last scored origin of up to six series, of different metrics where there are some."""
    origins = {b: int(rows[-1]) for columns, rows in origin_groups(inputs, period, forecaster.config.horizon) for b in columns.tolist()}
    chosen = [(b, origins[b], units.get(inputs.series_ids[b])) for b in _chosen(inputs, sorted(origins))]
    return [_fan(forecaster, inputs, truth, b, row, unit, calibrated=calibrated) for b, row, unit in chosen]


def _chosen(panel: Panel, columns: list[int]) -> list[int]:
    ids = pl.DataFrame({"column": columns, "series_id": [panel.series_ids[b] for b in columns]})
    metric = pl.col("series_id").str.split("/").list.last()
    turn = ids.with_columns(turn=pl.int_range(pl.len()).over(metric)).sort("turn", "column")
    return sorted(turn["column"].head(MAX_FANS).to_list())


def _fan(forecaster: CausalForecaster, inputs: Panel, truth: Panel, column: int, row: int, unit: str | None, *, calibrated: bool) -> Fan:
    config = forecaster.config
    until = slice(0, row + 1)
    engine = StreamEngine.fresh(forecaster, 1, calibrate=calibrated)
    part = inputs.columns([column])
    (block,) = list(engine.advance(part.values_TB[until], part.time_TB[until], covariates=part.covariates))
    shown = max(CONTEXT_HORIZONS * config.horizon, season_of(config))
    naive = seasonal_naive(inputs.values_TB[until, column], [row], horizon=config.horizon, season=season_of(config), quantile_levels=(0.5,))
    return Fan(
        series_id=inputs.series_ids[column],
        origin=inputs.label(column, row),
        sample_interval=inputs.interval,
        context=inputs.values_TB[max(0, row + 1 - shown) : row + 1, column],
        quantiles=block.quantiles_OBHQ[0, 0],
        quantile_levels=config.quantile_levels,
        actual=_actual(truth, column, row, config.horizon),
        seasonal_naive=naive[0, :, 0],
        unit=unit,
    )


def _actual(truth: Panel, column: int, row: int, horizon: int) -> NDArray[np.float64]:
    actual_H = np.full(horizon, np.nan)
    came = truth.values_TB[row + 1 : row + 1 + horizon, column]
    actual_H[: len(came)] = came
    return actual_H
