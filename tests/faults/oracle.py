"""The oracle: what was acknowledged against what is stored, as sets.

Every fault ends here, whatever it was: nothing lost, nothing twice, nothing that nobody sent.
"""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from pipeline.schemas import Readings
from pipeline.store.lake import Lake, read
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


def account(lake: str, ledger: Path, fleet: Fleet) -> Account:
    """Compare a lake with a producer's ledger."""
    lines = {tuple(line.split()) for line in ledger.read_text().splitlines()}
    acknowledged = frame_of(fleet, {(int(device[1:]), int(seq)) for device, seq in lines})
    stored = read(Lake(lake).scan(Readings).select(*KEY, "source_seq"))
    distinct = stored.unique(KEY)
    numbers = {(int(series[1:6]), seq) for series, seq in stored.select("series_id", "source_seq").iter_rows()}
    return Account(
        acknowledged=len(acknowledged),
        stored=len(distinct),
        lost=len(acknowledged.join(distinct, on=KEY, how="anti")),
        repeated=len(stored) - len(distinct),
        strangers=len(distinct.join(frame_of(fleet, numbers), on=KEY, how="anti")),
    )


def frame_of(fleet: Fleet, numbers: set[tuple[int, int]]) -> pl.DataFrame:
    """Return the readings (device, seq) of a fleet in the columns of `KEY`."""
    found = [fleet.reading(device, seq) for device, seq in sorted(numbers)]
    rows = [(reading.series_id, reading.ts, reading.value) for reading in found]
    return pl.DataFrame(rows, schema={name: Readings.columns[name] for name in KEY}, orient="row")
