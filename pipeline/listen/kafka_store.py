"""From a partition of Kafka to the lake: the offset to go on from is in the same commit as the readings before it.

Kafka keeps its messages, so there is no inbox: what was not committed is read again. Decoding, judging and storing are the drain's.
Called by `kafka.py`.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl

from pipeline.clock import Clock
from pipeline.failpoints import failpoint
from pipeline.ingest.intake import Intake
from pipeline.listen.inbox import Stored
from pipeline.listen.judge import judge
from pipeline.schemas import Readings
from pipeline.settings import Settings
from pipeline.store.catalog import Catalog
from pipeline.store.lake import Lake
from pipeline.store.readings import append_readings, fence, split_duplicates, store_quarantine

logger = logging.getLogger(__name__)


@dataclass
class Partition:
    """A partition that this process reads.

    Attributes:
        source: what the numbers of its commits belong to: kafka, the name of the cluster, the topic and the partition.
        start: offset to read from: where the catalog stands, which is behind the lake only after a death between the two.
        through: offset of the first message that the lake does not have; 0 for a partition that it has nothing of.
        waiting: messages read and not stored, numbered by their offsets.
    """

    source: str
    start: int
    through: int
    waiting: list[Stored] = field(default_factory=list)


class PartitionStore:
    """Stores messages of partitions, each once, whoever else may think that a partition is theirs.

    Attributes:
        counts: messages stored, and what became of their readings.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        """Open the lake.

        Raises:
            StoreError: when it cannot be written.
        """
        self.counts = Counter(messages=0, read=0, accepted=0, duplicate=0, late=0, quarantined=0)
        self._settings, self._clock = settings, clock
        self._lake, self._catalog = Lake(settings.lake), Catalog(settings.state_dir)
        self._lake.create_all()
        self._intake: Intake | None = None  # what is known of series and units; None where that must be read first

    def open(self, source: str) -> Partition:
        """Return where a partition stands."""
        through = self._lake.last_seq(Readings, fence(source)) or 0
        return Partition(source, min(self._catalog.position(source) or 0, through), through)

    def store(self, partition: Partition) -> bool:
        """Store what waits of a partition, and forget it.

        Returns:
            False when another process has stored some of it: `partition` is not ours any more, or must be read again from where it is.

        Raises:
            StoreError: when the lake or the catalog cannot be written; read it again.
        """
        stored, partition.waiting = partition.waiting, []
        known = [one for one in stored if one.seq < partition.through]
        news = stored[len(known) :]
        if known:  # a process died between their commit and the catalog: how far their series came is what is missing
            intake = self._known_so_far()
            self._catalog.upsert_series(intake.reached(intake.register(self._readings_of(known, intake)[0])))
        return self._append(partition, news) if news else True

    def _append(self, partition: Partition, news: Sequence[Stored]) -> bool:
        intake = self._known_so_far()
        readings, rejected = self._readings_of(news, intake)
        spans = intake.register(readings)
        store_quarantine(self._lake, rejected, source=partition.source)
        failpoint("drain.after_quarantine")
        fresh, _duplicate = split_duplicates(self._lake, readings)
        end = news[-1].seq + 1
        if not append_readings(self._lake, fresh, source=partition.source, seq=end, after=partition.through):
            self._intake = None  # it has counted what another process stores
            logger.warning("fenced off source=%s from=%d: another process has stored it", partition.source, partition.through)
            return False
        failpoint("drain.after_readings")
        partition.through = end
        self._catalog.upsert_series(intake.reached(spans))
        self._catalog.set_position(partition.source, end)
        self.counts["messages"] += len(news)
        intake.count(readings, fresh, rejected)
        self.counts.update({name: intake.counts[name] for name in self.counts if name != "messages"})
        intake.counts.clear()
        return True

    def _known_so_far(self) -> Intake:
        self._intake = self._intake or Intake.start(self._settings, self._catalog.series())
        return self._intake

    def _readings_of(self, stored: Sequence[Stored], intake: Intake) -> tuple[pl.DataFrame, pl.DataFrame]:
        now = self._clock.now()
        judged = judge(stored, intake, self._settings, now)
        return intake.mark(judged.accepted, now), judged.rejected
