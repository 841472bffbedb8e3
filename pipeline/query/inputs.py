"""What a forecast could know: the observations behind it, each in the revision that was known when it was made.

Called by the verb `query --inputs` and by notebooks. Reads by knowledge time alone, which the rows themselves carry: it works for any
age of forecast and on a copied lake, where a version of a Delta table can be read for seven days only.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

import polars as pl

from pipeline.errors import DataError, SettingsError
from pipeline.schemas import Forecasts, Observations
from pipeline.store.lake import Lake
from pipeline.store.observations import read_observations, read_progress

FORECAST = ("series_id", "origin", "model_version", "input_version", "created_at")
INPUT = ("ts", "value", "observed", "revision", "available_at")


def observations_as_known(lake: str, series: Sequence[str], origin: datetime, *, known_at: datetime | None = None) -> pl.DataFrame:
    """Return the observations that a forecast from `origin` could see: labels up to the origin, each as it was known.

    A covariate's own series can be asked for in the same way.

    Args:
        lake: folder or URI of the lake.
        series: series ids.
        origin: label of the last tick that the forecast used, UTC.
        known_at: the instant of knowledge, such as a forecast's `created_at`; None for the instant at which the origin's tick closed,
            `origin + allowed_lateness`, which is what a forecast made on time could see.

    Returns:
        Rows of `Observations` sorted by (series_id, ts), the last revision with `available_at <= known_at` of each tick.

    Raises:
        SettingsError: for a naive instant.
        DataError: where `known_at` is None and the table does not say how long its ticks stay open.
        StoreError: where the lake cannot be read.
    """
    naive = [instant for instant in (origin, known_at) if instant is not None and instant.tzinfo is None]
    if naive:
        raise SettingsError(f"Observations as known require instants with a time zone; got {naive[0]}. Add one, as in {naive[0]}Z.")
    store = Lake(lake)
    return read_observations(store, series=series, end=origin, as_of=known_at or origin + _allowed_lateness(store))


def query_inputs(lake: str, forecasts: pl.DataFrame) -> pl.DataFrame:
    """Return what each of some forecasts could see when it was made.

    Args:
        lake: folder or URI of the lake.
        forecasts: as `query_forecasts` returns it; a forecast counts once, whatever steps of it are there.

    Returns:
        `series_id, origin, model_version, input_version, created_at` of the forecast, then `ts, value, observed, revision,
        available_at` of the observation; sorted by the first three and by ts.

    Raises:
        StoreError: where the lake cannot be read.
    """
    asked = forecasts.select(FORECAST).unique()
    parts = [_seen_by(lake, alike) for alike in asked.partition_by("origin", "created_at")]
    columns = {name: Forecasts.columns[name] for name in FORECAST} | {name: Observations.columns[name] for name in INPUT}
    return pl.concat([pl.DataFrame(schema=columns), *parts]).sort("series_id", "origin", "model_version", "ts")


def _seen_by(lake: str, forecasts: pl.DataFrame) -> pl.DataFrame:
    """Return the inputs of forecasts that share their origin and the instant at which they were made."""
    origin, created_at = forecasts.select("origin", "created_at").row(0)
    known = observations_as_known(lake, forecasts["series_id"].unique().to_list(), origin, known_at=created_at)
    return forecasts.join(known.select("series_id", *INPUT), on="series_id").select(*FORECAST, *INPUT)


def _allowed_lateness(store: Lake) -> timedelta:
    progress = read_progress(store.open(Observations))
    if progress is None:
        raise DataError(
            f"Observations as known to an origin require a table that says how long its ticks stay open; got {store.uri!r}, which was "
            "never regularised. Give known_at, or run `tidecast ingest` or `tidecast forecast`."
        )
    return progress.allowed_lateness
