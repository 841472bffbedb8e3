"""The inbox: every message of a live source in one SQLite file, on disk before it is acknowledged, until the lake has it and longer.

Delta calls no fsync on a local disk, and a broker does not send again what was acknowledged: this file is what an acknowledgement
rests on. Messages are numbered in the order of their commits, across all processes that share the file, so "everything up to n" is a
range that never changes. Written by `group_commit.py`, read and trimmed by `drain.py`.
"""

import logging
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pipeline.clock import Clock
from pipeline.failpoints import failpoint
from pipeline.payloads.message import Message
from pipeline.schemas import EPOCH, MICROSECOND
from pipeline.store.state_files import connect, make_in_wal_mode, name_format, reported

logger = logging.getLogger(__name__)

FILE_NAME = "inbox.db"
# births of Sparkplug B, which say what the names in all later messages of a node stand for, and deaths, which end that
BIRTHS = "(topic GLOB 'spBv1.0/*/[ND]BIRTH/*' OR topic GLOB 'spBv1.0/*/[ND]DEATH/*')"
CERTIFICATES = f"CREATE INDEX IF NOT EXISTS certificates ON messages (topic, seq) WHERE {BIRTHS}"
SCHEMA = (
    """
    CREATE TABLE messages (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, connector TEXT NOT NULL, topic TEXT NOT NULL, received_us INTEGER NOT NULL,
        content_type TEXT, idempotency_key TEXT, payload BLOB NOT NULL
    ) STRICT
    """,
    "CREATE UNIQUE INDEX idempotency ON messages (connector, idempotency_key) WHERE idempotency_key IS NOT NULL",
    CERTIFICATES,
    # forgotten: the number of the last message that was trimmed
    "CREATE TABLE identity (one INTEGER PRIMARY KEY CHECK (one = 1), name TEXT NOT NULL, forgotten INTEGER NOT NULL) STRICT",
)
INSERT = """
    INSERT INTO messages (connector, topic, payload, received_us, content_type, idempotency_key) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT DO NOTHING
"""
# a new file, or one whose name a repair could not save: all of it is then drained once more, and found stored
NAME_IT = "INSERT INTO identity SELECT 1, ?, 0 WHERE NOT EXISTS (SELECT 1 FROM identity)"
FIRST_YOUNG = "SELECT seq FROM messages WHERE seq BETWEEN ? AND ? AND received_us >= ? ORDER BY seq LIMIT 1"
NEWEST_BIRTHS = f"SELECT max(seq) FROM messages WHERE {BIRTHS} AND seq <= ? GROUP BY topic"  # noqa: S608 (our own words)
FORGET_OLDEST = "DELETE FROM messages WHERE seq = (SELECT min(seq) FROM messages WHERE seq <= ?)"
TRIM_STEP = 10_000  # messages deleted in one transaction: no writer waits for longer than that takes
COLUMNS = "seq, connector, topic, payload, received_us, content_type, idempotency_key"


@dataclass(frozen=True, slots=True)
class Stored:
    """A message with its number in the inbox."""

    seq: int
    message: Message


def source_of(name: str) -> str:
    """Return the name of an inbox as a source of numbered commits in the lake."""
    return f"inbox/{name}"


