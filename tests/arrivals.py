"""Readings that arrive in a real lake, for the laws about time and for the tests of preparation.

An arrival is (series_id, ts, value, received_at) or (series_id, ts, value, received_at, source_seq).
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from pipeline.clock import ReplayClock
from pipeline.prepare.regularise import RegulariseReport, regularise
from pipeline.schemas import MICROSECOND, Observations, Readings
from pipeline.settings import IngestSettings, Settings
from pipeline.store.catalog import Catalog
from pipeline.store.lake import Lake
from pipeline.store.readings import append_readings

Arrival = tuple[str, datetime, float | None, datetime] | tuple[str, datetime, float | None, datetime, int]

MINUTE = timedelta(minutes=1)
LATENESS = 2 * MINUTE
START = datetime(2026, 1, 1, tzinfo=UTC)
FAR = datetime(2040, 1, 1, tzinfo=UTC)  # every tick has closed


def new_lake(folder: Path, **sections: object) -> Settings:
    """Create the tables in a folder; two minutes of allowed lateness unless `sections` say otherwise."""
    settings = Settings(lake=str(folder), **{"ingest": IngestSettings(allowed_lateness=LATENESS), **sections})
    Lake(settings.lake).create_all()
    return settings


def with_grid(settings: Settings, interval: timedelta, aggregation: str, *series_ids: str) -> None:
    """Decide the grid of series before any reading has come."""
    frame = pl.DataFrame({"series_id": series_ids}, schema={"series_id": pl.String}).with_columns(
        device_id=pl.lit("device"),
        metric=pl.lit("metric"),
        aggregation=pl.lit(aggregation),
        sample_interval_us=pl.lit(interval // MICROSECOND),
        grid_offset_us=pl.lit(0),
    )
    Catalog(settings.state_dir).upsert_series(frame)


def minutes(first: int, last: int, series: str = "s", value: float = 1.0, step: int = 1) -> list[Arrival]:
    """Readings at each minute from `START` on, received when measured."""
    return [(series, START + m * MINUTE, value + m, START + m * MINUTE) for m in range(first, last, step)]


def arrive(settings: Settings, arrivals: Sequence[Arrival]) -> None:
    """Commit the arrivals as one batch of readings."""
    lake = Lake(settings.lake)
    columns = ("series_id", "ts", "value", "received_at", "source_seq")
    frame = pl.DataFrame(
        [(*arrival, 0)[:5] for arrival in arrivals], schema={name: Readings.columns[name] for name in columns}, orient="row"
    )
    readings = frame.with_columns(
        source=pl.lit("test"),
        device_id=pl.lit("device"),
        metric=pl.lit("metric"),
        unit=pl.lit(None, pl.String),
        quality=pl.lit(0),
        ingested_at=pl.col("received_at"),
        is_late=pl.lit(value=False),
        ingest_date=pl.col("received_at").dt.date(),
    )
    append_readings(lake, readings, source="test", seq=lake.version(Readings) + 1)


def regularised(settings: Settings, at: datetime = FAR) -> RegulariseReport:
    """Regularise as of an instant of our clock."""
    return regularise(settings, ReplayClock(at))


def stored(settings: Settings) -> pl.DataFrame:
    """Every row of the observations table, all revisions, in the order of the key."""
    return Lake(settings.lake).scan(Observations).collect().select(list(Observations.columns)).sort(Observations.key)
