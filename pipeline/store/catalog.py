"""The small state that changes in place, in one SQLite file: series and devices, units, snapshot pointers and positions.

Delta holds what only grows; what is overwritten belongs here. Every call opens its own connection and is one transaction
that is on disk (`synchronous=FULL`) when the call returns, so threads and processes may share a state folder freely.
Called by ingest (series, attributes of devices, units, what was known when a run began that has not finished), prepare (grids,
attributes), forecast (series, snapshots) and the verbs that list and retire series.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from pipeline.errors import DataError
from pipeline.schemas import EPOCH, MICROSECOND, UTC_US
from pipeline.store.series_state import is_retired
from pipeline.store.state_files import connect, format_of, make_in_wal_mode, reported

FILE_NAME = "catalog.db"

SERIES_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "series_id": pl.String,  # device_id/metric
    "device_id": pl.String,
    "metric": pl.String,
    "unit": pl.String,  # canonical, null where none is known
    "aggregation": pl.String,  # mean, last, sum, counter; null until decided
    "sample_interval_us": pl.Int64,  # null until the grid is inferred
    "grid_offset_us": pl.Int64,
    "first_ts": UTC_US,  # oldest and newest event time of an accepted reading
    "last_ts": UTC_US,
    "last_received": UTC_US,  # when its newest arrival came; null in what an older tidecast registered
    "resumed_at": UTC_US,  # the newest arrival that ended a silence of over `ingest.idle_timeout`; null before the first
    "retired_at": UTC_US,  # when somebody retired it; null unless somebody did
}
INSTANTS = ("first_ts", "last_ts", "last_received", "resumed_at", "retired_at")
ARRIVED = ("last_ts", "last_received", "resumed_at")  # what lateness is judged by; they only rise
UNIT_INTERVALS: dict[str, pl.DataType | type[pl.DataType]] = {
    "device_id": pl.String,  # * for every device that has no interval of its own then
    "metric": pl.String,
    "unit": pl.String,
    "valid_from": UTC_US,  # event time, included
    "valid_to": UTC_US,  # excluded; null: until further notice
}

# The statements that lead to each format of the file, oldest first; add to them, never edit what was released. Formats after 4 are called
# `number_of` the release that brings them (`pipeline.store.formats`), so that an older one can say it.
MIGRATIONS: dict[int, tuple[str, ...]] = {
    1: (
        """
        CREATE TABLE series (
            series_id TEXT PRIMARY KEY, device_id TEXT NOT NULL, metric TEXT NOT NULL, unit TEXT, aggregation TEXT,
            sample_interval_us INTEGER, grid_offset_us INTEGER, first_ts INTEGER, last_ts INTEGER
        ) STRICT, WITHOUT ROWID
        """,
        """
        CREATE TABLE snapshots (
            model_version TEXT PRIMARY KEY, path TEXT NOT NULL, observations_version INTEGER NOT NULL, updated_at INTEGER
        ) STRICT
        """,
        "CREATE TABLE positions (source TEXT PRIMARY KEY, position INTEGER NOT NULL) STRICT",
    ),
    2: (
        "CREATE TABLE units (key TEXT PRIMARY KEY, unit TEXT NOT NULL) STRICT",
        "CREATE TABLE unfinished_ingests (run TEXT PRIMARY KEY, newest TEXT NOT NULL) STRICT",  # newest: JSON, us by series_id
    ),
    3: (
        """
        CREATE TABLE device_attributes (
            device_id TEXT, name TEXT, value TEXT NOT NULL, PRIMARY KEY (device_id, name)
        ) STRICT, WITHOUT ROWID
        """,
    ),
    4: (
        "ALTER TABLE series ADD COLUMN last_received INTEGER",
        "ALTER TABLE series ADD COLUMN resumed_at INTEGER",
        "ALTER TABLE series ADD COLUMN retired_at INTEGER",
        # newest: JSON by series_id, from now on of [last_ts, last_received, resumed_at]
        "UPDATE unfinished_ingests SET newest = (SELECT json_group_object(key, json_array(value, NULL, NULL)) FROM json_each(newest))",
        """
        CREATE TABLE unit_intervals (
            device_id TEXT NOT NULL, metric TEXT NOT NULL, unit TEXT NOT NULL, valid_from INTEGER NOT NULL, valid_to INTEGER,
            PRIMARY KEY (device_id, metric, valid_from), CHECK (valid_to > valid_from)
        ) STRICT, WITHOUT ROWID
        """,
    ),
}
NEWEST = max(MIGRATIONS)

# What is known stays known, and the span of a series only widens (SQLite's min and max are null when either side is).
UPSERT_SERIES = """
    INSERT INTO series VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (series_id) DO UPDATE SET
        unit = coalesce(excluded.unit, unit),
        aggregation = coalesce(excluded.aggregation, aggregation),
        sample_interval_us = coalesce(excluded.sample_interval_us, sample_interval_us),
        grid_offset_us = coalesce(excluded.grid_offset_us, grid_offset_us),
        first_ts = coalesce(min(first_ts, excluded.first_ts), first_ts, excluded.first_ts),
        last_ts = coalesce(max(last_ts, excluded.last_ts), last_ts, excluded.last_ts),
        last_received = coalesce(max(last_received, excluded.last_received), last_received, excluded.last_received),
        resumed_at = coalesce(max(resumed_at, excluded.resumed_at), resumed_at, excluded.resumed_at),
        retired_at = coalesce(excluded.retired_at, retired_at)
