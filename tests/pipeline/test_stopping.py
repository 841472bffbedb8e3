"""Signals end a service through an event, without a handler that could wait for a lock of the thread it interrupts."""

import os
import signal
import threading

import pytest

from pipeline.stopping import ENDING, stopped_by_signals
from tests.waiting import PATIENCE_S, until


class Noted(threading.Event):
    """An event that notes who sets it."""

    def set(self) -> None:
        """Note the thread, then set."""
        self.by = threading.current_thread()
        super().set()


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_sets_the_event_from_another_thread_than_the_one_it_interrupts(number: signal.Signals) -> None:
    """Shown to fail by a handler that sets the event: it ran in the main thread, perhaps amid a `wait` that had the event's lock."""
    stop = Noted()
    with stopped_by_signals(stop):
        os.kill(os.getpid(), number)
        assert stop.wait(PATIENCE_S)
    assert stop.by is not threading.main_thread()


def test_a_second_signal_is_told_that_storing_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    stop = threading.Event()
    caplog.set_level("INFO")
    with stopped_by_signals(stop):
        signal.raise_signal(signal.SIGINT)
        until(lambda: "ending signal=SIGINT" in caplog.text)
        signal.raise_signal(signal.SIGINT)
        until(lambda: "still storing" in caplog.text)


def test_what_becomes_of_signals_is_as_before_afterwards() -> None:
    before = [signal.getsignal(number) for number in ENDING]
    with stopped_by_signals(threading.Event()):
        assert [signal.getsignal(number) for number in ENDING] != before
    assert [signal.getsignal(number) for number in ENDING] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_another_thread_than_the_main_one_leaves_signals_alone() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def run() -> None:
        with stopped_by_signals(threading.Event()):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]
