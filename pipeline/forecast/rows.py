"""Quantiles of the engine become rows of the forecasts table. Called by `pipeline.forecast.rolling`."""

from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from models.config import ForecasterConfig
from pipeline.forecast.engine import Block
from pipeline.prepare.sequences import Panel
from pipeline.schemas import Forecasts

LARGEST = float(np.finfo(np.float32).max)


def status_of(
    values_TB: NDArray[np.float64], seen_B: NDArray[np.int64], config: ForecasterConfig, ends_B: NDArray[np.bool_]
) -> NDArray[np.str_]:
    """Name what each origin of a panel rests on (T, B).

    `silent`: the series has stopped and the rest of the fleet has gone on · `cold_start`: fewer observations so far than the
    highway reads · `degraded`: under half of the last season (or 24 ticks) was observed · else `ok`.

    Args:
        values_TB: NaN where not observed.
        seen_B: observations before row 0.
        config: of the forecaster.
        ends_B: series that have stopped.
    """
    observed_TB = ~np.isnan(values_TB)
    counts_TB = seen_B + observed_TB.cumsum(0)
    window = min(config.seasons, default=24)
    totals_TB = np.vstack([np.zeros_like(seen_B)[None], observed_TB.cumsum(0)])
    rows_T = np.arange(len(values_TB))
    recent_TB = totals_TB[rows_T + 1] - totals_TB[np.maximum(rows_T + 1 - window, 0)]
    # Rows before the panel are not looked at again: a stretch shorter than the window is judged by its own share.
    is_sparse_TB = recent_TB * 2 < np.minimum(rows_T + 1, window)[:, None]
    status_TB = np.where(is_sparse_TB, "degraded", "ok")
    status_TB = np.where(counts_TB < config.context_length, "cold_start", status_TB)
    return np.where(ends_B, "silent", status_TB)


def forecast_rows(
    block: Block,
    panel: Panel,
    columns_B: NDArray[np.int64],
    status_TB: NDArray[np.str_],
    config: ForecasterConfig,
    *,
    model_version: str,
    input_version: int,
    created_at: datetime,
) -> pl.DataFrame:
    """Return rows of `Forecasts`, one for each origin and series of a block.

    A forecast that is not finite (a reading of 1e300 does that to any model) is replaced by the series' last value and
    says so in its status: one broken sensor must not stop the fleet.

    Args:
        block: of the engine; its columns index `columns_B`.
        panel: that was advanced.
        columns_B: the panel's columns that the engine was given.
        status_TB: of the panel's ticks and columns.
        config: of the forecaster.
        model_version: registry version.
        input_version: Delta version of observations.
        created_at: issue time.
    """
    num_origins, num_series = block.quantiles_OBHQ.shape[:2]
    columns = columns_B[block.columns_B]
    with np.errstate(over="ignore"):  # what does not fit single precision becomes infinite, and so a fallback
        flat_NHQ = block.quantiles_OBHQ.reshape(num_origins * num_series, -1).astype(np.float32)
    status_N = status_TB[block.origins_O][:, columns].ravel()
    is_finite_N = np.isfinite(flat_NHQ).all(axis=1)
    if not is_finite_N.all():
        last_N1 = _filled(panel.values_TB[:, columns])[block.origins_O].reshape(-1, 1)
        flat_NHQ[~is_finite_N] = np.nan_to_num(last_N1[~is_finite_N]).clip(-LARGEST, LARGEST)
        status_N = np.where(is_finite_N, status_N, "fallback_last_value")
    ticks_OB = panel.first_tick_B[columns] + block.origins_O[:, None]
    origin_us_N = (ticks_OB * panel.interval_us + panel.offset_us_B[columns]).ravel()
    frame = pl.DataFrame(
        {
            "series_id": np.tile(np.array(panel.series_ids, dtype=object)[columns], num_origins),
            "origin": pl.Series(origin_us_N).cast(pl.Datetime("us", "UTC")),
            "quantiles": pl.Series(flat_NHQ, dtype=pl.Array(pl.Float32, flat_NHQ.shape[1])).cast(pl.List(pl.Float32)),
            "status": status_N.astype(object),
        }
    ).with_columns(
        horizon=pl.lit(config.horizon),
        sample_interval_us=pl.lit(panel.interval_us),
        quantile_levels=pl.lit(list(config.quantile_levels), dtype=pl.List(pl.Float32)),
        model_version=pl.lit(model_version),
        input_version=pl.lit(input_version),
        created_at=pl.lit(created_at),
        origin_date=pl.col("origin").dt.date(),
    )
    return Forecasts.conform(frame)


def _filled(values_TB: NDArray[np.float64]) -> NDArray[np.float64]:
    rows_TB = np.where(np.isnan(values_TB), 0, np.arange(len(values_TB))[:, None])
    return np.take_along_axis(values_TB, np.maximum.accumulate(rows_TB), axis=0)
