"""Which ticks must be computed: ticks whose readings changed, ticks that are not stored yet, and the gaps beside them.

Called by `pipeline.prepare.regularise`.
"""

import logging
from datetime import datetime, timedelta

import polars as pl
from deltalake import DeltaTable

from pipeline.prepare.grid import MAX_GAP, closed_tick_expr, label_expr, tick_expr
from pipeline.schemas import MICROSECOND, UTC_US, Readings
from pipeline.store.labels import labels_of, stored_labels, stored_spans
from pipeline.store.lake import Lake, read
from pipeline.store.observations import Progress
from pipeline.store.unit_conversion import to_unit

logger = logging.getLogger(__name__)

KEY = ("series_id", "tick")
RECENT = timedelta(days=1)  # stored labels looked at before a series is read whole
RECENT_TICKS = 4  # and before that: of a minute's grid a day is 1,440 labels of every series, at every tick


def stale_spans(
    stored: DeltaTable,
    fleet: pl.DataFrame,
    changed: pl.DataFrame,
    progress: Progress | None,
    *,
    allowed_lateness: timedelta,
    closed_until: datetime,
) -> pl.DataFrame:
    """Return the series that may have something new, and between which stamps.

    Args:
        stored: the observations.
        fleet: rows of the catalog.
        changed: series_id, ts of the readings that the observations have not taken in.
        progress: how far the observations have come; None: compute all of them again.
        allowed_lateness: how long after its label a tick closes.
        closed_until: the instant up to which ticks have closed.

    Returns:
        Columns of `fleet`; changed_from (the earliest stamp that changed, null where none did); last (the last closed tick of the
        readings); stored_first, stored_last (labels, as `stored_spans`; null where nothing is stored or all is computed again).
    """
    newest = tick_expr("last_ts")
    has_news = pl.col("changed_from").is_not_null()
    if progress is not None:
        has_news |= newest > closed_tick_expr(progress.closed_until, allowed_lateness)  # it had open ticks then
    spans = (
        fleet.drop_nulls(["sample_interval_us", "first_ts"])
        .join(changed.group_by("series_id").agg(changed_from=pl.col("ts").min()), on="series_id", how="left")
        .filter(has_news)
        .with_columns(last=pl.min_horizontal(newest, closed_tick_expr(closed_until, allowed_lateness)))
    )
    if progress is None:
        return spans.with_columns(stored_first=pl.lit(None, UTC_US), stored_last=pl.lit(None, UTC_US))
    recent = _recent(progress.closed_until - allowed_lateness, fleet)
    return spans.join(stored_spans(stored, spans.select("series_id", "changed_from"), recent), on="series_id", how="left")


def _recent(closed: datetime, fleet: pl.DataFrame) -> list[datetime]:
    """Return how far back to look for stored labels: some ticks of the finest grid, then a day."""
    finest = fleet["sample_interval_us"].drop_nulls().to_list()
    some_ticks = RECENT_TICKS * min(finest, default=0) * MICROSECOND
    return [closed - span for span in sorted({min(some_ticks, RECENT), RECENT})]


def readings_of(lake: Lake, spans: pl.DataFrame) -> pl.DataFrame:
    """Read the readings of new and of open ticks, and for counters of the tick before; the result may hold more.

    Values that were stored in an earlier unit of their series are converted to the present one.
    Series with a reading that came long after its time are read separately, so that the others need not be read as far back.
    """
    columns = ("series_id", "ts", "value", "unit", "received_at", "source_seq")
    if spans.is_empty():
        return Readings.empty().select(columns)
    news = pl.min_horizontal("changed_from", pl.coalesce("stored_last", "first_ts"))
    two_ticks = pl.duration(microseconds=2 * pl.col("sample_interval_us"))
    since = spans.select("series_id", since=news - two_ticks)
    is_old = pl.col("since") < since.select(pl.col("since").max() - RECENT).item()
    scan = lake.scan(Readings).select(columns)
    parts = [part for part in (since.filter(~is_old), since.filter(is_old)) if not part.is_empty()]
    found = pl.concat(
        [
            read(scan.filter(pl.col("ts") > part["since"].min()).join(part.lazy().select("series_id"), on="series_id", how="semi"))
            for part in parts
        ]
    )
    units = spans.select("series_id", pl.col("unit").alias("unit_now"))
    readings, useless = to_unit(found.join(units, on="series_id", how="left", maintain_order="left"), "unit_now")
    if len(useless):
        logger.warning(
            "left out num_readings=%d in units that do not convert, as %s of %s", len(useless), *useless.select("unit", "series_id").row(0)
        )
    return readings.select(columns)


