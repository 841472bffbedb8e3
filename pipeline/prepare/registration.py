"""What the catalog learns from readings: the spans of series, their aggregations, and their grids once they are clear.

Called by `pipeline.prepare.regularise`.
"""

import logging

import polars as pl
from deltalake import DeltaTable

from pipeline.prepare.grid import grids_of, infer_grids
from pipeline.schemas import MICROSECOND, Readings
from pipeline.settings import Settings
from pipeline.store.catalog import Catalog
from pipeline.store.labels import labels_of
from pipeline.store.lake import Lake, read
from pipeline.store.unit_conversion import canonical_name

logger = logging.getLogger(__name__)


def register_series(lake: Lake, catalog: Catalog, changed: pl.DataFrame, settings: Settings, stored: DeltaTable) -> pl.DataFrame:
    """Update the catalog from changed readings (spans, aggregations, units, and grids once they are clear) and return its series.

    A stored aggregation or grid is kept: a history on two grids would be no series.

    Args:
        lake: its readings decide the grid of a series that has none yet.
        catalog: is updated.
        changed: series_id, device_id, metric, unit, ts of readings that are new, or not taken in by this catalog.
        settings: aggregations and units of metrics, and the sample interval where it is set.
        stored: the observations; a series that they hold keeps the grid it has there.

    Returns:
        Every series, in the columns of `SERIES_COLUMNS`.
    """
    names = (pl.col("device_id", "metric").last(), pl.col("unit").drop_nulls().last())
    seen = changed.group_by("series_id").agg(*names, first_ts=pl.col("ts").min(), last_ts=pl.col("ts").max())
    known = catalog.series()
    news = seen.join(known.select("series_id", old_first="first_ts", old_last="last_ts"), on="series_id", how="left").filter(
        pl.col("old_first").is_null() | (pl.col("first_ts") < pl.col("old_first")) | (pl.col("last_ts") > pl.col("old_last"))
    )
    if not news.is_empty():
        catalog.upsert_series(news.select(seen.columns))
        known = catalog.series()
    decided = _decided(lake, known, seen, settings, stored)
    if not decided.is_empty():
        catalog.upsert_series(decided)
        known = catalog.series()
    declared = _declared_otherwise(known, settings)
    if not declared.is_empty():
        catalog.upsert_series(declared)
        known = catalog.series()
    _tell_what_is_ignored(known, settings)
    return known


def _decided(lake: Lake, known: pl.DataFrame, seen: pl.DataFrame, settings: Settings, stored: DeltaTable) -> pl.DataFrame:
    """Return the series whose aggregation or grid was undecided and is decided now, with both."""
    interval = settings.prepare.sample_interval
    metrics = {name: metric.aggregation for name, metric in settings.metrics.items()}
    gridless = known.filter(pl.col("sample_interval_us").is_null()).join(seen, on="series_id", how="semi").select("series_id", "first_ts")
    kept = grids_of(labels_of(stored, gridless["series_id"].to_list()))  # where only the catalog was lost
    new = gridless.join(kept, on="series_id", how="anti")
    grids = pl.concat([kept, infer_grids(_stamps_of(lake, new), interval).drop_nulls()])
    undecided = known.filter(pl.col("aggregation").is_null() | pl.col("series_id").is_in(grids["series_id"].to_list()))
    return undecided.select(
        "series_id",
        "device_id",
        "metric",
        aggregation=pl.coalesce("aggregation", pl.col("metric").replace_strict(metrics, default="mean", return_dtype=pl.String)),
    ).join(grids, on="series_id", how="left")


def _declared_otherwise(known: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """Return the series whose unit differs from the one that the settings declare for their metric, with the declared one."""
    units = {name: canonical_name(metric.unit) for name, metric in settings.metrics.items() if metric.unit is not None}
    unit = pl.col("metric").replace_strict(units, default=None, return_dtype=pl.String)
    return (
        known.select("series_id", "device_id", "metric", unit=unit, had="unit")
        .filter(pl.col("unit").ne_missing("had"))
        .drop("had")
        .drop_nulls()
    )


def _stamps_of(lake: Lake, series: pl.DataFrame) -> pl.DataFrame:
    """Return series_id, ts of the readings of a few series; `first_ts` of the oldest lets the files before it be skipped."""
    if series.is_empty():
        return Readings.empty()
    scan = lake.scan(Readings).filter(pl.col("ts") >= series["first_ts"].min())
    return read(scan.select("series_id", "ts").join(series.lazy(), on="series_id", how="semi"))


def _tell_what_is_ignored(known: pl.DataFrame, settings: Settings) -> None:
    """Log where the settings ask for another grid than a series already has."""
    interval = settings.prepare.sample_interval
    if interval is not None:
        other = known.filter(pl.col("sample_interval_us") != interval // MICROSECOND)["series_id"]
        if len(other) > 0:
            logger.warning("sample_interval=%s ignored for num_series=%d that have another, as %s", interval, len(other), other[0])