"""
DEFAULT_AGGREGATION = "UPDATE series SET aggregation = ? WHERE series_id = ? AND aggregation IS NULL"
SETTLE_UNIT = "INSERT INTO units VALUES (?, ?) ON CONFLICT (key) DO NOTHING"
SET_ATTRIBUTE = "INSERT INTO device_attributes VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"
SET_RETIRED = "UPDATE series SET retired_at = coalesce(retired_at, ?) WHERE series_id = ?"
UNSET_RETIRED = "UPDATE series SET retired_at = NULL WHERE series_id = ?"
SET_UNIT_INTERVAL = """
    INSERT INTO unit_intervals VALUES (?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET unit = excluded.unit, valid_to = excluded.valid_to
"""
OVERLAPPING_UNITS = """
    SELECT early.device_id, early.metric, early.unit, late.unit FROM unit_intervals AS early JOIN unit_intervals AS late
    ON early.device_id = late.device_id AND early.metric = late.metric AND early.valid_from < late.valid_from
    WHERE early.valid_to IS NULL OR early.valid_to > late.valid_from
    LIMIT 1
"""
BEGIN_INGEST = """
    INSERT INTO unfinished_ingests
    SELECT ?, json_group_object(series_id, json_array(last_ts, last_received, resumed_at)) FROM series WHERE last_ts IS NOT NULL
    ON CONFLICT (run) DO NOTHING
"""
UPSERT_SNAPSHOT = """
    INSERT INTO snapshots VALUES (?, ?, ?, ?)
    ON CONFLICT (model_version) DO UPDATE SET
        path = excluded.path, observations_version = excluded.observations_version, updated_at = excluded.updated_at
"""
UPSERT_POSITION = "INSERT INTO positions VALUES (?, ?) ON CONFLICT (source) DO UPDATE SET position = excluded.position"


@dataclass(frozen=True)
class SnapshotPointer:
    """Where the newest good state of a model is, and how far into the observations it has read.

    Attributes:
        model_version: the registered version whose state it is.
        path: the snapshot file.
        observations_version: Delta version of `observations` that the state has consumed.
        updated_at: when it was written, for people to read; None where nobody said.
    """

    model_version: str
    path: Path
    observations_version: int
    updated_at: datetime | None


@dataclass(frozen=True)
class Catalog:
    """The SQLite file in the state folder; made on first use.

    Attributes:
        state_dir: a local folder (SQLite's locks do not hold on a network share).
    """

    state_dir: Path

    def series(self) -> pl.DataFrame:
        """Return all registered series by `series_id`, in the columns of `SERIES_COLUMNS`."""
        with self._transaction() as connection:
            rows = connection.execute("SELECT * FROM series ORDER BY series_id").fetchall()
        stored = {**SERIES_COLUMNS, **dict.fromkeys(INSTANTS, pl.Int64)}
        return pl.DataFrame(rows, schema=stored, orient="row").cast(pl.Schema(SERIES_COLUMNS))

    def upsert_series(self, frame: pl.DataFrame, *, default_aggregation: str | None = None) -> None:
        """Register series or add to what is known of them.

        A null never replaces a value, another value does; `first_ts` and `last_ts` only widen, and arrivals only rise.

        Args:
            frame: `series_id, device_id, metric` and any other column of `SERIES_COLUMNS`; a missing column counts as null.
            default_aggregation: for those of them that have none after that; decided here, so it never replaces what another process
                has declared meanwhile.
        """
        unknown = set(frame.columns) - set(SERIES_COLUMNS)
        assert not unknown, f"upsert_series takes the columns of SERIES_COLUMNS; got {sorted(unknown)}"  # noqa: S101 (our own invariant)
        columns = [
            pl.col(name).cast(dtype, strict=True) if name in frame.columns else pl.lit(None, dtype).alias(name)
            for name, dtype in SERIES_COLUMNS.items()
        ]
        rows = frame.select(columns).with_columns(pl.col(INSTANTS).dt.epoch("us")).sort("series_id")
        with self._transaction() as connection:
            connection.executemany(UPSERT_SERIES, rows.iter_rows())
            if default_aggregation is not None:
                connection.executemany(DEFAULT_AGGREGATION, ((default_aggregation, series_id) for series_id in rows["series_id"]))

    def retire(self, series_ids: Iterable[str], now: datetime) -> None:
        """Retire series: no forecast of them from now on, whatever arrives; one retired before keeps its instant."""
        now_us = (now - EPOCH) // MICROSECOND
        with self._transaction() as connection:
            connection.executemany(SET_RETIRED, ((now_us, series_id) for series_id in series_ids))

    def unretire(self, series_ids: Iterable[str]) -> None:
        """Take back that series were retired; one that was not stays as it is."""
        with self._transaction() as connection:
            connection.executemany(UNSET_RETIRED, ((series_id,) for series_id in series_ids))

    def retired(self, now: datetime, retire_after: timedelta | None) -> set[str]:
        """Return the series that are not forecast: those that somebody retired, and those that fell silent for good.

        Args:
            now: the present, UTC.
            retire_after: how long a series may be silent; None retires none by itself.
        """
        series = self.series()
        return set(series.filter(is_retired(now, retire_after))["series_id"])

    def set_unit_intervals(self, intervals: pl.DataFrame) -> None:
        """Record which unit devices send, and when; an interval that begins when a known one does replaces it. All of them or none.

        Args:
            intervals: the columns of `UNIT_INTERVALS`.

        Raises:
            DataError: where two intervals of a device and metric overlap, or one ends before it begins.
            StoreError: when the catalog cannot be written.
        """
        rows = intervals.select(pl.col(name).cast(dtype) for name, dtype in UNIT_INTERVALS.items())
        backward = rows.filter(pl.col("valid_to") <= pl.col("valid_from"))
        if len(backward):
            device_id, metric, _, start, end = backward.row(0)
            got = f"{start} to {end} for {device_id}/{metric}"
            raise DataError(f"A unit's interval requires an end after its start; got {got}. Correct it.")
        with self._transaction() as connection:
            connection.executemany(SET_UNIT_INTERVAL, rows.with_columns(pl.col("valid_from", "valid_to").dt.epoch("us")).iter_rows())
            both = connection.execute(OVERLAPPING_UNITS).fetchone()
            if both is not None:
                device_id, metric, early, late = both
                raise DataError(
                    f"Units require intervals that do not overlap; got {early} and {late} at once for {device_id}/{metric}. "
                    "Say with valid_to until when the earlier one held."
                )

    def unit_intervals(self) -> pl.DataFrame:
        """Return which unit devices send, and when, in the columns of `UNIT_INTERVALS`, by device, metric and start."""
        with self._transaction() as connection:
            rows = connection.execute("SELECT * FROM unit_intervals ORDER BY device_id, metric, valid_from").fetchall()
        stored = {**UNIT_INTERVALS, "valid_from": pl.Int64, "valid_to": pl.Int64}
        return pl.DataFrame(rows, schema=stored, orient="row").cast(pl.Schema(UNIT_INTERVALS))

    def settle_units(self, proposed: Mapping[str, str]) -> dict[str, str]:
        """Decide the canonical unit of metrics that have none yet; of several processes at once the first decides.

        Args:
            proposed: unit by metric, or by series id where the metric says nothing.

        Returns:
            The unit that holds for each key from now on: the one settled earlier, or else the one proposed.
        """
        with self._transaction() as connection:
            connection.executemany(SETTLE_UNIT, sorted(proposed.items()))
            found = (connection.execute("SELECT key, unit FROM units WHERE key = ?", (key,)).fetchone() for key in proposed)
            return dict(found)

    def set_attributes(self, attributes: pl.DataFrame) -> None:
        """Record attributes of devices (device_id, name, value: text); another value replaces the one that was there."""
        with self._transaction() as connection:
            connection.executemany(SET_ATTRIBUTE, attributes.select("device_id", "name", "value").iter_rows())

    def attributes(self) -> pl.DataFrame:
        """Return the attributes of all devices: device_id, name, value."""
        with self._transaction() as connection:
            rows = connection.execute("SELECT * FROM device_attributes ORDER BY device_id, name").fetchall()
        return pl.DataFrame(rows, schema=dict.fromkeys(("device_id", "name", "value"), pl.String), orient="row")

    def begin_ingest(self, run: str) -> pl.DataFrame:
        """Return what was stored when a run began; a run that did not finish keeps its first answer until `end_ingest`.

        Args:
            run: names the run's input, the same when it is run again.

        Returns:
            series_id and the columns of `ARRIVED`, of the series that had readings then.
        """
        with self._transaction() as connection:
            connection.execute(BEGIN_INGEST, (run,))
            (newest,) = connection.execute("SELECT newest FROM unfinished_ingests WHERE run = ?", (run,)).fetchone()
        rows = [(series_id, *arrived) for series_id, arrived in json.loads(newest).items()]
        stored = {"series_id": pl.String, **dict.fromkeys(ARRIVED, pl.Int64)}
        return pl.DataFrame(rows, schema=stored, orient="row").cast(dict.fromkeys(ARRIVED, UTC_US))

    def end_ingest(self, run: str) -> None:
        """Forget what was stored when a run began: all its input is stored and its series' spans are registered."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM unfinished_ingests WHERE run = ?", (run,))

    def snapshot_pointer(self, model_version: str) -> SnapshotPointer | None:
        """Return where the state of one model version is; None before its first snapshot."""
        with self._transaction() as connection:
            row = connection.execute("SELECT * FROM snapshots WHERE model_version = ?", (model_version,)).fetchone()
        if row is None:
            return None
        _, path, observations_version, updated_us = row
        updated_at = None if updated_us is None else EPOCH + updated_us * MICROSECOND
        return SnapshotPointer(model_version, Path(path), observations_version, updated_at)

    def snapshot_pointers(self) -> list[SnapshotPointer]:
        """Return where the states of all model versions are."""
        with self._transaction() as connection:
            versions = connection.execute("SELECT model_version FROM snapshots ORDER BY model_version").fetchall()
        found = (self.snapshot_pointer(version) for (version,) in versions)
        return [pointer for pointer in found if pointer is not None]

    def forget_snapshot(self, path_name: str) -> None:
        """Forget the pointer to a snapshot that is gone: the state is rebuilt from observations."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM snapshots WHERE path = ?", (path_name,))

    def set_snapshot_pointer(
        self, model_version: str, path: Path | str, observations_version: int, *, updated_at: datetime | None = None
    ) -> None:
        """Point to a snapshot that is already on disk; the state and the input position move together or not at all.

        Args:
            model_version: the registered version whose state it is.
            path: the snapshot file, written and fsynced before.
            observations_version: Delta version of `observations` that the state has consumed.
            updated_at: the caller's clock, UTC.
        """
        updated_us = None if updated_at is None else (updated_at - EPOCH) // MICROSECOND
        with self._transaction() as connection:
            connection.execute(UPSERT_SNAPSHOT, (model_version, str(path), observations_version, updated_us))

    def position(self, source: str) -> int | None:
        """Return how far a source has been read, in the source's own count; None when it was never read."""
        with self._transaction() as connection:
            row = connection.execute("SELECT position FROM positions WHERE source = ?", (source,)).fetchone()
        return None if row is None else int(row[0])

    def set_position(self, source: str, position: int) -> None:
        """Record how far a source has been read; call it after the commit of what was read, never before."""
        with self._transaction() as connection:
            connection.execute(UPSERT_POSITION, (source, position))

    def forget_positions(self, prefix: str) -> None:
        """Forget how far the sources whose names begin with `prefix` have been read: they are read from the start again."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM positions WHERE substr(source, 1, ?) = ?", (len(prefix), prefix))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Open the file at its newest schema and run the block as one transaction, committed unless it raises."""
        path = self.state_dir / FILE_NAME
        with reported("The catalog", path, "`tidecast ingest` rebuilds the registry from its sources"):
            if not path.exists():
                make_in_wal_mode(path)
            with closing(connect(path)) as connection:
                _migrate(connection)
                connection.execute("BEGIN")
                with connection:
                    yield connection


def _migrate(connection: sqlite3.Connection) -> None:
    """Bring the file to the newest format, one transaction for all that is missing."""
    if format_of(connection) >= NEWEST:
        return
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        have = format_of(connection)  # again, now that no other process can be at it
        for statement in (statement for number, statements in MIGRATIONS.items() if number > have for statement in statements):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {max(have, NEWEST)}")
