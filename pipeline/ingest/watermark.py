"""Which readings came late: one watermark for each series, because devices are independent of each other.

The watermark of a series is the newest event time accepted so far, less the allowed lateness; it never moves back. A stamp from
the future never reaches it: validation has taken it out, so one broken clock cannot make all that follows late. A reading that ends a
silence lifts it to its own arrival less the idle timeout: while a device is silent its ticks close, and what it then brings of them is
late, though nothing newer of the series has come. Called by `ingest.py`.
"""

from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from pipeline.store.catalog import ARRIVED

_REACHED = {name: f"reached_{name}" for name in ARRIVED}  # readings may have columns of these names


@dataclass(frozen=True)
class Watermarks:
    """What has been accepted of each series so far.

    Attributes:
        reached: one row for each series: series_id, last_ts (its newest event time), last_received (its newest arrival) and resumed_at
            (the newest arrival that ended a silence; null before the first), all UTC.
        allowed_lateness: how far behind the newest event time a reading may be and still be on time.
        idle_timeout: a longer time without an arrival is a silence; never shorter than the allowed lateness, which is promised.
    """

    reached: pl.DataFrame
    allowed_lateness: timedelta
    idle_timeout: timedelta

    @classmethod
    def resume(cls, series: pl.DataFrame, allowed_lateness: timedelta, idle_timeout: timedelta) -> "Watermarks":
        """Start where the catalog stands.

        Args:
            series: catalog rows with series_id, last_ts, last_received and resumed_at.
            allowed_lateness: as in the settings.
            idle_timeout: as in the settings.
        """
        reached = series.select("series_id", *ARRIVED).filter(pl.col("last_ts").is_not_null())
        return cls(reached, allowed_lateness, max(idle_timeout, allowed_lateness))

    def mark(self, readings: pl.DataFrame) -> pl.DataFrame:
        """Add `is_late`: behind the watermark that the readings received earlier had reached.

        Args:
            readings: series_id, ts, received_at, source_seq and is_history (received when measured, so never late).

        Returns:
            The same rows in the same order, with `is_late`, and `resumed_at` for `advance`: the newest arrival up to this one that
            ended a silence.
        """
        ordered = (
            readings.with_row_index("_order")
            .sort("series_id", "received_at", "source_seq", "ts")
            .join(self.reached.rename(_REACHED), on="series_id", how="left", maintain_order="left")
        )
        previous = pl.max_horizontal(pl.col("received_at").shift(1).over("series_id"), "reached_last_received")
        ends_silence = pl.col("received_at") - previous > self.idle_timeout  # null, so no: the first arrival ends none
        resumed = pl.when(ends_silence).then("received_at").forward_fill().over("series_id")
        newest = pl.max_horizontal(pl.col("ts").cum_max().over("series_id"), "reached_last_ts")
        watermark = pl.max_horizontal(newest - self.allowed_lateness, pl.col("resumed_at") - self.idle_timeout)
        is_behind = (pl.col("ts") < watermark).fill_null(value=False)  # nothing reached yet: nothing is late
        return (
            ordered.with_columns(pl.max_horizontal(resumed, "reached_resumed_at").alias("resumed_at"))
            .with_columns((is_behind & ~pl.col("is_history")).alias("is_late"))
            .sort("_order")
            .drop("_order", *_REACHED.values())
        )

    def advance(self, marked: pl.DataFrame) -> "Watermarks":
        """Return the watermarks after readings that `mark` has seen; none is ever lower than before."""
        seen = marked.select("series_id", pl.col("ts").alias("last_ts"), pl.col("received_at").alias("last_received"), "resumed_at")
        reached = pl.concat([self.reached, seen]).group_by("series_id").agg(pl.col(ARRIVED).max()).sort("series_id")
        return Watermarks(reached, self.allowed_lateness, self.idle_timeout)
