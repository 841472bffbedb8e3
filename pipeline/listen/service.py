"""A listener that runs until it is told to end: a source takes messages in, and a thread brings the lake up to the inbox.

On SIGTERM or Ctrl-C it takes no more, stores and acknowledges what came, drains once and returns. Called by the verbs `tidecast listen …`.
"""

import logging
import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Protocol

from pipeline.clock import Clock
from pipeline.errors import StoreError
from pipeline.listen.drain import FAULTS, drain
from pipeline.listen.inbox import FILE_NAME, Inbox
from pipeline.settings import Settings
from pipeline.stopping import stopped_by_signals

logger = logging.getLogger(__name__)

STATUS_S = 10.0


class Source(Protocol):
    """What takes messages in. One that cannot go on sets the event `over` it was made with, and raises why in `stop`."""

    def start(self) -> None:
        """Begin to take messages, on threads of its own."""

    def stop(self) -> None:
        """Take no more, store and acknowledge what came; raise why it ended, if it did so by itself."""

    def counts(self) -> Mapping[str, int]:
        """Return what it has counted since it began, by name."""

    def is_connected(self) -> bool:
        """Whether messages can come in now."""


@dataclass(frozen=True)
class ListenReport:
    """What a listener did.

    Attributes:
        counts: what its source counted.
        drained: what became of the messages, in all drains of this process; another one may have drained more of them.
        undrained: messages of the inbox that are not in the lake; None without an inbox, or if no drain succeeded.
    """

    counts: Mapping[str, int]
    drained: Mapping[str, int]
    undrained: int | None

    def to_dict(self) -> dict[str, object]:
        """Return the report as one JSON object."""
        return asdict(self)


class Drainer:
    """Drains again and again, in a thread, and counts what became of the messages."""

    def __init__(self, settings: Settings, clock: Clock, over: threading.Event) -> None:
        self.totals: Counter[str] = Counter(messages=0, accepted=0, duplicate=0, late=0, quarantined=0)
        self._settings, self._clock, self._over = settings, clock, over
        self._through: int | None = None  # the number up to which the lake has the inbox, as the last drain found it
        self._thread = threading.Thread(target=self._run, name="drain", daemon=True)

    def start(self) -> None:
        """Start the thread, which ends with the event `over`."""
        self._thread.start()

    def finish(self) -> None:
        """Wait for the drain that is on its way, then drain what came after it."""
        self._thread.join()
        self._drain()

    def undrained(self) -> int | None:
        """Return how many messages of the inbox the lake does not have; None where there is no inbox, or no drain has looked yet."""
        if self._through is None or not (self._settings.state_dir / FILE_NAME).exists():
            return None
        try:
            with closing(Inbox(self._settings.state_dir)) as inbox:
                return inbox.last_seq() - self._through
        except StoreError:  # the next drain says what is wrong with it
            return None

    def _run(self) -> None:
        while not self._over.wait(self._settings.listen.drain_interval.total_seconds()):
            self._drain()

    def _drain(self) -> None:
        try:
            report = drain(self._settings, self._clock)
        except FAULTS:  # the service's edge; the inbox keeps what was not drained
            logger.exception("drain failed retry_s=%.0f", self._settings.listen.drain_interval.total_seconds())
            return
        self._through = report.through
        self.totals.update({name: getattr(report, name) for name in self.totals})


def run_listener(settings: Settings, clock: Clock, source: Source, *, over: threading.Event) -> ListenReport:
    """Run a source, and drain every `listen.drain_interval`, until SIGTERM, SIGINT or the event `over`.

    Args:
        settings: the lake, the state folder and the section `listen`.
        clock: what the drains are told is now.
        source: not started yet.
        over: ends the listener; set here when a signal comes, and by a source that cannot go on.

    Returns:
        What it did. A drain that fails is logged and tried again, at the latest by the next listener: what it left is in the inbox.

    Raises:
        TidecastError: why the source could not start or go on.
    """
    drainer = Drainer(settings, clock, over)
    with stopped_by_signals(over):
        source.start()
        drainer.start()
        try:
            while not over.wait(STATUS_S):
                _say("listening" if source.is_connected() else "not connected", source, drainer)
            source.stop()
        finally:
            over.set()
            drainer.finish()
    _say("ended", source, drainer)
    return ListenReport(dict(source.counts()), dict(drainer.totals), drainer.undrained())


def _say(state: str, source: Source, drainer: Drainer) -> None:
    undrained = drainer.undrained()
    facts = {**source.counts(), **({} if undrained is None else {"undrained": undrained})}
    logger.info("%s %s", state, " ".join(f"{name}={count}" for name, count in facts.items()))
