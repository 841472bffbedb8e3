"""The forecasts table: one row for each series, origin and model version, written once and never rewritten.

Called by `pipeline.forecast` (append), `pipeline.evaluate` and `pipeline.query` (scan).
"""

from collections.abc import Collection
from datetime import UTC, datetime

import polars as pl
from deltalake import DeltaTable

from pipeline.schemas import Forecasts
from pipeline.store.commits import Fence, append_through
from pipeline.store.lake import Lake
from pipeline.store.new_rows import append_new_by_model


def append_forecasts(lake: Lake, frame: pl.DataFrame, fence: Fence | None = None) -> int:
    """Append the forecasts that were not issued before; one commit, and one fence, for each model version.

    An issued forecast stands: a row whose (series_id, origin, model_version) is stored is left out, whatever it says. Any number of
    processes may write the same origins at once.

    Args:
        lake: the lake.
        frame: rows of `Forecasts`.
        fence: from the lease on forecasting that this process holds.

    Returns:
        How many rows were appended.

    Raises:
        LeaseLostError: when another process has taken over.
        StoreError: when a commit fails or meets conflicts without end.
    """
    return append_new_by_model(lake, Forecasts, frame, stage="forecast", fence=fence)


def claim_forecasts(lake: Lake, fence: Fence) -> None:
    """Record a fence before the first forecast is written under it: from then on no earlier holder commits one.

    Raises:
        LeaseLostError: when a later one is recorded already.
        StoreError: when the commit fails.
    """

    def attempt(handle: DeltaTable) -> None:
        fence.check(handle)
        append_through(handle, Forecasts.empty(), app_id=fence.app_id, seq=fence.token)

    lake.commit(Forecasts, attempt)


def scan_forecasts(
    lake: Lake,
    *,
    series: Collection[str] | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    model_version: str | None = None,
) -> pl.LazyFrame:
    """Return stored forecasts lazily; collect them with `pipeline.store.lake.read`.

    Args:
        lake: the lake.
        series: series ids; None for all.
        start: first origin, inclusive, of any time zone.
        end: last origin, inclusive, of any time zone.
        model_version: one version; None for all.

    Returns:
        Rows of `Forecasts` in no particular order.

    Raises:
        StoreError: when the table is missing or its log is damaged.
    """
    scan = lake.scan(Forecasts)
    if series is not None:
        scan = scan.filter(pl.col("series_id").is_in(list(series)))
    if start is not None:  # the date names the partition, the instant the rows in it; file statistics compare in UTC only
        first = start.astimezone(UTC)
        scan = scan.filter(pl.col("origin_date") >= first.date(), pl.col("origin") >= first)
    if end is not None:
        last = end.astimezone(UTC)
        scan = scan.filter(pl.col("origin_date") <= last.date(), pl.col("origin") <= last)
    if model_version is not None:
        scan = scan.filter(pl.col("model_version") == model_version)
    return scan
