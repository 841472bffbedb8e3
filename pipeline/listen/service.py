"""Runs a source until it is told to stop."""

import signal
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Protocol

from pipeline.clock import Clock
from pipeline.settings import Settings


class Source(Protocol):
    """What takes messages in. One that cannot go on sets the event `stop` it was made with, and says why in `stop()`."""

    def start(self) -> None:
        """Begin to take messages, on threads of its own."""

    def stop(self) -> None:
        """Take no more, store and acknowledge what came; raise why it ended, if it did so by itself."""

    def counts(self) -> Mapping[str, int]:
        """Return what it has counted since it began, by name."""


@dataclass(frozen=True)
class ListenReport:
    """What a listener did."""

    counts: Mapping[str, int]
    drained: Mapping[str, int]

    def to_dict(self) -> dict[str, object]:
        """Return the report as one JSON object."""
        return asdict(self)


def run_listener(settings: Settings, clock: Clock, source: Source, *, stop: threading.Event) -> ListenReport:  # noqa: ARG001
    """Run a source until `stop` is set or a SIGTERM comes."""
    noted: list[int] = []
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda given, _: noted.append(given))
    source.start()
    while not stop.wait(0.1) and not noted:
        pass
    source.stop()
    return ListenReport(dict(source.counts()), {})
