"""The plans table: what was announced of instants to come, and which value of it a forecaster may read.

Plans are revised, and a forecast made today must not read tomorrow's revision. Therefore each tick has one fixed value: the newest one
available a whole horizon before it, which every origin that reaches the tick knows. Called by ingest (append) and prepare (read).
"""

from collections.abc import Collection
from datetime import datetime

import polars as pl

from pipeline.schemas import Plans
from pipeline.store.lake import Lake, read
from pipeline.store.new_rows import append_new
from pipeline.store.observations import observations_between
from pipeline.store.readings import fence

SOURCE = "plan"  # all runs over files of plans share one fence
ANNOUNCED = ("series_id", "ts", "value")


def append_plans(lake: Lake, frame: pl.DataFrame, *, is_assumed: bool) -> int:
    """Append announcements, each once.

    Args:
        lake: the lake.
        frame: rows of `Plans`.
        is_assumed: whether `available_at` was assumed. If so, a value that is already stored for its instant and was available by
            then is a repeated announcement, not a revision.

    Returns:
        How many rows were new.

    Raises:
        StoreError: when the table cannot be read, or a commit fails.
    """
    rows = Plans.conform(frame)
    if is_assumed and not rows.is_empty():
        start, end = rows.select(pl.col("ts").min(), last=pl.col("ts").max()).row(0)
        stored = read_plans(lake, series=rows["series_id"].unique().to_list(), start=start, end=end)
        since = stored.group_by(ANNOUNCED).agg(since=pl.col("available_at").min())
        is_known = pl.col("since") <= pl.col("available_at")
        rows = rows.join(since, on=ANNOUNCED, how="left", maintain_order="left").filter(~is_known.fill_null(value=False)).drop("since")
    return append_new(lake, Plans, rows, app_id=fence(SOURCE))


def read_plans(
    lake: Lake, *, series: Collection[str] | None = None, start: datetime | None = None, end: datetime | None = None
) -> pl.DataFrame:
    """Return all announcements of some series for the instants from `start` to `end`, both inclusive.

    Of several for one instant, the one with the greatest (available_at, ingested_at) is the newest.

    Raises:
        StoreError: when the table cannot be read.
    """
    scan = observations_between(lake.scan(Plans), start, end)
    if series is not None:
        scan = scan.filter(pl.col("series_id").is_in(list(series)))
    return read(scan)
