"""A listener's life: a failing drain never ends it, whatever ends it drains once more, and what ended its source is said."""

import logging
import threading
from dataclasses import replace

import pytest

from pipeline.clock import SystemClock
from pipeline.errors import SettingsError, StoreError
from pipeline.listen import service
from pipeline.listen.drain import DrainReport
from pipeline.listen.inbox import Inbox
from pipeline.listen.service import run_listener
from pipeline.payloads.message import Message
from pipeline.schemas import EPOCH
from pipeline.settings import ListenSettings, Settings
from tests.waiting import until

NOTHING = DrainReport(messages=0, read=0, accepted=0, duplicate=0, late=0, quarantined=0, reasons={}, through=0, until=EPOCH)
QUICK = Settings(lake="unused", listen=ListenSettings(drain_interval=1.0))


class Ticker:
    """A source that counts how often it was started and stopped."""

    def __init__(self, failure: SettingsError | None = None) -> None:
        self.began = self.ended = 0
        self._failure = failure

    def start(self) -> None:
        """Count it."""
        self.began += 1

    def stop(self) -> None:
        """Count it, and say why it ended."""
        self.ended += 1
        if self._failure is not None:
            raise self._failure

    def counts(self) -> dict[str, int]:
        """Return both counts."""
        return {"began": self.began, "ended": self.ended}

    def is_connected(self) -> bool:
        """Say that nobody has let it in yet."""
        return False


def drains(monkeypatch, *outcomes: DrainReport | Exception) -> list[DrainReport | Exception]:
    """Let drains come out one after another; return the list of those to come, whose last comes again and again."""
    to_come = list(outcomes)

    def drain(settings, clock):
        outcome = to_come.pop(0) if len(to_come) > 1 else to_come[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(service, "drain", drain)
    return to_come


def test_a_drain_that_fails_is_tried_again_and_does_not_end_the_listener(monkeypatch, caplog):
    to_come = drains(monkeypatch, StoreError("the lake is away"), replace(NOTHING, messages=3, accepted=2, quarantined=1), NOTHING)
    over = threading.Event()
    ending = threading.Thread(target=lambda: (until(lambda: len(to_come) == 1), over.set()))
    ending.start()
    report = run_listener(QUICK, SystemClock(), Ticker(), over=over)
    ending.join()
    assert report.to_dict()["drained"] == {"messages": 3, "accepted": 2, "duplicate": 0, "late": 0, "quarantined": 1}
    assert "the lake is away" in caplog.text


def test_the_last_drain_comes_after_the_source_has_stored_everything(monkeypatch):
    source, seen = Ticker(), []
    monkeypatch.setattr(service, "drain", lambda settings, clock: seen.append(source.ended) or NOTHING)
    over = threading.Event()
    over.set()
    run_listener(QUICK, SystemClock(), source, over=over)
    assert seen[-1] == 1


def test_what_ended_the_source_is_raised_after_a_last_drain(monkeypatch):
    to_come = drains(monkeypatch, replace(NOTHING, messages=1), NOTHING)
    over = threading.Event()
    over.set()  # as a source does that cannot go on
    with pytest.raises(SettingsError, match="taken over"):
        run_listener(QUICK, SystemClock(), Ticker(SettingsError("taken over")), over=over)
    assert len(to_come) == 1


def test_a_source_that_is_not_connected_is_not_said_to_listen(monkeypatch, caplog):
    monkeypatch.setattr(service, "STATUS_S", 0.01)
    caplog.set_level(logging.INFO)
    drains(monkeypatch, NOTHING)
    over = threading.Event()
    ending = threading.Thread(target=lambda: (until(lambda: "not connected began=1" in caplog.text), over.set()))
    ending.start()
    run_listener(QUICK, SystemClock(), Ticker(), over=over)
    ending.join()
    assert "listening" not in caplog.text


def test_what_the_lake_does_not_have_is_counted_whoever_drains(monkeypatch, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    settings = Settings(lake=str(tmp_path / "lake"))
    inbox = Inbox(settings.state_dir)
    inbox.put([Message("mqtt", "a", b"%d" % number, EPOCH) for number in range(3)])
    inbox.close()
    drains(monkeypatch, replace(NOTHING, through=2))  # another process drained both
    over = threading.Event()
    over.set()
    report = run_listener(settings, SystemClock(), Ticker(), over=over)
    assert (report.drained["messages"], report.undrained) == (0, 1)
    assert "ended began=1 ended=1 undrained=1" in caplog.text
