"""Group commit: each sender is told once, in time, and truly, whatever happens to the disk or to the other senders."""

import queue
import shutil
import threading
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.clock import SystemClock
from pipeline.errors import StoreError
from pipeline.listen.group_commit import GroupCommit
from pipeline.listen.inbox import Inbox
from pipeline.payloads.message import Message

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
SOON_S = 20.0
FULL = 1024**2


@pytest.fixture
def full_inbox(tmp_path):
    """Return an open inbox of more than `FULL` bytes."""
    inbox = Inbox(tmp_path)
    inbox.put([Message("mqtt", "site", b"0" * FULL, NOON)])
    yield inbox
    inbox.close()


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
    senders, group = Senders(2_000), GroupCommit(tmp_path, SystemClock(), threading.Event())
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
    senders, group = Senders(101), GroupCommit(tmp_path, SystemClock(), threading.Event())
    for number in range(100):
        group.submit(message(number), senders.teller(number))
    group.close()
    group.submit(message(100), senders.teller(100))
    group.close()
    assert [failure for number in range(100) for failure in senders.told[number]] == [None] * 100
    assert "has stopped" in str(senders.told[100][0])


def test_a_sender_that_fails_keeps_nobody_else_from_being_told(tmp_path, caplog) -> None:
    """Shown to fail by calling `tell` without the guard: the thread ended, and nobody was ever told again."""
    senders, group = Senders(2), GroupCommit(tmp_path, SystemClock(), threading.Event())

    def gone(failure):
        raise RuntimeError("the connection has gone")

    group.submit(message(0), senders.teller(0))
    group.submit(message(1), gone)
    group.submit(message(2), senders.teller(2))
    group.close()
    assert senders.told == {0: [None], 2: [None]}
    assert "could not be told" in caplog.text


def test_a_message_that_is_not_stored_is_told_why(tmp_path, caplog) -> None:
    senders, group = Senders(1), GroupCommit(tmp_path / "state", SystemClock(), threading.Event())
    shutil.rmtree(tmp_path / "state")
    group.submit(message(0), senders.teller(0))
    group.close()
    assert "inbox requires a readable, writable SQLite file" in str(senders.told[0][0])


def test_a_thread_that_dies_lets_nobody_wait_and_ends_the_listener_with_its_fault(tmp_path) -> None:
    """A topic that is no text is a fault of the caller's, which no sender can mend."""
    over, senders = threading.Event(), Senders(2)
    group = GroupCommit(tmp_path, SystemClock(), over)
    group.submit(Message("mqtt", 5, b"", NOON), senders.teller(0))  # type: ignore[arg-type]
    assert over.wait(SOON_S)
    group.submit(message(1), senders.teller(1))
    assert ["has stopped" in str(senders.told[number][0]) for number in (0, 1)] == [True, True]
    with pytest.raises(AttributeError, match="encode"):
        group.close()


def test_a_full_inbox_is_told_at_once_to_a_sender_who_tries_again(tmp_path, full_inbox):
    told: queue.SimpleQueue[StoreError | None] = queue.SimpleQueue()
    commits = GroupCommit(tmp_path, SystemClock(), threading.Event(), max_bytes=FULL)
    commits.submit(message(1), told.put)
    assert "requires less than listen.max_inbox_bytes" in str(told.get(timeout=SOON_S))
    commits.close()
    assert full_inbox.last_seq() == 1


def test_what_is_held_is_stored_when_there_is_room_before_anything_behind_it(tmp_path, full_inbox, caplog):
    told: queue.SimpleQueue[StoreError | None] = queue.SimpleQueue()
    commits = GroupCommit(tmp_path, SystemClock(), threading.Event(), max_bytes=FULL, holds=True)
    for number in range(10):
        commits.submit(message(number), told.put)
    with pytest.raises(queue.Empty):
        told.get(timeout=0.3)
    full_inbox.trim(1, received_before=NOON + timedelta(days=1))
    assert [told.get(timeout=SOON_S) for _ in range(10)] == [None] * 10
    commits.close()
    assert [one.message.payload for one in full_inbox.read(1, max_messages=99, max_bytes=FULL)] == [b"%d" % number for number in range(10)]


def test_what_is_held_when_it_closes_is_told_as_not_stored(tmp_path, full_inbox):
    told: queue.SimpleQueue[StoreError | None] = queue.SimpleQueue()
    commits = GroupCommit(tmp_path, SystemClock(), threading.Event(), max_bytes=FULL, holds=True)
    commits.submit(message(1), told.put)
    commits.close()
    assert isinstance(told.get_nowait(), StoreError)
    assert full_inbox.last_seq() == 1
