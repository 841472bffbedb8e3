"""From a partition of Kafka to the lake: the offset to go on from is in the same commit as the readings before it.

Kafka keeps its messages, so there is no inbox: what was not committed is read again. Decoding, judging and storing are the drain's.
Called by `kafka.py`.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pipeline.clock import Clock
from pipeline.ingest.intake import Intake
from pipeline.listen.inbox import Stored
from pipeline.listen.range_commit import RangeCommits
from pipeline.settings import Settings

logger = logging.getLogger(__name__)


@dataclass
class Partition:
    """A partition that this process reads.

    Attributes:
        source: under which its commits are numbered: kafka, the name of the cluster, the topic and the partition.
        start: offset to read from: where the catalog stands, which is behind the lake only after a crash between the two commits.
        through: offset of the first message that the lake does not have; 0 where it has none.
        waiting: messages read and not stored, numbered by their offsets.
    """

    source: str
    start: int
    through: int
    waiting: list[Stored] = field(default_factory=list)


class PartitionStore:
    """Stores messages of partitions, each once, even while another process believes that it owns a partition.

    Attributes:
        counts: messages stored, and what became of their readings.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        """Open the lake.

        Raises:
            StoreError: when it cannot be written.
        """
        self.counts = Counter(messages=0, read=0, accepted=0, duplicate=0, late=0, quarantined=0)
        self._commits = RangeCommits.open(settings, clock)
        self._intake: Intake | None = None  # what is known of series and units; None where that must be read first
        self._lost_a_tail = False  # whether the catalog was ahead of the lake in a partition

    def open(self, source: str) -> Partition:
        """Return where a partition stands; its owner before may have met series that this process does not know."""
        through, heard_of = self._commits.stored_through(source), self._commits.catalog.position(source) or 0
        self._intake = None
        self._lost_a_tail |= heard_of > through  # what the lake stores again is as late as it was
        return Partition(source, min(heard_of, through), through)

    def store(self, partition: Partition) -> bool:
        """Store what waits of a partition, and forget it.

        Returns:
            False when another process has stored some of it: open the partition again.

        Raises:
            StoreError: when the lake or the catalog cannot be written; read it again.
        """
        stored, partition.waiting = partition.waiting, []
        known = [one for one in stored if one.seq < partition.through]
        news = stored[len(known) :]
        if known:  # a process died between their commit and the catalog: how far their series came is what is missing
            self._commits.catch_up(known, self._known_so_far())
        return self._append(partition, news) if news else True

    def _append(self, partition: Partition, news: Sequence[Stored]) -> bool:
        intake = self._known_so_far()
        end = news[-1].seq + 1
        now = self._commits.clock.now()  # received when stored, as in the inbox: ticks may have closed since it was read
        received = [Stored(one.seq, replace(one.message, received_at=now)) for one in news]
        if not self._commits.commit(received, intake, source=partition.source, seq=end, after=partition.through):
            self._intake = None  # it has counted what another process stores
            logger.warning("fenced off source=%s from=%d: another process has stored it", partition.source, partition.through)
            return False
        partition.through = end
        self.counts["messages"] += len(news)
        self.counts.update({name: intake.counts[name] for name in self.counts if name != "messages"})
        intake.counts.clear()
        return True

    def _known_so_far(self) -> Intake:
        self._intake = self._intake or self._commits.new_intake(as_stored=self._lost_a_tail)
        return self._intake
