"""The stored tables: columns, dtypes, units, keys and partitions, one class each; every frame between two stages is one of these.

Timestamps are microseconds UTC, ids String, values Float64. Called by every stage; imports nothing of ours.
"""

from datetime import UTC, datetime, timedelta
from typing import ClassVar

import polars as pl

UTC_US = pl.Datetime("us", "UTC")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)  # what stored instants and durations count


class TableSchema:
    """What one stored table holds; subclasses fill in the class variables."""

    name: ClassVar[str]
    columns: ClassVar[dict[str, pl.DataType | type[pl.DataType]]]
    key: ClassVar[tuple[str, ...]]
    partition_by: ClassVar[str]
    append_only: ClassVar[bool]
    added: ClassVar[tuple[str, ...]] = ()  # columns added after 0.1.0: absent from older tables, null where a row does not set them

    @classmethod
    def polars(cls) -> pl.Schema:
        """Return the table's columns as a Polars schema."""
        return pl.Schema(cls.columns)

    @classmethod
    def empty(cls) -> pl.DataFrame:
        """Return a frame with the table's columns and no rows."""
        return pl.DataFrame(schema=cls.polars())

    @classmethod
    def conform(cls, frame: pl.DataFrame) -> pl.DataFrame:
        """Select the table's columns and cast them strictly: Delta itself casts in silence (1.7 becomes 1)."""
        missing = [pl.lit(None).alias(name) for name in cls.added if name not in frame.columns]
        return frame.with_columns(missing).select(pl.col(name).cast(dtype, strict=True) for name, dtype in cls.columns.items())


class Readings(TableSchema):
    """Raw events as they came, in canonical units; corrections are further rows, nothing is ever changed."""

    name = "readings"
    columns: ClassVar = {
        "source": pl.String,  # connector and file, as "file:sample.ndjson"
        "source_seq": pl.Int64,  # the device's sequence number, else the position in the source
        "device_id": pl.String,
        "metric": pl.String,
        "series_id": pl.String,  # device_id/metric, by pipeline.store.identity
        "ts": UTC_US,  # event time, by the device
        "value": pl.Float64,  # in the canonical unit that the metric had then
        "unit": pl.String,  # what `value` is in, null where neither the reading nor the registry said
        "quality": pl.Int16,  # 0 good; else the device's own code
        "received_at": UTC_US,  # when we could first see it
        "ingested_at": UTC_US,  # when it was committed here
        "is_late": pl.Boolean,  # behind the series' watermark when it came
        "ingest_date": pl.Date,  # partition
    }
    key = ("series_id", "ts", "received_at", "source_seq", "value")
    partition_by = "ingest_date"
    append_only = True


class Quarantine(TableSchema):
    """Payloads that could not be used, whole, each with its reason; never deleted by us."""

    name = "quarantine"
    columns: ClassVar = {
        "connector": pl.String,
        "position": pl.String,  # where in the source: "sample.ndjson:17"
        "payload": pl.Binary,  # the raw bytes of the line or row
        "error_code": pl.String,
        "error_text": pl.String,
        "received_at": UTC_US,
        "ingest_date": pl.Date,  # partition
        "content_type": pl.String,  # of the message, where its sender said one
        "births": pl.Binary,  # of Sparkplug B: what the births before it said of its metrics, as a birth
    }
    key = ("connector", "position", "payload")
    partition_by = "ingest_date"
    append_only = True
    added = ("content_type", "births")


class Observations(TableSchema):
    """One value for each series, tick and revision on the regular grid; a gap is an explicit row with a null value.

    The tick labelled `ts` holds the readings in (ts − sample_interval, ts]: the label is the instant at which it is complete.
    """

    name = "observations"
    columns: ClassVar = {
        "series_id": pl.String,
        "ts": UTC_US,  # right edge of the tick
        "value": pl.Float64,  # null in a gap
        "observed": pl.Boolean,
        "n_obs": pl.Int32,  # readings that went in
        "revision": pl.Int32,  # 1, 2, … by available_at
        "available_at": UTC_US,  # when this revision could first be known
        "event_date": pl.Date,  # partition: the date of ts
    }
    key = ("series_id", "ts", "revision")
    partition_by = "event_date"
    append_only = False


class Plans(TableSchema):
    """What was announced of instants to come (schedules, tariffs, weather forecasts), as it was announced; a revision is a further row."""

    name = "plans"
    columns: ClassVar = {
        "series_id": pl.String,  # device_id/metric
        "ts": UTC_US,  # the instant that the value is announced for
        "value": pl.Float64,  # as it came
        "available_at": UTC_US,  # when the announcement could first be known
        "ingested_at": UTC_US,
        "event_date": pl.Date,  # partition: the date of ts
    }
    key = ("series_id", "ts", "available_at", "value")
    partition_by = "event_date"
    append_only = True


class Forecasts(TableSchema):
    """One row for each series, origin and model version; the query layer explodes `quantiles` into steps."""

    name = "forecasts"
    columns: ClassVar = {
        "series_id": pl.String,
        "origin": UTC_US,  # label of the last tick used; step h is origin + h · sample_interval
        "horizon": pl.Int32,  # steps
        "sample_interval_us": pl.Int64,
        "quantile_levels": pl.List(pl.Float32),
        "quantiles": pl.List(pl.Float32),  # step-major: horizon x levels, in the metric's unit
        "model_version": pl.String,  # in the registry, and the start of the weights' hash: "3-1f0c9a52"
        "input_version": pl.Int64,  # Delta version of observations
        "status": pl.String,  # ok, cold_start, degraded, silent, fallback_last_value
        "created_at": UTC_US,
        "origin_date": pl.Date,  # partition
    }
    key = ("series_id", "origin", "model_version")
    partition_by = "origin_date"
    append_only = True


class Scores(TableSchema):
    """Matured forecasts against what came true, one row for each series, origin, step and model version."""

    name = "scores"
    columns: ClassVar = {
        "series_id": pl.String,
        "origin": UTC_US,
        "step": pl.Int32,
        "ts": UTC_US,  # target time
        "model_version": pl.String,
        "actual": pl.Float64,
        "error": pl.Float64,  # actual − median
        "pinball": pl.Float64,  # mean over the levels, in the metric's unit
        "in_80": pl.Boolean,  # between the 0.1 and the 0.9 quantile
        "scored_at": UTC_US,
        "origin_date": pl.Date,  # partition
    }
    key = ("series_id", "origin", "step", "model_version")
    partition_by = "origin_date"
    append_only = True


TABLES: tuple[type[TableSchema], ...] = (Readings, Quarantine, Observations, Plans, Forecasts, Scores)
