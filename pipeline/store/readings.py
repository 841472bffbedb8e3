"""The readings and quarantine tables: each reading and each payload stored once, and which were added since a given version.

Readings are never changed: a correction is a further row of the same series and stamp, and of the rows of one stamp the greatest by
(received_at, source_seq, value) counts. What counted at an earlier instant must therefore not depend on what is delivered twice or out of
order later; the definition of a duplicate here follows from that. Called by ingest and listen (append) and
prepare (changes).
"""

import logging

import polars as pl
from deltalake.exceptions import DeltaError
from polars.exceptions import ComputeError

from pipeline.errors import StoreError, first_line
from pipeline.schemas import Quarantine, Readings
from pipeline.store.adjacent_rows import same_as_previous
from pipeline.store.lake import Lake, read

logger = logging.getLogger(__name__)

STAMP = ("series_id", "ts")
ARRIVAL = ("received_at", "source_seq", "value")
IDENTITY = ("source", "source_seq", "value")  # of a reading at its stamp, however often it is delivered
MAX_ROUNDS = 10
CHANGED_COLUMNS = ("series_id", "device_id", "metric", "ts")


def append_readings(lake: Lake, frame: pl.DataFrame, *, source: str, seq: int, after: int | None = None) -> bool:
    """Append a batch of readings once.

    Args:
        lake: the lake.
        frame: rows of `Readings`; take duplicates out with `split_duplicates` before.
        source: names the series of numbers that `seq` belongs to; sources do not hold each other up.
        seq: the batch's number in its source; it only rises.
        after: the number of the batch before, 0 for none: where it is not the last one committed, nothing is written.

    Returns:
        False when this number or a later one is already committed, or `after` is not the last one committed: nothing was written.

    Raises:
        StoreError: when the commit fails.
    """
    return lake.append(Readings, frame, app_id=fence(source), seq=seq, after=after)


def append_quarantine(lake: Lake, frame: pl.DataFrame, *, source: str, seq: int) -> bool:
    """Append a batch of unusable payloads once; as `append_readings`, with separate numbers."""
    return lake.append(Quarantine, frame, app_id=fence(source), seq=seq)


def fence(source: str) -> str:
    """Return the name under which the commits of a source are numbered."""
    return f"ingest/{source}"


def store_readings(lake: Lake, readings: pl.DataFrame, *, source: str) -> pl.DataFrame:
    """Commit the readings that are not stored yet and return them; for a source that does not number its batches.

    The commit's number is read before duplicates are looked for. If another run commits in between, the fence refuses ours and the loop
    looks again; so two simultaneous runs over the same files store each reading once.

    Raises:
        StoreError: when the commit fails or meets other runs without end.
    """
    for _ in range(MAX_ROUNDS):
        seq = (lake.last_seq(Readings, fence(source)) or 0) + 1
        fresh, _duplicate = split_duplicates(lake, readings)
        if fresh.is_empty() or append_readings(lake, fresh, source=source, seq=seq):
            return fresh
    raise _crowded(Readings.name)


def store_quarantine(lake: Lake, rejected: pl.DataFrame, *, source: str) -> None:
    """Commit the rejected rows that are not in quarantine yet, each once, behind the fence of their source.

    Args:
        lake: the lake.
        rejected: rows of `Quarantine`.
        source: shared by all who may reject the same payloads.

    Raises:
        StoreError: when the commit fails or meets other runs without end.
    """
    if rejected.is_empty():
        return
    once = rejected.unique(Quarantine.key, keep="first", maintain_order=True)
    is_same = [pl.col(name).is_in(once[name].unique().implode()) for name in ("connector", "position")]
    for _ in range(MAX_ROUNDS):
        seq = (lake.last_seq(Quarantine, fence(source)) or 0) + 1
        stored = read(lake.scan(Quarantine).filter(is_same).select(Quarantine.key))
        fresh = once.join(stored, on=Quarantine.key, how="anti", maintain_order="left")
        if fresh.is_empty() or append_quarantine(lake, fresh, source=source, seq=seq):
            return
    raise _crowded(Quarantine.name)


def _crowded(table: str) -> StoreError:
    return StoreError(f"ingest requires a turn at the table {table}; got {MAX_ROUNDS} commits of other runs in a row. Run it again.")


