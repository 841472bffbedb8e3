"""Readings become observations on the regular grid: incremental, idempotent, and the same whatever order the readings came in.

Each run computes the ticks whose readings changed since the last one, and the ticks between a series' first and last reading that are
not stored yet: gaps that are not too long, and ticks that were still open. These follow from the tables alone, so a run that died at any
point is simply run again. Called by `flows.ingest` after each ingest, and on its own when ticks close without new readings.
"""

import logging
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

import polars as pl

from pipeline.clock import Clock
from pipeline.errors import SettingsError, StoreError
from pipeline.failpoints import failpoint
from pipeline.prepare.aggregate import observe
from pipeline.prepare.closing import closed_through
from pipeline.prepare.due_ticks import due_ticks, readings_of, stale_spans
from pipeline.prepare.grid import FINEST
from pipeline.prepare.made_with import made_otherwise, record_ways, recorded_ways, ways
from pipeline.prepare.registration import register_series
from pipeline.schemas import EPOCH, Observations, Readings
from pipeline.settings import Settings
from pipeline.store.catalog import Catalog
from pipeline.store.lake import Lake, read
from pipeline.store.observations import Progress, read_progress, write_observations
from pipeline.store.readings import changed_since

logger = logging.getLogger(__name__)

TAKEN_IN = "regularise/readings"  # the catalog's own count of readings versions
CHANGED = ("series_id", "device_id", "metric", "unit", "ts")  # what a run must know of a reading that is new
MAX_ROUNDS = 10


@dataclass(frozen=True)
class RegulariseReport:
    """What one run did.

    Attributes:
        series: series with at least one row written.
        observations_written: rows that are new or changed, revisions included.
        revised: rows among them that revise an earlier value.
        waiting_series: series without a grid, because their few stamps leave their interval open.
        readings_version: Delta version of `readings` that the observations follow now.
    """

    series: int
    observations_written: int
    revised: int
    waiting_series: int
    readings_version: int

    def to_dict(self) -> dict[str, int]:
        """Return a JSON-ready form."""
        return asdict(self)


def regularise(settings: Settings, clock: Clock, readings_version: int | None = None) -> RegulariseReport:
    """Bring the observations up to the readings and to the present.

    A tick that has not closed by `clock.now()` is not written; the first run after it has closed writes it, new readings or not.
    A series is computed again if its aggregation or unit was changed, and all series if the allowed lateness was.

    Args:
        settings: `lake`, `ingest.allowed_lateness`, `metrics` and `prepare`.
        clock: tells which ticks have closed.
        readings_version: the version of the readings to read; None for the newest. A live loop names the version that held what had
            arrived by `clock.now()` and no more: otherwise readings that arrive a moment later would be known before they came.

    Raises:
        SettingsError: when `prepare.sample_interval` is finer than a millisecond.
        StoreError: when the lake is missing, damaged or in conflict without end.
    """
    interval = settings.prepare.sample_interval
    if interval is not None and interval < FINEST:
        raise SettingsError(f"A grid requires a sample interval of 1 ms or more; got {interval}. Correct prepare.sample_interval.")
    lake, catalog = Lake(settings.lake), Catalog(settings.state_dir)
    for _ in range(MAX_ROUNDS):
        report = _run(lake, catalog, settings, clock.now(), readings_version)
        if report is not None:
            logger.info("regularised %s", " ".join(f"{name}={count}" for name, count in report.to_dict().items()))
            return report
    raise StoreError(
        f"regularise requires a turn at the observations; got {MAX_ROUNDS} other runs that were quicker. Run one at a time on a lake."
    )


