"""From the inbox to the lake: `drain` brings readings and quarantine up to the messages that were acknowledged.

Messages are taken in ranges of their numbers. What a range holds follows from its messages and from the ranges before it, and the
number of its last message is in the same commit as its readings, so a drain may be killed anywhere, repeated, and run in several
processes at once: each range counts once. Quarantine is committed first, and finds what it holds already. Called by the listeners
and before a tick is closed.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from polars.exceptions import PanicException

from pipeline.clock import Clock
from pipeline.failpoints import failpoint
from pipeline.ingest.intake import Intake
from pipeline.listen.inbox import FILE_NAME, Inbox, Stored
from pipeline.listen.range_commit import RANGE_BYTES, RANGE_MESSAGES, RangeCommits
from pipeline.payloads.message import Message
from pipeline.settings import Settings

logger = logging.getLogger(__name__)

# What a caller that must go on without a drain catches: a fault in the code as well as the store's, and a panic of Polars, no Exception.
FAULTS = (Exception, PanicException)
NEARLY_FULL = 0.8  # of listen.max_inbox_bytes: from there on the oldest messages that the lake has go, however young


@dataclass(frozen=True, kw_only=True)
class DrainReport:
    """What one drain took from the inbox: read = accepted + duplicate + quarantined.

    Attributes:
        messages: taken.
        read: readings in them, unusable ones included.
        accepted: stored by this drain.
        duplicate: stored before, or twice in the messages.
        late: of the accepted ones, how many came behind the watermark of their series.
        quarantined: unusable; each payload is in quarantine once, however often it comes.
        reasons: quarantined readings by error code.
        through: the number up to which the lake has the inbox.
        until: the instant up to which everything that was acknowledged is in the lake.
        readings_version: version of the readings that holds what was acknowledged by `until`, and nothing later; None without an inbox.
    """

    messages: int
    read: int
    accepted: int
    duplicate: int
    late: int
    quarantined: int
    reasons: Mapping[str, int]
    through: int
    until: datetime
    readings_version: int | None = None

    def to_dict(self) -> dict[str, object]:
        """Return a JSON-ready form."""
        return {**asdict(self), "reasons": dict(self.reasons), "until": self.until.isoformat()}


def drain(settings: Settings, clock: Clock) -> DrainReport:
    """Bring the lake up to the inbox, then forget the messages that it has had for long enough; where there is no inbox, do nothing.

    So if the lake is moved away while a listener runs, no empty one is created in its place; move it back, and the listener continues.

    Args:
        settings: lake, state folder, and the sections ingest, listen and metrics.
        clock: says when readings are committed, and which messages are old.

    Raises:
        StoreError: when the lake, the catalog or the inbox cannot be read or written; what was committed stays, and the next drain goes on.
    """
    if not (settings.state_dir / FILE_NAME).exists():
        return _report(Counter(), {}, 0, clock.now())
    commits = RangeCommits.open(settings, clock)
    with closing(Inbox(settings.state_dir)) as inbox:
        until = inbox.settled_instant(clock)  # before the first look: what is stamped later may come too late for this drain
        run = _Drain(commits, inbox)
        while run.commit_next():
            pass
        run.trim()
        return run.report(until)


class _Drain:
    """One drain: how far it is, and what it has found.

    Attributes:
        through: number of the last message that the lake has.
        intake: what is known of series and units at `through`; None where that must be read first.
    """

    def __init__(self, commits: RangeCommits, inbox: Inbox) -> None:
        self.commits, self.inbox = commits, inbox
        self.through = self._stored_through()
        if inbox.last_seq() < self.through:
            logger.error(
                "the inbox %s is older than the lake: its last message is %d, the lake has had %d; all of it is taken again",
                *(inbox.path, inbox.last_seq(), self.through),
            )
            inbox.renew()
            self.through = self._stored_through()
        if self.through < inbox.forgotten():
            logger.error(
                "the lake was rolled back behind its inbox: messages %d to %d are in neither; restore the lake, or send them again",
                *(self.through + 1, inbox.forgotten()),
            )
        self.intake: Intake | None = None
        self.counts, self.reasons = Counter[str](), Counter[str]()

    def commit_next(self) -> bool:
        """Commit the next range; False when there is none."""
        stored = self._read(self.through)
        if not stored:
            return False
        failpoint("drain.after_read")
        self.intake = self.intake or self._resume()
        end = stored[-1].seq
        births = self._births(stored)
        if self.commits.commit(stored, self.intake, source=self.inbox.source, seq=end, after=self.through, births=births):
            self.through = end
            self.counts["messages"] += len(stored)
        else:
            self.intake, self.through = None, self._stored_through()  # another drain was quicker: go on behind it
        return True

    def trim(self) -> None:
        """Delete old messages that the lake and the catalog have; from a nearly full inbox, younger ones too."""
        limits = self.commits.settings.listen
        has = min(self.through, self._heard_of())
        before = self.commits.clock.now() - limits.keep_messages
        trimmed = self.inbox.trim(has, received_before=before, max_bytes=int(NEARLY_FULL * limits.max_inbox_bytes))
        if trimmed:
            logger.info("inbox trimmed num_messages=%d", trimmed)

    def report(self, until: datetime) -> DrainReport:
        """Return the counts, and up to when all acknowledged messages are in the lake; messages that came during the drain count."""
        version, end = self.commits.newest_version(self.inbox.source)
        last = [one for one in self.inbox.read(end - 1, max_messages=1, max_bytes=1) if one.seq == end]  # none where it was trimmed
        until = max([until, *(min(one.message.received_at, self.commits.clock.now()) for one in last)])
        return replace(_report(self.counts, dict(self.reasons.most_common()), self.through, until), readings_version=version)

    def _stored_through(self) -> int:
        return self.commits.stored_through(self.inbox.source)

    def _heard_of(self) -> int:
        """Return the number of the last message that the catalog's watermarks include."""
        return self.commits.catalog.position(self.inbox.source) or 0

    def _read(self, after: int) -> list[Stored]:
        return self.inbox.read(after, max_messages=RANGE_MESSAGES, max_bytes=RANGE_BYTES)

    def _births(self, stored: list[Stored]) -> list[Message]:
        return self.inbox.births(stored[0].seq - 1)

    def _resume(self) -> Intake:
        """Bring the catalog up to the lake, and return what it knows.

        A drain that died after its commit did not update the catalog's watermarks. Lateness in the next range would then depend on the
        crash, so the messages in between are judged again first. Where the catalog is ahead, because the lake lost its newest commits,
        watermarks are read from the lake: the lost messages are then as late as they were the first time.
        """
        at = self._heard_of()
        if at > self.through:
            logger.warning("the lake lost its tail: messages %d to %d are stored again", self.through + 1, at)
            return replace(self.commits.new_intake(as_stored=True), counts=self.counts, reasons=self.reasons)
        while at < self.through and (missed := [one for one in self._read(at) if one.seq <= self.through]):
            self.commits.catch_up(missed, self.commits.new_intake(), self._births(missed))
            at = missed[-1].seq
        return replace(self.commits.new_intake(), counts=self.counts, reasons=self.reasons)


def _report(counts: Counter[str], reasons: Mapping[str, int], through: int, until: datetime) -> DrainReport:
    names = ("messages", "read", "accepted", "duplicate", "late", "quarantined")
    return DrainReport(**{name: counts[name] for name in names}, reasons=reasons, through=through, until=until)
