"""One commit of a live source: a range of its messages becomes readings and quarantine, under the number to go on from.

What the inbox and Kafka share, in an order that may be cut short anywhere: a series is registered before its readings, quarantine comes
first and finds what it holds, the number is in the commit of the readings, and the catalog hears of the range after it. Called by
`drain.py` and `kafka_store.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from pipeline.clock import Clock
from pipeline.failpoints import failpoint
from pipeline.ingest.intake import Intake
from pipeline.listen.inbox import Stored
from pipeline.listen.judge import judge
from pipeline.payloads.message import Message
from pipeline.schemas import Readings
from pipeline.settings import Settings
from pipeline.store.catalog import Catalog
from pipeline.store.lake import Lake
from pipeline.store.readings import append_readings, fence, split_duplicates, store_quarantine, with_stored_arrivals

# What one commit takes, which bounds the memory: 50k messages of one reading, 300k readings in messages of a hundred.
RANGE_MESSAGES = 50_000
RANGE_BYTES = 32 * 1024**2


@dataclass(frozen=True)
class RangeCommits:
    """The lake and the catalog, as live sources write them.

    Attributes:
        settings: lake, state folder, and the sections ingest, listen and metrics.
        clock: says when readings are committed.
        lake: its tables exist.
        catalog: the series, and how far each source has come.
    """

    settings: Settings
    clock: Clock
    lake: Lake
    catalog: Catalog

    @classmethod
    def open(cls, settings: Settings, clock: Clock) -> "RangeCommits":
        """Open a lake, and make its tables where there are none.

        Raises:
            StoreError: when it cannot be written.
        """
        lake = Lake(settings.lake)
        lake.create_all()
        return cls(settings, clock, lake, Catalog(settings.state_dir))

    def stored_through(self, source: str) -> int:
        """Return the number of a source's last commit; 0 before the first."""
        return self.lake.last_seq(Readings, fence(source)) or 0

    def newest_version(self, source: str) -> tuple[int, int]:
        """Return the newest version of the readings, and the number of the last commit of a source in it; 0 before the first."""
        handle = self.lake.open(Readings)
        return handle.version(), handle.transaction_version(fence(source)) or 0

    def new_intake(self, *, as_stored: bool = False) -> Intake:
        """Return what is known of series and units, as the catalog has it.

        Args:
            as_stored: read watermarks from the lake, because the catalog is ahead of its readings.
        """
        series = self.catalog.series()
        return Intake.start(self.settings, with_stored_arrivals(self.lake, series) if as_stored else series)

    def commit(
        self, stored: Sequence[Stored], intake: Intake, *, source: str, seq: int, after: int, births: Sequence[Message] = ()
    ) -> bool:
        """Store what a range of messages holds, and count it in `intake`.

        Args:
            stored: the messages, at least one.
            intake: series and units known after commit `after`. Discard it if this call returns False.
            source: the inbox or partition whose numbers these are.
            seq: the number of this commit.
            after: number of the commit that it must follow.
            births: what `decode` must know of the messages before these.

        Returns:
            False when another process has committed since `after`: nothing of the range was stored but its quarantine.

        Raises:
            StoreError: when the lake or the catalog cannot be written.
        """
        readings, rejected = self._judge(stored, intake, births)
        spans = intake.register(readings)
        store_quarantine(self.lake, rejected, source=source)
        failpoint("drain.after_quarantine")
        fresh, _duplicate = split_duplicates(self.lake, readings)
        if not append_readings(self.lake, fresh, source=source, seq=seq, after=after):
            return False
        failpoint("drain.after_readings")
        self.catalog.upsert_series(intake.reached(spans))
        self.catalog.set_position(source, seq)
        intake.count(readings, fresh, rejected)
        return True

    def catch_up(self, stored: Sequence[Stored], intake: Intake, births: Sequence[Message] = ()) -> None:
        """Update the catalog's watermarks from messages in the lake: the process that stored them died before it did so."""
        readings, _rejected = self._judge(stored, intake, births)
        self.catalog.upsert_series(intake.reached(intake.register(readings)))

    def _judge(self, stored: Sequence[Stored], intake: Intake, births: Sequence[Message]) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return the readings of a range, marked late or not, and its rejected payloads."""
        now = self.clock.now()
        judged = judge(stored, intake, self.settings, now, births=births)
        return intake.mark(judged.accepted, now), judged.rejected
