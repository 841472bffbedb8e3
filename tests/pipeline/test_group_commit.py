"""Group commit: each sender is told once, in time, and truly, whatever happens to the disk or to the other senders."""

import shutil
import threading
from datetime import UTC, datetime

import pytest

from pipeline.listen.group_commit import GroupCommit
from pipeline.listen.inbox import Inbox
from pipeline.payloads.message import Message

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
SOON_S = 20.0


def message(number: int) -> Message:
    return Message("mqtt", "site", str(number).encode(), NOON)


class Senders:
    """Collects what each of many senders was told."""

    def __init__(self, num_expected):
        self.told, self.num_expected, self.done = {}, num_expected, threading.Event()

    def teller(self, number):
        """Return the callback of one sender."""

        def tell(failure):
            self.told.setdefault(number, []).append(failure)
            if len(self.told) == self.num_expected:
                self.done.set()

        return tell


def test_each_sender_is_told_once_that_its_message_is_on_disk(tmp_path) -> None:
    senders, group = Senders(2_000), GroupCommit(tmp_path)
    on_disk = []

    def tell_and_look(failure):
        on_disk.append(Inbox(tmp_path).last_seq())
        senders.teller(0)(failure)

    group.submit(message(0), tell_and_look)
    for number in range(1, 2_000):
        group.submit(message(number), senders.teller(number))
    assert senders.done.wait(SOON_S)
    group.close()
    stored = [int(one.message.payload) for one in Inbox(tmp_path).read(0, max_messages=9_999, max_bytes=10**9)]
    assert (stored, senders.told) == (list(range(2_000)), {number: [None] for number in range(2_000)})
    assert on_disk[0] >= 1


def test_close_stores_what_waits_and_refuses_what_comes_after(tmp_path) -> None:
    senders, group = Senders(101), GroupCommit(tmp_path)
    for number in range(100):
        group.submit(message(number), senders.teller(number))
    group.close()
    group.submit(message(100), senders.teller(100))
    group.close()
    assert [failure for number in range(100) for failure in senders.told[number]] == [None] * 100
    assert "has stopped" in str(senders.told[100][0])


def test_a_sender_that_fails_keeps_nobody_else_from_being_told(tmp_path, caplog) -> None:
    """Shown to fail by calling `tell` without the guard: the thread ended, and nobody was ever told again."""
    senders, group = Senders(2), GroupCommit(tmp_path)

    def gone(failure):
        raise RuntimeError("the connection has gone")

    group.submit(message(0), senders.teller(0))
    group.submit(message(1), gone)
    group.submit(message(2), senders.teller(2))
    group.close()
    assert senders.told == {0: [None], 2: [None]}
    assert "could not be told" in caplog.text


def test_a_message_that_is_not_stored_is_told_why(tmp_path, caplog) -> None:
    senders, group = Senders(1), GroupCommit(tmp_path / "state")
    shutil.rmtree(tmp_path / "state")
    group.submit(message(0), senders.teller(0))
    group.close()
    assert "inbox requires a readable, writable SQLite file" in str(senders.told[0][0])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_waits_for_ever_when_the_thread_dies(tmp_path) -> None:
    """An instant without a zone is a fault of the caller's, which no sender can mend."""
    senders, group = Senders(2), GroupCommit(tmp_path)
    group.submit(Message("mqtt", "t", b"", datetime(2026, 1, 1)), senders.teller(0))  # noqa: DTZ001
    group._thread.join(SOON_S)
    group.submit(message(1), senders.teller(1))
    assert ["has stopped" in str(senders.told[number][0]) for number in (0, 1)] == [True, True]
    group.close()
