"""The inbox: every message of a live source in one SQLite file, on disk before it is acknowledged, until the lake has it and longer.

Delta calls no fsync on a local disk, and a broker does not send again what was acknowledged: this file is what an acknowledgement
rests on. Messages are numbered in the order of their commits, across all processes that share the file, so "everything up to n" is a
range that never changes. Written by `group_commit.py`, read and trimmed by `drain.py`.
"""

import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pipeline.errors import StoreError
from pipeline.payloads.message import Message
from pipeline.schemas import EPOCH, MICROSECOND

FILE_NAME = "inbox.db"
BUSY_TIMEOUT_S = 30.0
SCHEMA = (
    """
    CREATE TABLE IF NOT EXISTS messages (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, connector TEXT NOT NULL, topic TEXT NOT NULL, payload BLOB NOT NULL,
        received_us INTEGER NOT NULL, content_type TEXT, idempotency_key TEXT
    ) STRICT
    """,
    """
    CREATE UNIQUE INDEX IF NOT EXISTS idempotency ON messages (connector, idempotency_key) WHERE idempotency_key IS NOT NULL
    """,
    "CREATE TABLE IF NOT EXISTS identity (one INTEGER PRIMARY KEY CHECK (one = 1), name TEXT NOT NULL) STRICT",
)
INSERT = """
    INSERT INTO messages (connector, topic, payload, received_us, content_type, idempotency_key) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT DO NOTHING
"""
COLUMNS = "seq, connector, topic, payload, received_us, content_type, idempotency_key"


@dataclass(frozen=True, slots=True)
class Stored:
    """A message with its number in the inbox."""

    seq: int
    message: Message


class Inbox:
    """An open inbox; one connection, for one thread at a time (several processes and threads each open their own).

    Attributes:
        path: the SQLite file, on a local disk.
        name: its identity, made with the file: the numbers of another file, put in its place, mean other messages.
    """

    def __init__(self, state_dir: Path) -> None:
        """Open the inbox of a state folder, and make it where there is none.

        Raises:
            StoreError: when the file cannot be made or is no inbox.
        """
        self.path = state_dir / FILE_NAME
        with self._faults():
            state_dir.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")  # the commit is an fsync: acknowledgements rest on it
            with self._transaction():
                for statement in SCHEMA:
                    self._connection.execute(statement)
                self._connection.execute("INSERT INTO identity VALUES (1, ?) ON CONFLICT DO NOTHING", (uuid.uuid4().hex,))
            (self.name,) = self._connection.execute("SELECT name FROM identity").fetchone()

    def put(self, messages: Sequence[Message]) -> int:
        """Store messages in one transaction that is on disk when this returns; those whose key is known are left out.

        Returns:
            How many were new.

        Raises:
            StoreError: when they cannot be stored; then none is.
        """
        rows = [
            (m.connector, m.topic, m.payload, (m.received_at - EPOCH) // MICROSECOND, m.content_type, m.idempotency_key) for m in messages
        ]
        with self._transaction():
            return self._connection.executemany(INSERT, rows).rowcount

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
        """Return how much of the disk the messages take, those that the lake has already included."""
        with self._faults():
            pages, free, size = (
                int(self._connection.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_count", "freelist_count", "page_size")
            )
        return (pages - free) * size

    def trim(self, up_to: int, *, received_before: datetime) -> int:
        """Forget messages that the lake has: up to number `up_to`, and received before an instant; return how many.

        They are kept for a while, because a tail of the lake that a power failure tore off is made again from them.
        """
        before_us = (received_before - EPOCH) // MICROSECOND
        with self._transaction():
            return self._connection.execute("DELETE FROM messages WHERE seq <= ? AND received_us < ?", (up_to, before_us)).rowcount

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._faults():
            self._connection.execute("BEGIN IMMEDIATE")
            with self._connection:
                yield

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"The inbox requires a readable, writable SQLite file; got {self.path}: {error}. "
                "Check the folder, its permissions and the space left; what was not stored was not acknowledged."
            ) from error


def _stored(row: tuple[int, str, str, bytes, int, str | None, str | None]) -> Stored:
    seq, connector, topic, payload, received_us, content_type, key = row
    return Stored(seq, Message(connector, topic, payload, EPOCH + received_us * MICROSECOND, content_type, key))
