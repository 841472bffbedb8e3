"""The oracle: what was acknowledged against what is stored, as sets, and what is forecast against its key.

Every fault ends here, whatever it was: nothing lost, nothing twice, nothing that nobody sent.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from flows.closing import close_ticks
from pipeline.clock import ReplayClock, SystemClock
from pipeline.schemas import Forecasts, Observations, Readings
from pipeline.settings import Settings
from pipeline.store.lake import Lake, read
from pipeline.store.observations import read_observations, read_progress
from tests.faults.fleet import Fleet

KEY = ("series_id", "ts", "value")
OF_FLEET = pl.col("source").str.starts_with("mqtt:fleet/")


@dataclass(frozen=True)
class Account:
    """How the ledger and the lake compare.

    Attributes:
        acknowledged: readings that the broker took over.
        stored: distinct readings in the lake.
        lost: acknowledged and not stored.
        repeated: stored more than once.
        strangers: stored and never part of the fleet.
    """

    acknowledged: int
    stored: int
    lost: int
    repeated: int
    strangers: int

    @property
    def is_whole(self) -> bool:
        """Whether nothing is lost, repeated or made up."""
        return self.acknowledged > 0 and self.lost == self.repeated == self.strangers == 0


@dataclass(frozen=True)
class ForecastAccount:
    """Which forecasts there are.

    Attributes:
        stored: distinct (series, origin, model).
        repeated: stored more than once.
        left_out: ticks between the first and the last origin of a series that it was not forecast from.
    """

    stored: int
    repeated: int
    left_out: int

    @property
    def is_whole(self) -> bool:
        """Whether there are any, each of them once."""
        return self.stored > 0 and self.repeated == self.left_out == 0


def account(lake: str, ledger: Path, fleet: Fleet) -> Account:
    """Compare a lake with a producer's ledger."""
    sent = acknowledged(ledger, fleet)
    stored = read(Lake(lake).scan(Readings).filter(OF_FLEET).select(*KEY, "source_seq"))
    distinct = stored.unique(KEY)
    return Account(
        acknowledged=len(sent),
        stored=len(distinct),
        lost=len(sent.join(distinct, on=KEY, how="anti")),
        repeated=len(stored) - len(distinct),
        strangers=len(distinct.join(true_readings(Lake(lake), fleet), on=KEY, how="anti")),
    )


def forecast_account(lake: str, fleet: Fleet) -> ForecastAccount:
    """Count the forecasts of a lake, which one model made."""
    stored = read(Lake(lake).scan(Forecasts).select(Forecasts.key))
    distinct = stored.unique()
    span = (pl.col("origin").max() - pl.col("origin").min()).dt.total_seconds() / fleet.interval_s
    ticks = distinct.group_by("series_id").agg(due=span + 1, found=pl.len())
    return ForecastAccount(len(distinct), len(stored) - len(distinct), int(ticks.select(pl.col("due") - pl.col("found")).sum().item()))


def wrong_ticks(settings: Settings, fleet: Fleet) -> pl.DataFrame:
    """Return series_id, ts of the ticks whose observation is missing, made up or not what their device measured.

    Looked at twice: as the run has left them, which says itself how far its observations follow the readings, and when everything that
    is stored is closed. The readings of the fleet lie on the grid, so that each of them is its tick.
    """
    lake = Lake(settings.lake)
    progress = read_progress(lake.open(Observations))
    parts = []
    if progress is not None:
        then = lake.at(Readings, progress.readings_version)
        parts.append(_unlike(then, fleet, progress.closed_until - progress.allowed_lateness))
    now = SystemClock().now() + settings.ingest.allowed_lateness
    close_ticks(settings, ReplayClock(now))
    parts.append(_unlike(lake, fleet, now))
    return pl.concat(parts).unique().sort("series_id", "ts")


def _unlike(lake: Lake, fleet: Fleet, end: datetime) -> pl.DataFrame:
    """Return series_id, ts up to a label at which the observations are not the stored readings."""
    found = read_observations(lake, end=end).filter("observed").select(KEY)
    truth = true_readings(lake, fleet).filter(pl.col("ts") <= end)
    apart = [one.join(other, on=KEY, how="anti") for one, other in ((found, truth), (truth, found))]
    return pl.concat(apart).select("series_id", "ts")


def true_readings(lake: Lake, fleet: Fleet) -> pl.DataFrame:
    """Return, in the columns of `KEY`, what the fleet measured at the numbers of the readings that a lake holds."""
    stored = read(lake.scan(Readings).filter(OF_FLEET).select("series_id", "source_seq"))
    return frame_of(fleet, {(int(series[1:6]), seq) for series, seq in stored.iter_rows()})


def acknowledged(ledger: Path, fleet: Fleet) -> pl.DataFrame:
    """Return, in the columns of `KEY`, the readings that the lines of a ledger name, each once."""
    lines = (line.split() for line in ledger.read_text().splitlines())
    return frame_of(fleet, {(int(device[1:]), int(seq)) for device, seq in lines})


def frame_of(fleet: Fleet, numbers: set[tuple[int, int]]) -> pl.DataFrame:
    """Return the readings (device, seq) of a fleet in the columns of `KEY`."""
    found = [fleet.reading(device, seq) for device, seq in sorted(numbers)]
    rows = [(reading.series_id, reading.ts, reading.value) for reading in found]
    return pl.DataFrame(rows, schema={name: Readings.columns[name] for name in KEY}, orient="row")
