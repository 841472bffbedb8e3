"""What cannot be stored: told to those who try again themselves, held for those who wait."""

import queue
from datetime import UTC, datetime

import pytest

from pipeline.errors import StoreError
from pipeline.listen.group_commit import GroupCommit
from pipeline.listen.inbox import Inbox
from pipeline.payloads.message import Message

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
FULL = 1024**2


@pytest.fixture
def inbox(tmp_path):
    """Return an open inbox of `FULL` bytes."""
    opened = Inbox(tmp_path)
    opened.put([message(b"0" * FULL)])
    yield opened
    opened.close()


def message(payload: bytes) -> Message:
    return Message("mqtt", "a", payload, NOON)


def test_messages_are_stored_in_the_order_in_which_they_were_handed_over(tmp_path):
    told: queue.SimpleQueue[StoreError | None] = queue.SimpleQueue()
    commits = GroupCommit(tmp_path)
    for number in range(100):
        commits.submit(message(b"%d" % number), told.put)
    commits.close()
    assert [told.get_nowait() for _ in range(100)] == [None] * 100
    with_numbers = Inbox(tmp_path).read(0, max_messages=200, max_bytes=FULL)
    assert [one.message.payload for one in with_numbers] == [b"%d" % number for number in range(100)]


def test_a_full_inbox_is_told_at_once_to_a_sender_who_tries_again(tmp_path, inbox):
    told: queue.SimpleQueue[StoreError | None] = queue.SimpleQueue()
    commits = GroupCommit(tmp_path, max_bytes=FULL)
    commits.submit(message(b"1"), told.put)
    assert "requires less than listen.max_inbox_bytes" in str(told.get(timeout=60))
    commits.close()
    assert inbox.last_seq() == 1


def test_what_is_held_is_stored_when_there_is_room_before_anything_behind_it(tmp_path, inbox, caplog):
    told: queue.SimpleQueue[StoreError | None] = queue.SimpleQueue()
    commits = GroupCommit(tmp_path, max_bytes=FULL, holds=True)
    for number in range(10):
        commits.submit(message(b"%d" % number), told.put)
    with pytest.raises(queue.Empty):
        told.get(timeout=0.3)
    inbox.trim(1, received_before=datetime(2026, 3, 3, tzinfo=UTC))
    assert [told.get(timeout=60) for _ in range(10)] == [None] * 10
    commits.close()
    assert [one.message.payload for one in inbox.read(1, max_messages=99, max_bytes=FULL)] == [b"%d" % number for number in range(10)]


def test_what_is_held_when_it_closes_is_told_as_not_stored(tmp_path, inbox):
    told: queue.SimpleQueue[StoreError | None] = queue.SimpleQueue()
    commits = GroupCommit(tmp_path, max_bytes=FULL, holds=True)
    commits.submit(message(b"1"), told.put)
    commits.close()
    assert isinstance(told.get_nowait(), StoreError)
    assert inbox.last_seq() == 1
