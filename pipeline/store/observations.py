"""The observations table: written so that replays and races change nothing, read as it is or as it was known.

Each commit records its progress as three numbers of the `regularise` application: the readings version taken in, the instant up to which
ticks were closed, and the allowed lateness that closed them. Delta keeps such numbers through checkpoints and log clean-up, so no second
record can disagree. The first number is the fence.

Why a replay or a race is harmless: a frame holds *all* rows of the ticks in it, each a function of the readings alone, and only what
differs from the table is written. A frame computed from older readings, or at an earlier instant, than the table records is refused. Any
other frame contains every tick that could have changed since the table's state, so overwriting is safe and both numbers only rise. The
same readings version may write again when more ticks have closed.
"""

import logging
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import polars as pl
from deltalake import DeltaTable, Transaction, write_deltalake

from pipeline.errors import DataError
from pipeline.schemas import EPOCH, MICROSECOND, Observations
from pipeline.store.adjacent_rows import same_as_next
from pipeline.store.changes import changed_rows
from pipeline.store.commits import HOOKS, WRITER, recorded
from pipeline.store.lake import Lake, read, scan_handle

logger = logging.getLogger(__name__)

APP_ID = "regularise"
CLOSED_UNTIL = "regularise/closed_until_us"
LATENESS = "regularise/allowed_lateness_us"
TICK = ("series_id", "ts")
ROW = (*TICK, "revision", "available_at")
COLUMNS = tuple(Observations.columns)


@dataclass(frozen=True)
class Progress:
    """How far the observations follow the readings.

    Attributes:
        readings_version: Delta version of `readings` that is taken in whole.
        closed_until: every tick that closes by then is there.
        allowed_lateness: how long after its label a tick closed.
    """

    readings_version: int
    closed_until: datetime
    allowed_lateness: timedelta


def read_progress(handle: DeltaTable) -> Progress | None:
    """Return how far the table seen by `handle` follows the readings; None where no run has recorded it."""
    version, closed, lateness = (handle.transaction_version(name) for name in (APP_ID, CLOSED_UNTIL, LATENESS))
    if version is None or closed is None or lateness is None:
        return None
    return Progress(version, EPOCH + closed * MICROSECOND, lateness * MICROSECOND)