def due_ticks(stored: DeltaTable, spans: pl.DataFrame, changed: pl.DataFrame, readings: pl.DataFrame) -> pl.DataFrame:
    """Return series_id, tick to compute: ticks with changed readings, ticks that are not stored, and the gaps beside the latter.

    Between two ticks with readings every tick has a row, unless there are more than `MAX_GAP`: then none has. The rows therefore depend on
    the readings alone, not on their order: a reading in a hole can only add rows.
    """
    held = readings.join(spans, on="series_id").select("series_id", tick=tick_expr()).unique()
    news = changed.join(spans, on="series_id").select("series_id", tick=tick_expr()).unique()
    kinds = spans.select("series_id", "aggregation", "last", bottom=tick_expr("stored_first"), top=tick_expr("stored_last"))
    after = (
        news.join(kinds.filter(pl.col("aggregation") == "counter"), on="series_id")
        .select("series_id", pl.col("tick") + 1)  # its increment starts at the changed tick
        .join(held, on=KEY, how="semi")
    )
    is_behind = pl.col("top").is_null() | (pl.col("tick") > pl.col("top"))
    opened = held.join(kinds, on="series_id").filter(is_behind).select(KEY)
    ahead = news.join(kinds, on="series_id").filter(pl.col("tick") < pl.col("bottom")).select(KEY)
    inside = news.join(kinds, on="series_id").filter(pl.col("tick").is_between("bottom", "top")).select(KEY)
    in_holes, neighbours = _in_holes(stored, spans, inside)
    ends = [kinds.drop_nulls(end).select("series_id", tick=end) for end in ("bottom", "top")]
    fresh = pl.concat([opened, ahead, in_holes]).unique()
    gaps = _gaps(fresh, pl.concat([*ends, neighbours]).unique())
    return pl.concat([news, after, fresh, gaps]).unique().join(kinds, on="series_id").filter(pl.col("tick") <= pl.col("last")).select(KEY)


def _in_holes(stored: DeltaTable, spans: pl.DataFrame, inside: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the given ticks that have no row, and all stored ticks of their series; there are rarely any, and it is slow only then."""
    labelled = inside.join(spans, on="series_id").select("series_id", "tick", ts=label_expr())
    in_holes = labelled.join(stored_labels(stored, labelled.select("series_id", "ts")), on=["series_id", "ts"], how="anti").select(KEY)
    around = labels_of(stored, in_holes["series_id"].unique().to_list())
    return in_holes, around.join(spans, on="series_id").select("series_id", tick=tick_expr())


def _gaps(fresh: pl.DataFrame, stored: pl.DataFrame) -> pl.DataFrame:
    """Return series_id, tick of the gaps beside fresh ticks, given the stored ticks next to them."""
    marks = [
        fresh.with_columns(is_fresh=pl.lit(value=True)),
        stored.join(fresh, on=KEY, how="anti").with_columns(is_fresh=pl.lit(value=False)),
    ]
    before, was_fresh = (pl.col(name).shift(1).over("series_id") for name in ("tick", "is_fresh"))
    return (
        pl.concat(marks)
        .sort(KEY)
        .with_columns(before=before, was_fresh=was_fresh)
        .filter(pl.col("is_fresh") | pl.col("was_fresh"), (pl.col("tick") - pl.col("before")).is_between(2, MAX_GAP))
        .select("series_id", tick=pl.int_ranges(pl.col("before") + 1, pl.col("tick")))
        .explode("tick")
        .drop_nulls()
    )
