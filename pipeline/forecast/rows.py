"""Quantiles of the engine become rows of the forecasts table. Called by `pipeline.forecast.rolling`."""

from datetime import datetime
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from models.config import ForecasterConfig
from pipeline.forecast.engine import Block
from pipeline.prepare.sequences import Panel
from pipeline.schemas import UTC_US, Forecasts


class Issue(NamedTuple):
    """What the forecasts of one run share: `LoadedModel.identity`, the Delta version of observations, the instant."""

    model_version: str
    input_version: int
    created_at: datetime


def status_of(
    values_TB: NDArray[np.float64],
    seen_B: NDArray[np.int64],
    since_B: NDArray[np.int64],
    config: ForecasterConfig,
    ends_B: NDArray[np.bool_],
) -> NDArray[np.str_]:
    """Return the status of the forecasts of each origin of a panel (T, B), whether its ticks come one by one or all at once.

    `silent`: the series has stopped and the rest of the fleet has gone on · `cold_start`: fewer observations so far than the
    highway reads · `degraded`: nothing was observed for over half of a season (or 24 ticks) · else `ok`.

    Args:
        values_TB: NaN where not observed.
        seen_B: observations before row 0.
        since_B: ticks since the last observation, before row 0.
        config: the forecaster's.
        ends_B: series that have stopped.
    """
    observed_TB, rows_T1 = ~np.isnan(values_TB), np.arange(len(values_TB))[:, None]
    last_TB = np.maximum.accumulate(np.where(observed_TB, rows_T1, -1))
    since_TB = np.where(last_TB >= 0, rows_T1 - last_TB, since_B + 1 + rows_T1)
    status_TB = np.where(since_TB * 2 > min(config.seasons, default=24), "degraded", "ok")
    status_TB = np.where(seen_B + observed_TB.cumsum(0) < config.context_length, "cold_start", status_TB)
    return np.where(ends_B, "silent", status_TB)


def forecast_rows(
    block: Block,
    panel: Panel,
    columns_B: NDArray[np.int64],
    status_TB: NDArray[np.str_],
    last_B: NDArray[np.float64],
    config: ForecasterConfig,
    issue: Issue,
) -> pl.DataFrame:
    """Return rows of `Forecasts`, one for each origin and series of a block.

    A forecast that is not finite is replaced by the series' last value and says so in its status: one series must not stop
    the fleet.

    Args:
        block: the engine's output; its columns index `columns_B`.
        panel: the panel that was advanced.
        columns_B: the panel's columns that the engine was given.
        status_TB: one for each tick and column of the panel.
        last_B: last value of each of `columns_B` before the panel.
        config: the forecaster's.
        issue: what all rows share.
    """
    num_origins, num_series = block.quantiles_OBHQ.shape[:2]
    columns = columns_B[block.columns_B]
    with np.errstate(over="ignore"):  # what does not fit single precision becomes infinite, which makes it a fallback
        flat_NHQ = block.quantiles_OBHQ.reshape(num_origins * num_series, -1).astype(np.float32)
    status_N = status_TB[block.origins_O][:, columns].ravel()
    is_finite_N = np.isfinite(flat_NHQ).all(axis=1)
    if not is_finite_N.all():
        last_N1 = _filled(panel.values_TB[:, columns], last_B[block.columns_B])[block.origins_O].reshape(-1, 1)
        flat_NHQ[~is_finite_N] = last_N1[~is_finite_N].astype(np.float32)
        status_N = np.where(is_finite_N, status_N, "fallback_last_value")
    origin_us_N = panel.labels_us(block.origins_O[:, None], columns).ravel()
    frame = pl.DataFrame(
        {
            "series_id": np.tile(np.array(panel.series_ids, dtype=object)[columns], num_origins),
            "origin": pl.Series(origin_us_N).cast(UTC_US),
            "quantiles": pl.Series(flat_NHQ, dtype=pl.Array(pl.Float32, flat_NHQ.shape[1])).cast(pl.List(pl.Float32)),
            "status": status_N.astype(object),
        }
    ).with_columns(
        horizon=pl.lit(config.horizon),
        sample_interval_us=pl.lit(panel.interval_us),
        quantile_levels=pl.lit(list(config.quantile_levels), dtype=pl.List(pl.Float32)),
        model_version=pl.lit(issue.model_version),
        input_version=pl.lit(issue.input_version),
        created_at=pl.lit(issue.created_at),
        origin_date=pl.col("origin").dt.date(),
    )
    return Forecasts.conform(frame)


def _filled(values_TB: NDArray[np.float64], last_B: NDArray[np.float64]) -> NDArray[np.float64]:
    with_last_TB = np.vstack([last_B[None], values_TB])
    rows_TB = np.where(np.isnan(with_last_TB), 0, np.arange(len(with_last_TB))[:, None])
    return np.take_along_axis(with_last_TB, np.maximum.accumulate(rows_TB), axis=0)[1:]
