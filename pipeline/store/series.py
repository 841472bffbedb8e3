"""Which series there are, in which state, and the retiring of some: `tidecast series` and `tidecast retire` below the command line."""

from collections.abc import Collection, Sequence

import polars as pl

from pipeline.clock import Clock
from pipeline.errors import DataError
from pipeline.settings import Settings
from pipeline.store.catalog import Catalog
from pipeline.store.catalog_file import FILE_NAME
from pipeline.store.patterns import matches
from pipeline.store.series_state import State, StateRules, with_state

LISTED = ("series_id", "state", "unit", "sample_interval", "first_ts", "last_ts", "last_received", "retired_at")


def list_series(
    settings: Settings, clock: Clock, *, patterns: Sequence[str] | None = None, states: Collection[State] | None = None
) -> pl.DataFrame:
    """Return the series that match, in the columns of `LISTED`: sample_interval is a duration, null until it is known.

    Args:
        settings: the state folder, and what states depend on.
        clock: says since when a series is silent.
        patterns: globs of series ids; None takes all.
        states: None takes all.

    Raises:
        DataError: when nothing was ever ingested.
        StoreError: when the catalog cannot be read.
    """
    rules = StateRules(settings.ingest.idle_timeout, settings.forecast.retire_after, settings.train.context_length)
    series = with_state(_catalog(settings).series(), clock.now(), rules)
    if patterns:
        series = series.filter(matches("series_id", patterns))
    if states:
        series = series.filter(pl.col("state").is_in(list(states)))
    interval = pl.duration(microseconds="sample_interval_us").alias("sample_interval")
    return series.with_columns(interval).select(LISTED)


def retire_series(settings: Settings, clock: Clock, patterns: Sequence[str], *, undo: bool = False) -> list[str]:
    """Retire the series that match: no forecast of them any more, whatever arrives; their history stays.

    Args:
        settings: the state folder.
        clock: says since when.
        patterns: globs of series ids; each must match at least one.
        undo: take it back instead.

    Returns:
        The ids of the series that match, in order.

    Raises:
        DataError: naming the first pattern that matches nothing; then nothing is retired.
        StoreError: when the catalog cannot be written.
    """
    catalog = _catalog(settings)
    series = catalog.series()
    for pattern in patterns:
        if series.filter(matches("series_id", [pattern])).is_empty():
            raise DataError(f"tidecast retire requires series that match {pattern!r}; got none. `tidecast series` lists those there are.")
    chosen = series.filter(matches("series_id", patterns))["series_id"].to_list()
    if undo:
        catalog.unretire(chosen)
    else:
        catalog.retire(chosen, clock.now())
    return chosen


def _catalog(settings: Settings) -> Catalog:
    if not (settings.state_dir / FILE_NAME).is_file():
        raise DataError(
            f"A list of series requires a catalog; got {settings.state_dir}, which has none. "
            "Run `tidecast ingest` or `tidecast listen` first."
        )
    return Catalog(settings.state_dir)