class Inbox:
    """An open inbox; one connection, for one thread at a time (several processes and threads each open their own).

    Attributes:
        path: the SQLite file, on a local disk.
    """

    def __init__(self, state_dir: Path) -> None:
        """Open the inbox of a state folder, and make it where there is none.

        Raises:
            StoreError: when the file cannot be made or is no inbox.
        """
        self.path = state_dir / FILE_NAME
        with self._faults(), ExitStack() as if_refused:
            if not self.path.exists():
                make_in_wal_mode(self.path, SCHEMA)
            self._file = _file_of(self.path)
            self._connection = if_refused.enter_context(closing(connect(self.path)))
            name_format(self._connection)
            for statement in ("DROP INDEX IF EXISTS births", CERTIFICATES):  # the one of 0.1.0 has no deaths; no lock where that is done
                self._connection.execute(statement)
            if self._connection.execute("SELECT name FROM identity").fetchone() is None:  # else nothing is written: no lock, no room needed
                self._connection.execute(NAME_IT, (uuid.uuid4().hex,))
            if_refused.pop_all()

    @property
    def name(self) -> str:
        """Its identity, created with the file: in another file in the same place, the same numbers mean other messages."""
        with self._faults():
            return str(self._connection.execute("SELECT name FROM identity").fetchone()[0])

    @property
    def source(self) -> str:
        """Its name as a source of numbered commits in the lake."""
        return source_of(self.name)

    def put(self, messages: Sequence[Message], clock: Clock | None = None) -> int:
        """Store messages in one transaction that is on disk when this returns; those whose key is known are left out.

        Args:
            messages: in the order in which they came.
            clock: stamps them while the write lock is held, on which `settled_instant` relies; None keeps their own `received_at`.

        Returns:
            How many were new.

        Raises:
            StoreError: when they cannot be stored; then none is.
        """
        texts = [[_storable(text) for text in (m.connector, m.topic, m.content_type, m.idempotency_key)] for m in messages]
        with self._transaction():
            now = None if clock is None else clock.now()
            rows = [
                (connector, topic, m.payload, ((now or m.received_at) - EPOCH) // MICROSECOND, content_type, key)
                for m, (connector, topic, content_type, key) in zip(messages, texts, strict=True)
            ]
            stored = self._connection.executemany(INSERT, rows).rowcount
            if _file_of(self.path) != self._file:  # SQLite would go on writing into a file that nobody will ever find again
                raise OSError("the file was removed or replaced under its writer, which must be started again")
            failpoint("inbox.before_commit")
        failpoint("inbox.after_commit")
        return stored

    def settled_instant(self, clock: Clock) -> datetime:
        """Return an instant T: every message stamped before T is committed already, and no later one will get such a stamp."""
        with self._transaction():  # a writer stamps and commits under this lock
            return clock.now()

    def read(self, after: int, *, max_messages: int, max_bytes: int) -> list[Stored]:
        """Return the messages that follow number `after`, in order, up to both limits but at least one, if there is any."""
        found: list[Stored] = []
        size = 0
        with self._faults():
            rows = self._connection.execute(f"SELECT {COLUMNS} FROM messages WHERE seq > ? ORDER BY seq LIMIT ?", (after, max_messages))  # noqa: S608 (our own names)
            for stored in map(_stored, rows):
                size += len(stored.message.payload)
                if found and size > max_bytes:
                    break
                found.append(stored)
            rows.close()
        return found

    def find(self, connector: str, idempotency_key: str) -> Stored | None:
        """Return the message that came with a key; None where none has, or it was trimmed since."""
        query = f"SELECT {COLUMNS} FROM messages WHERE connector = ? AND idempotency_key = ?"  # noqa: S608 (our own names)
        with self._faults():
            row = self._connection.execute(query, (connector, idempotency_key)).fetchone()
        return None if row is None else _stored(row)

    def last_seq(self) -> int:
        """Return the greatest number ever given; 0 for an inbox that has never held a message."""
        with self._faults():
            row = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'messages'").fetchone()
        return 0 if row is None else int(row[0])

    def num_bytes(self) -> int:
        """Return how much of the disk the messages take, including those that the lake already has."""
        with self._faults():
            pages, free, size = (
                int(self._connection.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_count", "freelist_count", "page_size")
            )
        return (pages - free) * size

    def is_full(self, max_bytes: int) -> bool:
        """Return whether the messages take `max_bytes` or more: then nothing more must be acknowledged until the lake has caught up."""
        return self.num_bytes() >= max_bytes

    def trim(self, up_to: int, *, received_before: datetime, max_bytes: int | None = None) -> int:
        """Forget the oldest messages, up to number `up_to`, which the lake must have; return how many.

        They are kept for a while, because a tail of the lake that a power failure tore off is made again from them.

        Args:
            up_to: the greatest number that may be forgotten.
            received_before: the first message received at or after this instant stays, and everything behind it.
            max_bytes: while the inbox is larger than this, younger ones go too, and in the end births: a publisher could invent nodes
                without end, whose births would fill it for ever.
        """
        trimmed, end = 0, self.forgotten()
        while True:
            before = end
            end, deleted = self._trim_step(before, up_to, received_before, max_bytes)
            trimmed += deleted
            if end == before:
                return trimmed + (0 if max_bytes is None else self._trim_births(end, max_bytes))

    def births(self, up_to: int) -> list[Message]:
        """Return the newest message of each topic of births and deaths (Sparkplug B), up to a number, in order; trimming leaves it."""
        query = f"SELECT {COLUMNS} FROM messages WHERE seq IN ({NEWEST_BIRTHS}) ORDER BY seq"  # noqa: S608 (our own names)
        with self._faults():
            return [_stored(row).message for row in self._connection.execute(query, (up_to,))]

    def forgotten(self) -> int:
        """Return the number of the last message that was trimmed; 0 before the first time."""
        with self._faults():
            return int(self._connection.execute("SELECT forgotten FROM identity").fetchone()[0])

    def renew(self) -> None:
        """Take another name, so that the lake takes all of its messages again, from the first."""
        with self._transaction():
            self._connection.execute("UPDATE identity SET name = ?, forgotten = 0", (uuid.uuid4().hex,))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _trim_step(self, forgotten: int, up_to: int, received_before: datetime, max_bytes: int | None) -> tuple[int, int]:
        """Trim one step; return the number of the last message that is trimmed now, and how many were deleted."""
        end = min(up_to, forgotten + TRIM_STEP)
        before_us = (received_before - EPOCH) // MICROSECOND
        is_large = max_bytes is not None and self.is_full(max_bytes)
        with self._transaction():
            if not is_large:
                young = self._connection.execute(FIRST_YOUNG, (forgotten + 1, end, before_us)).fetchone()
                end = end if young is None else young[0] - 1
            if end <= forgotten:
                return forgotten, 0
            self._connection.execute("UPDATE identity SET forgotten = ?", (end,))
            delete = f"DELETE FROM messages WHERE seq BETWEEN ? AND ? AND seq NOT IN ({NEWEST_BIRTHS})"  # noqa: S608 (our own names)
            return end, self._connection.execute(delete, (1, end, up_to)).rowcount

    def _trim_births(self, forgotten: int, max_bytes: int) -> int:
        """Forget births, all that is left up to `forgotten`, the oldest first, while the inbox is too large; return how many."""
        trimmed = 0
        if self.is_full(max_bytes):
            with self._transaction():
                while self.is_full(max_bytes) and self._connection.execute(FORGET_OLDEST, (forgotten,)).rowcount:
                    trimmed += 1
        if trimmed:
            logger.warning("the inbox is full of births: forgot the oldest num_births=%d; their nodes must be born again", trimmed)
        return trimmed

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._faults():
            self._connection.execute("BEGIN IMMEDIATE")
            with self._connection:
                yield

    def _faults(self) -> AbstractContextManager[None]:
        return reported("The inbox", self.path, "what was not stored was not acknowledged")


def _stored(row: tuple[int, str, str, bytes, int, str | None, str | None]) -> Stored:
    seq, connector, topic, payload, received_us, content_type, key = row
    return Stored(seq, Message(connector, topic, payload, EPOCH + received_us * MICROSECOND, content_type, key))


def _file_of(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _storable(text: str | None) -> str | None:
    r"""Write what UTF-8 cannot hold, lone surrogates, as \udc80: one such topic must not refuse all the messages around it."""
    return text if text is None else text.encode(errors="backslashreplace").decode()
