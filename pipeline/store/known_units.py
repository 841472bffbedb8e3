"""Which unit each metric is stored in, and which one devices send where they name none: what the catalog knows of units.

Called by `pipeline.ingest`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from pipeline.errors import DataError
from pipeline.schemas import UTC_US
from pipeline.store.catalog_file import transaction

UNIT_INTERVALS: dict[str, pl.DataType | type[pl.DataType]] = {
    "device_id": pl.String,  # * for every device that has no interval of its own then
    "metric": pl.String,
    "unit": pl.String,
    "valid_from": UTC_US,  # event time, included
    "valid_to": UTC_US,  # excluded; null: until further notice
}

SETTLE_UNIT = "INSERT INTO units VALUES (?, ?) ON CONFLICT (key) DO NOTHING"
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


@dataclass(frozen=True)
class KnownUnits:
    """The units in the catalog's file.

    Attributes:
        state_dir: the state folder.
    """

    state_dir: Path

    def settle(self, proposed: Mapping[str, str]) -> dict[str, str]:
        """Decide the canonical unit of metrics that have none yet; if several processes try, the first one decides.

        Args:
            proposed: unit by metric, or by series id where the metric says nothing.

        Returns:
            The unit that holds for each key from now on: the one settled earlier, or else the one proposed.
        """
        with transaction(self.state_dir) as connection:
            connection.executemany(SETTLE_UNIT, sorted(proposed.items()))
            found = (connection.execute("SELECT key, unit FROM units WHERE key = ?", (key,)).fetchone() for key in proposed)
            return dict(found)

    def set_intervals(self, intervals: pl.DataFrame) -> None:
        """Record which unit devices send, and when: all intervals or none. One with the start of a known interval replaces that.

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
        with transaction(self.state_dir) as connection:
            connection.executemany(SET_UNIT_INTERVAL, rows.with_columns(pl.col("valid_from", "valid_to").dt.epoch("us")).iter_rows())
            both = connection.execute(OVERLAPPING_UNITS).fetchone()
            if both is not None:
                device_id, metric, early, late = both
                raise DataError(
                    f"Units require intervals that do not overlap; got {early} and {late} at once for {device_id}/{metric}. "
                    "Say with valid_to until when the earlier one held."
                )

    def intervals(self) -> pl.DataFrame:
        """Return which unit devices send, and when, in the columns of `UNIT_INTERVALS`, by device, metric and start."""
        with transaction(self.state_dir) as connection:
            rows = connection.execute("SELECT * FROM unit_intervals ORDER BY device_id, metric, valid_from").fetchall()
        stored = {**UNIT_INTERVALS, "valid_from": pl.Int64, "valid_to": pl.Int64}
        return pl.DataFrame(rows, schema=stored, orient="row").cast(pl.Schema(UNIT_INTERVALS))
