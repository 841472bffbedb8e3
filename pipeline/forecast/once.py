"""One forecast from a frame alone, without a lake: what the MLflow model answers. Called by `pipeline.tracking.mlflow_model`."""

from datetime import timedelta

import polars as pl

from models.config import ForecasterConfig
from models.forecaster import CausalForecaster
from pipeline.errors import DataError
from pipeline.forecast.engine import StreamEngine
from pipeline.prepare.covariates import CovariateNames
from pipeline.prepare.join_covariates import covariates_of_frame
from pipeline.prepare.sequences import Panel, to_panel
from pipeline.schemas import MICROSECOND, UTC_US
from pipeline.tracking.saved_model import LoadedModel

REQUIRED = ("unique_id", "ds", "y")


def forecast_frame(loaded: LoadedModel, history: pl.DataFrame) -> pl.DataFrame:
    """Forecast every series of a history from its last reading, calibrated by the history before it.

    Args:
        loaded: the model.
        history: unique_id, ds (instants on the model's grid; naive ones are read as UTC), y, and a column for each covariate of the
            model, null where it is not known. Rows after a series' last y are its plan, for a model with known-future covariates.

    Returns:
        unique_id, cutoff, ds and one column for each quantile level, `horizon` rows for each series.

    Raises:
        DataError: when a column is missing or there is nothing to forecast from.
    """
    config = loaded.model.config
    names = CovariateNames(*config.covariate_names)
    required = dict.fromkeys((*REQUIRED, *names.past, *names.future, *names.attributes))
    missing = [name for name in required if name not in history.columns]
    if missing or history.is_empty():
        raise DataError(
            f"A forecast requires rows of {', '.join(required)}; got {history.height} rows without {missing or 'data'}. Add them."
        )
    panel = _panel(history, names, config)
    return pl.concat([_forecast_column(loaded.model, panel, column) for column in range(len(panel.series_ids))])


def _panel(history: pl.DataFrame, names: CovariateNames, config: ForecasterConfig) -> Panel:
    """Lay a history out on the model's grid, with its covariates."""
    history = history.with_columns(series_id=pl.col("unique_id").cast(pl.String), ts=_utc(history.schema["ds"]))
    hindsight = pl.col("^knowledge_time$")  # where there is such a column, the panel refuses what was filled in from both sides
    observations = history.select("series_id", "ts", hindsight, value=pl.col("y").cast(pl.Float64).fill_nan(None))
    if names.future:
        observations = observations.drop_nulls("value")
    interval_us = timedelta(seconds=config.sample_interval_s) // MICROSECOND
    grids = observations.group_by("series_id").agg(
        pl.lit(interval_us, pl.Int64).alias("sample_interval_us"),
        (pl.col("ts").last().dt.timestamp("us") % interval_us).alias("grid_offset_us"),
    )
    panel = to_panel(observations, grids)
    return covariates_of_frame(panel, names, history, horizon=config.horizon) if any(names) else panel


def _forecast_column(model: CausalForecaster, panel: Panel, column: int) -> pl.DataFrame:
    """Forecast one series of a panel from its last tick."""
    config, length = model.config, int(panel.length_B[column])
    part = panel.columns([column])
    engine = StreamEngine.fresh(model, 1, calibrate=True)
    (block,) = engine.advance(part.values_TB[:length], part.time_TB[:length], covariates=part.covariates)
    quantiles_HQ = block.quantiles_OBHQ[0, 0]
    cutoff, interval = panel.label(column, length - 1), timedelta(seconds=config.sample_interval_s)
    return pl.DataFrame(
        {
            "unique_id": [panel.series_ids[column]] * config.horizon,
            "cutoff": [cutoff] * config.horizon,
            "ds": [cutoff + step * interval for step in range(1, config.horizon + 1)],
            **{f"q{level:g}": quantiles_HQ[:, q] for q, level in enumerate(config.quantile_levels)},
        }
    )


def _utc(dtype: pl.DataType) -> pl.Expr:
    ds = pl.col("ds")
    if dtype == pl.String:
        ds = ds.str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False).fill_null(
            ds.str.to_datetime(time_unit="us", strict=False).dt.replace_time_zone("UTC")
        )
    elif isinstance(dtype, pl.Datetime) and dtype.time_zone is None:
        ds = ds.dt.replace_time_zone("UTC")
    return ds.cast(UTC_US)
