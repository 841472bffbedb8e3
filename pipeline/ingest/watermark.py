"""Which readings came late: one watermark for each series, because devices are independent of each other.

The watermark of a series is the newest event time accepted so far, less the allowed lateness; it never moves back. A stamp from
the future never reaches it: validation has taken it out, so one broken clock cannot make all that follows late. Called by `ingest.py`.
"""

from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from pipeline.schemas import UTC_US


@dataclass(frozen=True)
class Watermarks:
    """The newest accepted event time of each series.

    Attributes:
        newest: series_id and newest (UTC), one row for each series.
        allowed_lateness: how far behind the newest event time a reading may be and still be on time.
    """

    newest: pl.DataFrame
    allowed_lateness: timedelta

    @classmethod
    def resume(cls, series: pl.DataFrame, allowed_lateness: timedelta) -> "Watermarks":
        """Start where the catalog stands.

        Args:
            series: catalog rows with series_id and last_ts.
            allowed_lateness: as in the settings.
        """
        newest = series.select("series_id", pl.col("last_ts").cast(UTC_US).alias("newest")).drop_nulls()
        return cls(newest, allowed_lateness)

    def mark(self, readings: pl.DataFrame) -> pl.DataFrame:
        """Add `is_late`: behind the watermark that the readings received earlier had reached.

        Args:
            readings: series_id, ts, received_at, source_seq and is_history (received when measured, so never late).

        Returns:
            The same rows in the same order, with `is_late`.
        """
        ordered = readings.with_row_index("_order").sort("series_id", "received_at", "source_seq", "ts")
        reached = pl.max_horizontal(pl.col("ts").cum_max().over("series_id"), "newest")
        is_behind = (pl.col("ts") < reached - self.allowed_lateness).fill_null(value=False)  # nothing reached yet: nothing is late
        return (
            ordered.join(self.newest, on="series_id", how="left", maintain_order="left")
            .with_columns((is_behind & ~pl.col("is_history")).alias("is_late"))
            .sort("_order")
            .drop("_order", "newest")
        )

    def advance(self, readings: pl.DataFrame) -> "Watermarks":
        """Return the watermarks after `readings`; none is ever lower than before."""
        seen = readings.select("series_id", pl.col("ts").alias("newest"))
        newest = pl.concat([self.newest, seen]).group_by("series_id").agg(pl.col("newest").max()).sort("series_id")
        return Watermarks(newest, self.allowed_lateness)