def write_observations(
    lake: Lake,
    frame: pl.DataFrame,
    *,
    readings_version: int,
    closed_until: datetime | None = None,
    allowed_lateness: timedelta | None = None,
) -> pl.DataFrame | None:
    """Make the table hold exactly the rows of `frame` for each (series_id, ts) in it; other ticks stay as they are.

    New rows are appended; where stored rows must change or go, their `event_date` partitions are rewritten and no other.

    Args:
        lake: the lake.
        frame: rows of `Observations`, all revisions of each tick in it; may be empty, to record progress alone.
        readings_version: Delta version of `readings` that the frame was computed from.
        closed_until: the instant up to which ticks were closed in the frame; None leaves that record as it is.
        allowed_lateness: how long after its label a tick of the frame closed; None leaves that record as it is.

    Returns:
        The rows that were not stored before (none for a replay). None when the frame was refused because the table already holds later
        readings or a later close: compute it again.

    Raises:
        StoreError: when the commit fails or meets conflicts without end.
    """
    rows = Observations.conform(frame).sort(Observations.key)
    reached = {APP_ID: readings_version}
    if closed_until is not None:
        reached[CLOSED_UNTIL] = (closed_until - EPOCH) // MICROSECOND
    lateness = {} if allowed_lateness is None else {LATENESS: allowed_lateness // MICROSECOND}
    records = [Transaction(name, number) for name, number in (reached | lateness).items()]

    def attempt(handle: DeltaTable) -> pl.DataFrame | None:
        done = {name: handle.transaction_version(name) for name in reached}
        if any(before is not None and before > reached[name] for name, before in done.items()):
            logger.info("observations refused a frame that is behind reached=%s table=%s", reached, done)
            return None
        stored = _stored_ticks(handle, rows)
        new = rows.join(stored, on=COLUMNS, how="anti", nulls_equal=True)
        outdated = stored.join(rows, on=COLUMNS, how="anti", nulls_equal=True)
        if not outdated.is_empty():
            _commit(handle, *_rewritten(handle, rows, pl.concat([new, outdated])["event_date"].unique()), records)
        elif not new.is_empty() or done[APP_ID] != readings_version:
            _commit(handle, new, None, records)
        return new

    return lake.commit(Observations, attempt)


def read_observations(
    lake: Lake,
    *,
    series: Collection[str] | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    as_of: datetime | None = None,
    on_time: timedelta | None = None,
    without: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Read one row for each series and tick.

    Args:
        lake: the lake.
        series: series ids; None for all.
        start: first label, inclusive.
        end: last label, inclusive.
        as_of: an instant: the latest revision available then; a tick of which nothing was available is absent.
        on_time: an allowed lateness: of each tick the revision known that long after its label; a tick not known by then is returned
            as revision 0, with a null value and observed False.
        without: `ROW` of rows to ignore; None for none.

    Returns:
        Rows of `Observations` sorted by (series_id, ts): the latest revisions where neither `as_of` nor `on_time` is given. A row with
        observed False says no more than an absent one: nothing was known of that tick.

    Raises:
        DataError: when both `as_of` and `on_time` are given.
        StoreError: when the table cannot be read.
    """
    if as_of is not None and on_time is not None:
        raise DataError(f"A read of observations requires as_of or on_time; got both, {as_of} and {on_time}. Choose one.")
    ends = [instant for instant in (end, as_of) if instant is not None]  # nothing is available before its label
    scan = observations_between(lake.scan(Observations), start, min(ends, default=None))
    if series is not None:
        scan = scan.filter(pl.col("series_id").is_in(list(series)))
    if as_of is not None:
        scan = scan.filter(pl.col("available_at") <= as_of)
    rows = read(scan)
    if without is not None:
        rows = rows.join(without, on=ROW, how="anti")
    if on_time is not None:
        rows = _unknown_blanked(rows, pl.col("available_at") <= pl.col("ts") + on_time)
    return rows.sort(Observations.key).filter(~same_as_next(*TICK)).select(COLUMNS)


def observations_between(scan: pl.LazyFrame, start: datetime | None, end: datetime | None) -> pl.LazyFrame:
    """Keep labels from `start` to `end`, both inclusive, touching no partition of another day."""
    if start is not None:
        scan = scan.filter(pl.col("event_date") >= start.astimezone(UTC).date(), pl.col("ts") >= start)
    if end is not None:
        scan = scan.filter(pl.col("event_date") <= end.astimezone(UTC).date(), pl.col("ts") <= end)
    return scan


def changed_observations(lake: Lake, since_version: int) -> pl.DataFrame | None:
    """Return the distinct (series_id, ts) whose rows changed since a version of the table, in the order of the key.

    A compaction changes nothing. None where that version can no longer be read.
    """
    changed = changed_rows(lake, Observations, since_version)
    return None if changed is None else changed.select(TICK).unique().sort(TICK)


def _stored_ticks(handle: DeltaTable, rows: pl.DataFrame) -> pl.DataFrame:
    """Read what is stored of the ticks in `rows`."""
    if rows.is_empty():
        return Observations.empty()
    ticks = rows.select(TICK).unique()
    near = pl.col("event_date").is_in(rows["event_date"].unique().to_list()) & pl.col("ts").is_between(rows["ts"].min(), rows["ts"].max())
    return read(scan_handle(handle).filter(near).join(ticks.lazy(), on=TICK, how="semi").select(COLUMNS))


def _rewritten(handle: DeltaTable, rows: pl.DataFrame, days: pl.Series) -> tuple[pl.DataFrame, pl.Series]:
    """Return all rows that `days` hold from now on, and the days."""
    stored = read(scan_handle(handle).filter(pl.col("event_date").is_in(days.to_list())).select(COLUMNS))
    kept = stored.join(rows.select(TICK).unique(), on=TICK, how="anti")
    replacing = rows.filter(pl.col("event_date").is_in(days.to_list()))
    return pl.concat([kept, replacing]).sort(Observations.key), days


def _commit(handle: DeltaTable, rows: pl.DataFrame, days: pl.Series | None, records: list[Transaction]) -> None:
    """Append the rows, or put them in the place of all rows of `days`, through the handle that the check was made on."""
    properties = recorded(*records)
    if days is None:
        write_deltalake(
            handle, rows, mode="append", writer_properties=WRITER, commit_properties=properties, post_commithook_properties=HOOKS
        )
        return
    write_deltalake(
        handle,
        rows,
        mode="overwrite",
        predicate="event_date IN ({})".format(", ".join(f"'{day}'" for day in days.sort())),
        writer_properties=WRITER,
        commit_properties=properties,
        post_commithook_properties=HOOKS,
    )


def _unknown_blanked(rows: pl.DataFrame, known: pl.Expr) -> pl.DataFrame:
    return rows.with_columns(
        value=pl.when(known).then("value"),
        observed=known & pl.col("observed"),
        n_obs=pl.when(known).then("n_obs").otherwise(0),
        revision=pl.when(known).then("revision").otherwise(0),
    )
