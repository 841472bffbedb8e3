"""The inbox: what `put` returned for is there after any death of the process, in numbers that never change their meaning."""

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.clock import ReplayClock
from pipeline.errors import StoreError
from pipeline.failpoints import KILLED, VARIABLE
from pipeline.listen.inbox import FILE_NAME, NEWEST_BIRTHS, Inbox
from pipeline.listen.landing_ledger import FILE_NAME as LEDGER
from pipeline.listen.landing_ledger import LandingLedger
from pipeline.payloads.message import Message
from pipeline.schemas import EPOCH
from pipeline.store import state_files
from tests.rivals import race

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
CONNECT = sqlite3.connect
FAR = datetime(9999, 1, 1, tzinfo=UTC)

# Puts one message after another and says so of each; the last one is cut off by a kill.
WRITER = """
import itertools, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from pipeline.listen.inbox import Inbox
from pipeline.payloads.message import Message

inbox = Inbox(Path(sys.argv[1]))
for number in itertools.count():
    inbox.put([Message("mqtt", "t", str(number).encode(), datetime.now(UTC))])
    print(number, flush=True)
"""


def message(payload: bytes | str = b"{}", key: str | None = None, topic: str = "site/a", received_at: datetime = NOON) -> Message:
    return Message("mqtt", topic, payload.encode() if isinstance(payload, str) else payload, received_at, "application/json", key)


def everything(inbox: Inbox) -> list[bytes]:
    return [stored.message.payload for stored in inbox.read(0, max_messages=10**6, max_bytes=10**9)]


@pytest.fixture
def inbox(tmp_path):
    opened = Inbox(tmp_path / "lake" / "state")
    yield opened
    opened.close()


def test_messages_come_back_whole_and_in_order(inbox) -> None:
    put = [message(b"\x00\xff\n"), Message("http", "/readings", b"", NOON + timedelta(microseconds=1)), message("é", "key", "a/ü")]
    assert inbox.put(put) == 3
    stored = inbox.read(0, max_messages=10, max_bytes=100)
    assert ([one.message for one in stored], [one.seq for one in stored]) == (put, [1, 2, 3])


def test_an_acknowledged_message_survives_kill_9(tmp_path) -> None:
    """Shown to fail by leaving out the commit; that it also survives a power failure rests on `synchronous = FULL`."""
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as writer:
        acknowledged = [writer.stdout.readline() for _ in range(20)]
        writer.send_signal(signal.SIGKILL)
        acknowledged += writer.stdout.read().splitlines()
    there = everything(Inbox(tmp_path))
    assert there[: len(acknowledged)] == [line.strip().encode() for line in acknowledged]
    assert len(there) <= len(acknowledged) + 1


@pytest.mark.parametrize(("point", "num_stored"), [("inbox.before_commit", 0), ("inbox.after_commit", 1)])
def test_a_death_at_the_commit_leaves_all_or_nothing(tmp_path, point, num_stored) -> None:
    died = subprocess.run([sys.executable, "-c", WRITER, str(tmp_path)], env={**os.environ, VARIABLE: f"{point}:1"}, check=False)
    assert (died.returncode, len(everything(Inbox(tmp_path)))) == (KILLED, num_stored)


def test_every_commit_is_an_fsync(inbox) -> None:
    assert inbox._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert inbox._connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_processes_may_make_and_fill_one_inbox_at_once(tmp_path) -> None:
    """Shown to fail by changing the journal mode in place; each process sees its own messages in its own order."""
    names = race(
        "import os, sys; from datetime import *; from pathlib import Path; from pipeline.listen.inbox import Inbox; "
        "from pipeline.payloads.message import Message; "
        "me = [Message('mqtt', str(os.getpid()), b'%d' % number, datetime.now(UTC)) for number in range(20)]",
        "inbox = Inbox(Path(sys.argv[1])); [inbox.put([one]) for one in me]; print(inbox.name)",
        str(tmp_path / "state"),
    )
    stored = Inbox(tmp_path / "state").read(0, max_messages=100, max_bytes=10**6)
    assert len(set(names)) == 1
    assert [one.seq for one in stored] == list(range(1, 61))
    by_writer = {topic: [s.message.payload for s in stored if s.message.topic == topic] for topic in {s.message.topic for s in stored}}
    assert list(by_writer.values()) == [[b"%d" % number for number in range(20)]] * 3


def test_a_key_is_taken_once_for_each_connector(inbox) -> None:
    assert inbox.put([message("1", "k"), message("2", "k"), message("3"), message("4")]) == 3
    assert inbox.put([message("5", "k"), Message("http", "/", b"6", NOON, None, "k")]) == 1
    assert everything(inbox) == [b"1", b"3", b"4", b"6"]


