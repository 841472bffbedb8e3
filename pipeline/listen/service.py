"""Runs a source until it is told to stop."""

import threading
from typing import Protocol

from pipeline.clock import Clock
from pipeline.settings import Settings


class Source(Protocol):
    """What `run_listener` runs."""

    def start(self) -> None:
        """Begin to take messages."""

    def stop(self) -> None:
        """Take no more, and return when everything taken is stored and acknowledged."""


def run_listener(settings: Settings, clock: Clock, source: Source, *, stop: threading.Event) -> None:  # noqa: ARG001
    """Run a source until `stop` is set or a SIGTERM comes."""
    import signal

    def end(*_: object) -> None:
        stop.set()

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)
    source.start()
    stop.wait()
    source.stop()
