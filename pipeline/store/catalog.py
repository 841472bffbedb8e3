"""Which series and devices there are, and how far each source has been read: what changes in place, in the catalog's file.

Called by ingest (series, attributes of devices, what was stored when an unfinished run began), listen and prepare (series,
positions), forecast (series) and the verbs that list and retire series.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from pipeline.schemas import EPOCH, MICROSECOND, UTC_US
from pipeline.store.catalog_file import transaction
from pipeline.store.series_state import is_retired

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
SET_ATTRIBUTE = "INSERT INTO device_attributes VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"
SET_RETIRED = "UPDATE series SET retired_at = coalesce(retired_at, ?) WHERE series_id = ?"
UNSET_RETIRED = "UPDATE series SET retired_at = NULL WHERE series_id = ?"
BEGIN_INGEST = """
    INSERT INTO unfinished_ingests
    SELECT ?, json_group_object(series_id, json_array(last_ts, last_received, resumed_at)) FROM series WHERE last_ts IS NOT NULL
    ON CONFLICT (run) DO NOTHING
"""
UPSERT_POSITION = "INSERT INTO positions VALUES (?, ?) ON CONFLICT (source) DO UPDATE SET position = excluded.position"


@dataclass(frozen=True)
class Catalog:
    """The registry of series and devices; its file is made on first use.

    Attributes:
        state_dir: a local folder (SQLite's locks do not hold on a network share).
    """

    state_dir: Path

    def series(self) -> pl.DataFrame:
        """Return all registered series by `series_id`, in the columns of `SERIES_COLUMNS`."""
        with transaction(self.state_dir) as connection:
            rows = connection.execute("SELECT * FROM series ORDER BY series_id").fetchall()
        stored = {**SERIES_COLUMNS, **dict.fromkeys(INSTANTS, pl.Int64)}
        return pl.DataFrame(rows, schema=stored, orient="row").cast(pl.Schema(SERIES_COLUMNS))

    def upsert_series(self, frame: pl.DataFrame, *, default_aggregation: str | None = None) -> None:
        """Register series or add to what is known of them.

        A null never replaces a value, another value does; `first_ts` and `last_ts` only widen, and arrivals only rise.

        Args:
            frame: `series_id, device_id, metric` and any other column of `SERIES_COLUMNS`; a missing column counts as null.
            default_aggregation: for series that still have none; set in the same transaction, so it never replaces what another
                process declares meanwhile.
        """
        unknown = set(frame.columns) - set(SERIES_COLUMNS)
        assert not unknown, f"upsert_series takes the columns of SERIES_COLUMNS; got {sorted(unknown)}"  # noqa: S101 (our own invariant)
        columns = [
            pl.col(name).cast(dtype, strict=True) if name in frame.columns else pl.lit(None, dtype).alias(name)
            for name, dtype in SERIES_COLUMNS.items()
        ]
        rows = frame.select(columns).with_columns(pl.col(INSTANTS).dt.epoch("us")).sort("series_id")
        with transaction(self.state_dir) as connection:
            connection.executemany(UPSERT_SERIES, rows.iter_rows())
            if default_aggregation is not None:
                connection.executemany(DEFAULT_AGGREGATION, ((default_aggregation, series_id) for series_id in rows["series_id"]))

    def retire(self, series_ids: Iterable[str], now: datetime) -> None:
        """Retire series: no forecast of them from now on, whatever arrives; one retired before keeps its instant."""
        now_us = (now - EPOCH) // MICROSECOND
        with transaction(self.state_dir) as connection:
            connection.executemany(SET_RETIRED, ((now_us, series_id) for series_id in series_ids))

    def unretire(self, series_ids: Iterable[str]) -> None:
        """Take back that series were retired; one that was not stays as it is."""
        with transaction(self.state_dir) as connection:
            connection.executemany(UNSET_RETIRED, ((series_id,) for series_id in series_ids))

    def retired(self, now: datetime, retire_after: timedelta | None) -> set[str]:
        """Return the series that are not forecast: retired by somebody, or silent for longer than `retire_after`.

        Args:
            now: the present, UTC.
            retire_after: how long a series may be silent; None retires none by itself.
        """
        series = self.series()
        return set(series.filter(is_retired(now, retire_after))["series_id"])

    def set_attributes(self, attributes: pl.DataFrame) -> None:
        """Record attributes of devices (device_id, name, value: text); another value replaces the one that was there."""
        with transaction(self.state_dir) as connection:
            connection.executemany(SET_ATTRIBUTE, attributes.select("device_id", "name", "value").iter_rows())

    def attributes(self) -> pl.DataFrame:
        """Return the attributes of all devices: device_id, name, value."""
        with transaction(self.state_dir) as connection:
            rows = connection.execute("SELECT * FROM device_attributes ORDER BY device_id, name").fetchall()
        return pl.DataFrame(rows, schema=dict.fromkeys(("device_id", "name", "value"), pl.String), orient="row")

    def begin_ingest(self, run: str) -> pl.DataFrame:
        """Return what was stored when a run began; a run that is repeated gets its first answer until `end_ingest`.

        Args:
            run: names the run's input, the same when it is run again.

        Returns:
            series_id and the columns of `ARRIVED`, of the series that had readings then.
        """
        with transaction(self.state_dir) as connection:
            connection.execute(BEGIN_INGEST, (run,))
            (newest,) = connection.execute("SELECT newest FROM unfinished_ingests WHERE run = ?", (run,)).fetchone()
        rows = [(series_id, *arrived) for series_id, arrived in json.loads(newest).items()]
        stored = {"series_id": pl.String, **dict.fromkeys(ARRIVED, pl.Int64)}
        return pl.DataFrame(rows, schema=stored, orient="row").cast(dict.fromkeys(ARRIVED, UTC_US))

    def end_ingest(self, run: str) -> None:
        """Forget what was stored when a run began: all its input is stored and its series' spans are registered."""
        with transaction(self.state_dir) as connection:
            connection.execute("DELETE FROM unfinished_ingests WHERE run = ?", (run,))

    def position(self, source: str) -> int | None:
        """Return how far a source has been read, in the source's own count; None when it was never read."""
        with transaction(self.state_dir) as connection:
            row = connection.execute("SELECT position FROM positions WHERE source = ?", (source,)).fetchone()
        return None if row is None else int(row[0])

    def set_position(self, source: str, position: int) -> None:
        """Record how far a source has been read; call it after the commit of what was read, never before."""
        with transaction(self.state_dir) as connection:
            connection.execute(UPSERT_POSITION, (source, position))

    def forget_positions(self, prefix: str) -> None:
        """Forget how far the sources whose names begin with `prefix` have been read: they are read from the start again."""
        with transaction(self.state_dir) as connection:
            connection.execute("DELETE FROM positions WHERE substr(source, 1, ?) = ?", (len(prefix), prefix))