@given(st.lists(st.integers(0, 5), max_size=12), st.integers(0, 12), st.integers(1, 5), st.integers(0, 8))
@settings(max_examples=30, deadline=None)
def test_ranges_follow_each_other_within_their_limits(tmp_path_factory, sizes, after, max_messages, max_bytes) -> None:
    """Shown to fail by `>=` for `>` in `read`, and by a first message that is too long and never read."""
    inbox = Inbox(tmp_path_factory.mktemp("inbox"))
    inbox.put([message(b"x" * size) for size in sizes])
    read = inbox.read(after, max_messages=max_messages, max_bytes=max_bytes)
    inbox.close()
    assert [one.seq for one in read] == list(range(after + 1, after + 1 + len(read)))
    assert len(read) <= max_messages
    taken = sizes[after : after + len(read)]
    assert sum(taken) <= max_bytes or len(taken) == 1
    could_grow = len(read) < max_messages and sum(sizes[after : after + len(read) + 1]) <= max_bytes
    assert after + len(read) >= len(sizes) or (taken and not could_grow)


def test_a_full_disk_refuses_a_message_and_takes_the_next_when_there_is_room(inbox) -> None:
    """A limit on the size of files stands for the full disk."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limit[1]))
    try:
        with pytest.raises(StoreError, match="what was not stored was not acknowledged"):
            inbox.put([message(b"x" * 300_000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert inbox.put([message("next")]) == 1
    assert everything(inbox) == [b"next"]


@pytest.mark.parametrize("replace", [Path.unlink, lambda path: shutil.copy(path, f"{path}-copy") and Path(f"{path}-copy").replace(path)])
def test_a_message_is_never_acknowledged_into_a_file_that_is_gone(inbox, replace) -> None:
    """Shown to fail by leaving out the look at the file: the messages went into an inode without a name."""
    inbox.put([message()])
    replace(inbox.path)
    with pytest.raises(StoreError, match="inbox requires"):
        inbox.put([message()])


def test_a_file_that_is_no_inbox_is_refused(tmp_path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"something else" * 100)
    with pytest.raises(StoreError, match=r"inbox requires a readable, writable SQLite file; got .*not a database"):
        Inbox(tmp_path)


def test_a_topic_that_utf8_cannot_hold_does_not_refuse_the_others(inbox) -> None:
    assert inbox.put([message(topic="a"), message(topic="b\udc80")]) == 2
    assert [one.message.topic for one in inbox.read(0, max_messages=9, max_bytes=99)] == ["a", "b\\udc80"]


def test_trimming_forgets_what_the_lake_has_and_is_old(inbox, monkeypatch) -> None:
    monkeypatch.setattr("pipeline.listen.inbox.TRIM_STEP", 2)
    inbox.put([message(str(number), received_at=NOON + number * HOUR) for number in range(8)])
    assert inbox.trim(7, received_before=NOON + 5 * HOUR) == 5
    assert inbox.trim(6, received_before=FAR) == 1
    assert (everything(inbox), inbox.forgotten()) == ([b"6", b"7"], 6)


def test_what_comes_behind_a_young_message_stays_with_it(inbox) -> None:
    """A clock that was wrong for a while must leave no hole in what is kept."""
    inbox.put([message(received_at=instant) for instant in (NOON, FAR, NOON)])
    assert (inbox.trim(3, received_before=NOON + HOUR), inbox.forgotten()) == (1, 1)


def test_a_large_inbox_forgets_young_messages_too_but_none_that_the_lake_lacks(inbox, monkeypatch) -> None:
    monkeypatch.setattr("pipeline.listen.inbox.TRIM_STEP", 1)
    inbox.put([message(b"x" * 50_000) for _ in range(20)])
    assert inbox.is_full(1_000_000)
    assert 10 < inbox.trim(19, received_before=NOON, max_bytes=300_000) < 16
    assert not inbox.is_full(300_001)
    inbox.trim(19, received_before=NOON, max_bytes=1)
    assert [one.seq for one in inbox.read(0, max_messages=99, max_bytes=10**9)] == [20]


def test_the_newest_birth_and_death_of_each_node_outlive_their_time(inbox, monkeypatch) -> None:
    """Shown to fail by trimming it: the names in all that the node sends afterwards would mean nothing."""
    monkeypatch.setattr("pipeline.listen.inbox.TRIM_STEP", 2)
    births = ["spBv1.0/g/NBIRTH/n", "spBv1.0/g/DBIRTH/n/d", "spBv1.0/g/NBIRTH/n", "spBv1.0/g/NDEATH/n", "spBv1.0/g/DDEATH/n/d"]
    inbox.put([message(str(number), topic=topic) for number, topic in enumerate([*births, *["spBv1.0/g/NDATA/n"] * 5])])
    assert inbox.trim(9, received_before=FAR) == 5
    assert everything(inbox) == [b"1", b"2", b"3", b"4", b"9"]
    assert [one.payload for one in inbox.births(8)] == [b"1", b"2", b"3", b"4"]
    assert [one.payload for one in inbox.births(2)] == [b"1"]


def test_births_are_found_without_reading_all_messages(inbox) -> None:
    """Shown to fail by an index whose condition the query does not repeat word for word."""
    plan = inbox._connection.execute(f"EXPLAIN QUERY PLAN {NEWEST_BIRTHS}", (1,)).fetchall()
    assert "INDEX certificates" in str(plan)


def test_the_index_of_an_inbox_of_0_1_0_is_made_anew(inbox) -> None:
    with closing(CONNECT(inbox.path)) as connection:
        connection.execute("DROP INDEX certificates")
        connection.execute("CREATE INDEX births ON messages (topic, seq) WHERE topic GLOB 'spBv1.0/*/[ND]BIRTH/*'")
    with closing(Inbox(inbox.path.parent)), closing(CONNECT(inbox.path)) as connection:
        plan = connection.execute(f"EXPLAIN QUERY PLAN {NEWEST_BIRTHS}", (1,)).fetchall()
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    assert "certificates" in plan[0][-1]
    assert "births" not in names


def test_numbers_go_on_where_they_were_after_everything_is_forgotten(inbox) -> None:
    """Shown to fail by a plain integer key: the lake would take the next messages for old ones."""
    inbox.put([message(), message()])
    inbox.trim(2, received_before=FAR)
    inbox.put([message()])
    assert (inbox.last_seq(), [one.seq for one in inbox.read(0, max_messages=9, max_bytes=99)]) == (3, [3])


def test_births_of_nodes_without_end_do_not_fill_it_for_ever(inbox) -> None:
    """Shown to fail by keeping all of them: no message was ever acknowledged again."""
    births = [Message("mqtt", f"spBv1.0/g/NBIRTH/n{number}", bytes(10_000), EPOCH) for number in range(50)]
    inbox.put(births)
    assert inbox.trim(50, received_before=EPOCH + timedelta(days=1), max_bytes=200_000) > 30
    assert not inbox.is_full(200_000)
    assert inbox.births(50)[-1].topic == "spBv1.0/g/NBIRTH/n49"


def test_an_inbox_whose_name_a_repair_could_not_save_takes_another(inbox) -> None:
    """Shown to fail by expecting a name: no listener ever opened the mended file."""
    name = inbox.name
    with sqlite3.connect(inbox.path) as connection:
        connection.execute("DELETE FROM identity")
    connection.close()
    again = Inbox(inbox.path.parent)
    assert (again.name == name, again.forgotten()) == (False, 0)
    assert Inbox(inbox.path.parent).name == again.name


def test_an_inbox_is_opened_and_read_while_another_process_writes(inbox, monkeypatch) -> None:
    """Shown to fail by writing at each opening: whoever only counts messages waited behind every commit, and on a full disk in vain."""
    monkeypatch.setattr(state_files, "BUSY_TIMEOUT_S", 0.0)
    inbox.put([message("1")])
    inbox._connection.execute("BEGIN IMMEDIATE")
    reader = Inbox(inbox.path.parent)
    assert (reader.name, reader.last_seq()) == (inbox.name, 1)
    reader.close()
    inbox._connection.execute("ROLLBACK")


def test_a_file_that_is_refused_is_not_kept_open(tmp_path, monkeypatch) -> None:
    opened: list[sqlite3.Connection] = []
    monkeypatch.setattr(sqlite3, "connect", lambda *given, **more: opened.append(CONNECT(*given, **more)) or opened[-1])
    with closing(CONNECT(tmp_path / FILE_NAME)) as other, closing(CONNECT(tmp_path / LEDGER)) as ledger:
        other.execute("CREATE TABLE identity (other)")
        ledger.execute("CREATE TABLE files (other)")
    for opens in (Inbox, LandingLedger):
        with pytest.raises(StoreError):
            opens(tmp_path)
    assert len(opened) == 2
    for connection in opened:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")


def test_an_inbox_keeps_its_name_until_it_is_renewed(inbox) -> None:
    name = inbox.name
    assert Inbox(inbox.path.parent).name == name
    inbox.renew()
    assert Inbox(inbox.path.parent).name == inbox.name != name


class HeldClock:
    """A clock that says NOON when it is let."""

    def __init__(self) -> None:
        self.asked, self.let = threading.Event(), threading.Event()

    def now(self) -> datetime:
        """Return NOON, late."""
        self.asked.set()
        self.let.wait(20)
        return NOON


def test_what_was_stamped_before_an_inbox_is_settled_can_be_read(inbox, tmp_path) -> None:
    """Shown to fail by stamping before the transaction."""
    held, settled = HeldClock(), []
    other = Inbox(inbox.path.parent)
    writer = threading.Thread(target=lambda: other.put([message(b"held")], held))
    reader = threading.Thread(target=lambda: settled.append((inbox.settled_instant(ReplayClock(NOON)), everything(inbox))))
    writer.start()
    held.asked.wait(20)
    reader.start()
    reader.join(0.2)
    assert settled == []
    held.let.set()
    for thread in (writer, reader):
        thread.join(20)
    assert settled == [(NOON, [b"held"])]
    other.close()


def test_a_message_is_received_when_it_is_stored(inbox) -> None:
    inbox.put([message(b"1", received_at=NOON - timedelta(hours=1))], ReplayClock(NOON))
    assert [one.message.received_at for one in inbox.read(0, max_messages=9, max_bytes=99)] == [NOON]