def split_duplicates(lake: Lake, frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split a batch into new readings and duplicates, compared with the table and with the rest of the batch.

    A reading is a duplicate when its value is the one that counted for its stamp just before it arrived, by the order
    (received_at, source_seq, value). So the same event again is a duplicate, whenever and however often it comes; another value is a
    correction; and the first value again, received after a correction, corrects it back, unless it is a stored reading that was delivered
    again: same source, sequence number, stamp and value. To take a correction back, a source must use a new number.

    An arrival time that was only assumed (equal to `ts` for imported history, to `ingested_at` for the rest) cannot tell a correction
    back from an old file read again. Such a reading is a duplicate of any stored one with its stamp and value, unless its own source
    has given it a greater `source_seq` than all that is stored from there for that stamp.

    Limitation: if A arrives at 1 and 3, and a correction B stamped 2 arrives last, B wins, because the second A was dropped as a
    duplicate; ingest the source of A again to fix it. A dropped duplicate is not remembered under its own sequence number.

    Args:
        lake: the lake; only the stamps of the frame are read.
        frame: rows of `Readings`.

    Returns:
        (fresh, duplicate): every row of the frame in one of the two, in its order, in the columns of `Readings`.

    Raises:
        StoreError: when the table cannot be read.
    """
    rows = Readings.conform(frame).with_row_index("row")
    stored = _stored_at_stamps(lake, rows)
    contested = _contested(rows, stored)  # most readings are alone at their stamp: fresh without a sort
    candidates = contested.join(_replayed(contested, stored), on="row", how="anti", maintain_order="left")
    arrivals = pl.concat([stored.with_columns(row=pl.lit(None, pl.UInt32)), candidates.select(*stored.columns, "row")])
    arrivals = arrivals.sort(*STAMP, *ARRIVAL, "row")  # of two equal ones the stored one, whose row is null, comes first
    arrivals = arrivals.join(_redelivered(arrivals), on="row", how="anti").filter(~same_as_previous(*STAMP, "value"))
    repeated = contested.join(arrivals.select("row"), on="row", how="anti").select("row")
    fresh = rows.join(repeated, on="row", how="anti", maintain_order="left")
    duplicate = rows.join(repeated, on="row", how="semi", maintain_order="left")
    return fresh.drop("row"), duplicate.drop("row")


def changed_since(lake: Lake, readings_version: int) -> pl.DataFrame:
    """Return the stamps of the readings that were appended after a version of the table.

    Compaction moves rows and changes none, so it does not count. Where the log or the files of that time are gone (after the
    table's retention), all stamps are returned: more work for the caller, the same result.

    Args:
        lake: the lake.
        readings_version: the Delta version that the caller has taken in.

    Returns:
        Distinct series_id, device_id, metric, ts, sorted by series and stamp.

    Raises:
        StoreError: when the table cannot be read.
    """
    handle = lake.open(Readings)
    if readings_version == handle.version():
        return Readings.empty().select(CHANGED_COLUMNS)
    try:
        # Without allow_out_of_range: with it, a version whose log is gone counts as no change at all.
        changes = pl.DataFrame(handle.load_cdf(readings_version + 1, handle.version(), columns=list(CHANGED_COLUMNS)))
    except (DeltaError, ComputeError) as error:
        logger.warning("readings changes unknown, taking all since_version=%d reason=%s", readings_version, first_line(error))
        changes = read(lake.scan(Readings))
    return changes.select(CHANGED_COLUMNS).unique().sort(STAMP)


def _redelivered(arrivals: pl.DataFrame) -> pl.DataFrame:
    """Return `row` of each reading that has counted before and is delivered again; arrivals are sorted, and a null row is a stored one.

    Whether a reading counted depends on all earlier ones at its stamp, hence the loop; few stamps have such readings.
    """
    again = pl.struct(*STAMP, *IDENTITY).is_duplicated().any().over(STAMP) & (pl.col("value").n_unique().over(STAMP) > 1)
    rows: list[int] = []
    stamp: list[object] = []
    counts: float | None = None
    counted: set[tuple[str, int | None, float | None]] = set()
    for *here, source, seq, value, row in arrivals.filter(again).select(*STAMP, *IDENTITY, "row").iter_rows():
        if here != stamp:
            stamp, counts, counted = here, None, set()
        if row is not None and (source, seq, value) in counted:
            rows.append(row)
        elif row is None or not counted or value != counts:
            counts = value
            counted.add((source, seq, value))
    return pl.DataFrame({"row": rows}, schema={"row": pl.UInt32})


def with_stored_arrivals(lake: Lake, series: pl.DataFrame) -> pl.DataFrame:
    """Return series of the catalog with last_ts and last_received as stored, for a catalog that is ahead of its lake.

    Args:
        lake: the lake; all of its readings are looked at.
        series: series_id, last_ts, last_received, resumed_at, and any other columns.

    Returns:
        The same rows. `resumed_at` becomes null where it is later than the stored readings reach: the value before it is not known.

    Raises:
        StoreError: when the table cannot be read.
    """
    spans = read(lake.scan(Readings).group_by("series_id").agg(last_ts=pl.col("ts").max(), last_received=pl.col("received_at").max()))
    is_stored = pl.col("resumed_at") <= pl.col("last_received")
    return (
        series.drop("last_ts", "last_received")
        .join(spans, on="series_id", how="left", maintain_order="left")
        .with_columns(pl.when(is_stored).then("resumed_at").alias("resumed_at"))
    )


def _stored_at_stamps(lake: Lake, rows: pl.DataFrame) -> pl.DataFrame:
    """Read what is stored for the stamps of `rows`; the ranges let file and row-group statistics skip the rest."""
    wanted = [*STAMP, *ARRIVAL, "source"]
    if rows.is_empty():
        return Readings.empty().select(wanted)
    within = [pl.col(name).is_between(pl.lit(rows[name].min()), pl.lit(rows[name].max())) for name in STAMP]
    stamps = rows.lazy().select(STAMP).unique()
    return read(lake.scan(Readings).filter(within).select(wanted).join(stamps, on=STAMP, how="semi"))


def _contested(rows: pl.DataFrame, stored: pl.DataFrame) -> pl.DataFrame:
    """Return the rows that share their stamp with another row, in the batch or in the table."""
    repeated = rows.filter(pl.struct(STAMP).is_duplicated())
    if stored.is_empty():
        return repeated
    known = rows.join(stored, on=STAMP, how="semi")
    return pl.concat([repeated, known]).unique("row").sort("row")


def _replayed(rows: pl.DataFrame, stored: pl.DataFrame) -> pl.DataFrame:
    """Return `row` of readings with an assumed arrival whose value is stored, unless their `source_seq` is new at that stamp."""
    is_assumed = (pl.col("received_at") == pl.col("ts")) | (pl.col("received_at") == pl.col("ingested_at"))
    last = stored.group_by(*STAMP, "source").agg(last_seq=pl.col("source_seq").max())
    return (
        rows.filter(is_assumed)
        .join(stored, on=[*STAMP, "value"], how="semi", nulls_equal=True)
        .join(last, on=[*STAMP, "source"], how="left", nulls_equal=True)
        .filter((pl.col("source_seq") <= pl.col("last_seq")).fill_null(value=True))
        .select("row")
    )