def _run(lake: Lake, catalog: Catalog, settings: Settings, now: datetime, readings_version: int | None) -> RegulariseReport | None:
    """Compute and write what is missing; None when another run was quicker, so that it must be computed again."""
    lateness = settings.ingest.allowed_lateness
    stored = lake.open(Observations)  # before the readings: what is stored can then only be behind them
    recorded = read_progress(stored)
    present = _never_back(recorded, now, settings.ingest.max_future)
    progress = _usable(recorded, lateness)
    readings_version = _version_to_read(lake, recorded, readings_version)
    lake = lake.at(Readings, readings_version)  # one state of the table for all of its reads
    changed = _changed_readings(lake, progress, catalog.position(TAKEN_IN))
    fleet = register_series(lake, catalog, changed, settings, stored)
    changed = pl.concat([changed, _made_otherwise(lake, settings, fleet)])
    spans = stale_spans(stored, fleet, changed, progress, allowed_lateness=lateness, closed_until=present)
    readings = readings_of(lake, spans)
    ticks = due_ticks(stored, spans, changed, readings)
    observations = observe(readings, fleet, ticks, allowed_lateness=lateness, closed_until=present)
    last_close = max(closed_through(fleet, lateness, now), EPOCH if recorded is None else recorded.closed_until)
    written = write_observations(lake, observations, readings_version=readings_version, closed_until=last_close, allowed_lateness=lateness)
    if written is None:
        return None
    failpoint("regularise.after_commit")
    _remember(catalog, settings, fleet, readings_version)
    return RegulariseReport(
        series=written["series_id"].n_unique(),
        observations_written=written.height,
        revised=written.filter(pl.col("revision") > 1).height,
        waiting_series=fleet["sample_interval_us"].null_count(),
        readings_version=readings_version,
    )


def _never_back(recorded: Progress | None, now: datetime, max_future: timedelta) -> datetime:
    """Return the present, or the last recorded close where that is later, because the clock of another machine was ahead."""
    present = now if recorded is None else max(now, recorded.closed_until)
    if present - now > max_future:
        logger.warning("a clock that was ahead closed ticks up to %s: until then each tick closes when its first reading arrives", present)
    return present


def _version_to_read(lake: Lake, recorded: Progress | None, named: int | None) -> int:
    """Return the version of the readings that the caller named, unless the observations are past it already; else the newest."""
    newest = lake.version(Readings)
    is_behind = named is not None and recorded is not None and named < recorded.readings_version
    return newest if named is None or is_behind else min(named, newest)


def _usable(progress: Progress | None, allowed_lateness: timedelta) -> Progress | None:
    """Return the progress, or None if it was made under another lateness, which decides what a first revision holds."""
    if progress is not None and progress.allowed_lateness != allowed_lateness:
        logger.warning("recomputing all observations allowed_lateness=%s before=%s", allowed_lateness, progress.allowed_lateness)
        return None
    return progress


def _changed_readings(lake: Lake, progress: Progress | None, taken_in: int | None) -> pl.DataFrame:
    """Return `CHANGED` of the readings that the observations or the catalog have not taken in.

    A catalog that was lost or comes from another machine is behind the observations: the readings it missed are read again, once.
    """
    if progress is None or taken_in is None or taken_in > lake.version(Readings):  # the last: it belongs to another lake
        return read(lake.scan(Readings).select(CHANGED))
    changes = changed_since(lake, min(progress.readings_version, taken_in))
    return changes.with_columns(unit=pl.lit(None, pl.String)).select(CHANGED)


def _made_otherwise(lake: Lake, settings: Settings, fleet: pl.DataFrame) -> pl.DataFrame:
    """Return the readings, as `_changed_readings`, of the series whose observations were made with another aggregation or unit."""
    other = made_otherwise(fleet, recorded_ways(settings.state_dir))
    if other:
        logger.warning("recomputing num_series=%d whose aggregation or unit has changed, as %s", len(other), other[0])
    scan = lake.scan(Readings).filter(pl.col("series_id").is_in(other))
    empty = Readings.empty().lazy()
    return read((scan if other else empty).select(CHANGED))


def _remember(catalog: Catalog, settings: Settings, fleet: pl.DataFrame, readings_version: int) -> None:
    """Record, after the commit, what it was made of; a run that dies before does it again."""
    record_ways(settings.state_dir, ways(fleet))
    if catalog.position(TAKEN_IN) != readings_version:
        catalog.set_position(TAKEN_IN, readings_version)
