"""Which ticks the observations hold: their labels, without reading history where the last of them tell enough.

Called by `pipeline.prepare.due_ticks` and `pipeline.prepare.registration`.
"""

from collections.abc import Collection, Sequence
from datetime import datetime

import polars as pl
from deltalake import DeltaTable

from pipeline.schemas import Observations
from pipeline.store.lake import read, scan_handle
from pipeline.store.observations import TICK, observations_between


def stored_spans(handle: DeltaTable, wanted: pl.DataFrame, recent: Sequence[datetime]) -> pl.DataFrame:
    """Return the first and last stored label of each series, without reading history where the last labels tell enough.

    Between the two there may be holes: `stored_labels` tells which ticks are there.

    Args:
        handle: the table.
        wanted: series_id, changed_from (the earliest stamp that changed; null where none did).
        recent: instants, latest first. Labels are read from the first instant on; then, for series whose rows do not reach back to
            `changed_from`, from the next instant on. Series that remain are read from their start.

    Returns:
        series_id, stored_first, stored_last; no row for a series that is not stored. `stored_first` is the first label that was read; if
        that is not the first label of the series, it is at or before `changed_from`.
    """
    scan, settled = scan_handle(handle), []
    for start in recent:
        lately = _spans(observations_between(scan, start, None), wanted)
        reaches = pl.col("changed_from").is_null() | (pl.col("stored_first") <= pl.col("changed_from"))
        settled.append(lately.join(wanted, on="series_id").filter(reaches).select(lately.columns))
        wanted = wanted.join(settled[-1], on="series_id", how="anti")
        if wanted.is_empty():
            return pl.concat(settled)
    return pl.concat([*settled, _spans(scan, wanted)])


def stored_labels(handle: DeltaTable, ticks: pl.DataFrame) -> pl.DataFrame:
    """Return which of the given ticks (series_id, ts: distinct labels) have a row, reading only the days they are in."""
    if ticks.is_empty():
        return ticks.select(TICK)
    days = ticks["ts"].dt.date().unique().to_list()
    near = pl.col("event_date").is_in(days) & pl.col("ts").is_between(ticks["ts"].min(), ticks["ts"].max())
    return read(scan_handle(handle).filter(near).select(TICK).join(ticks.lazy(), on=TICK, how="semi")).unique()


def labels_of(handle: DeltaTable, series: Collection[str]) -> pl.DataFrame:
    """Return series_id, ts of all stored ticks of some series, sorted; reads the whole history of these."""
    if not series:
        return Observations.empty().select(TICK)
    return read(scan_handle(handle).filter(pl.col("series_id").is_in(list(series))).select(TICK)).unique().sort(TICK)


def _spans(scan: pl.LazyFrame, wanted: pl.DataFrame) -> pl.DataFrame:
    labels = scan.select(TICK).join(wanted.lazy().select("series_id"), on="series_id", how="semi")
    return read(labels.group_by("series_id").agg(stored_first=pl.col("ts").min(), stored_last=pl.col("ts").max()))
