"""The oracle: what was acknowledged against what is stored, as sets, and what is forecast against its key.

Every fault ends here, whatever it was: nothing lost, nothing twice, nothing that nobody sent.
"""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from pipeline.schemas import Forecasts, Readings
from pipeline.store.lake import Lake, read
from pipeline.store.observations import read_observations
from tests.faults.fleet import Fleet

KEY = ("series_id", "ts", "value")


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


def account(lake: str, ledger: Path, fleet: Fleet) -> Account:
    """Compare a lake with a producer's ledger."""
    lines = {tuple(line.split()) for line in ledger.read_text().splitlines()}
    acknowledged = frame_of(fleet, {(int(device[1:]), int(seq)) for device, seq in lines})
    of_fleet = pl.col("source").str.starts_with("mqtt:fleet/")
    stored = read(Lake(lake).scan(Readings).filter(of_fleet).select(*KEY, "source_seq"))
    distinct = stored.unique(KEY)
    numbers = {(int(series[1:6]), seq) for series, seq in stored.select("series_id", "source_seq").iter_rows()}
    return Account(
        acknowledged=len(acknowledged),
        stored=len(distinct),
        lost=len(acknowledged.join(distinct, on=KEY, how="anti")),
        repeated=len(stored) - len(distinct),
        strangers=len(distinct.join(frame_of(fleet, numbers), on=KEY, how="anti")),
    )


def forecast_account(lake: str, fleet: Fleet) -> ForecastAccount:
    """Count the forecasts of a lake, which one model made."""
    stored = read(Lake(lake).scan(Forecasts).select(Forecasts.key))
    distinct = stored.unique()
    span = (pl.col("origin").max() - pl.col("origin").min()).dt.total_seconds() / fleet.interval_s
    ticks = distinct.group_by("series_id").agg(due=span + 1, found=pl.len())
    return ForecastAccount(len(distinct), len(stored) - len(distinct), int(ticks.select(pl.col("due") - pl.col("found")).sum().item()))


def wrong_ticks(lake: str, fleet: Fleet) -> int:
    """Count the observations that are not the reading of their device at that tick, whatever came twice, late or in disorder."""
    newest = read_observations(Lake(lake)).filter("observed")
    start = fleet.reading(0, 0).ts
    numbers = newest.select(pl.col("series_id"), seq=((pl.col("ts") - start).dt.total_seconds() / fleet.interval_s).cast(pl.Int64))
    truth = frame_of(fleet, {(int(series[1:6]), seq) for series, seq in numbers.iter_rows()})
    return len(newest.select(KEY).join(truth, on=KEY, how="anti"))


def frame_of(fleet: Fleet, numbers: set[tuple[int, int]]) -> pl.DataFrame:
    """Return the readings (device, seq) of a fleet in the columns of `KEY`."""
    found = [fleet.reading(device, seq) for device, seq in sorted(numbers)]
    rows = [(reading.series_id, reading.ts, reading.value) for reading in found]
    return pl.DataFrame(rows, schema={name: Readings.columns[name] for name in KEY}, orient="row")
