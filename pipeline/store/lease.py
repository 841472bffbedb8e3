"""Leases: which of several processes may do what only one should, with a number that tells a replaced holder from its successor.

A lease is held for a time and renewed; who finds it expired takes it with a higher token. A holder that was paused past the end of its
lease (a machine that slept, SIGSTOP) does not know it: so whatever it protects checks the token in the very transaction that writes.
`Leases.fenced` does so for files of the state folder, `pipeline.store.lake.Fence` for Delta tables. Called by `pipeline.forecast`.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pipeline.errors import LeaseLostError
from pipeline.schemas import EPOCH, MICROSECOND
from pipeline.store.state_files import connect, make_folder, reported

FILE_NAME = "leases.db"
SCHEMA = "CREATE TABLE IF NOT EXISTS leases (name TEXT PRIMARY KEY, token INTEGER NOT NULL, holder TEXT NOT NULL, ends_us INTEGER NOT NULL)"
TAKE = """
    INSERT INTO leases VALUES (:name, :floor + 1, :holder, :ends) ON CONFLICT (name) DO UPDATE
    SET token = max(token, :floor) + 1, holder = excluded.holder, ends_us = excluded.ends_us WHERE ends_us <= :now
    RETURNING token
"""
RENEW = "UPDATE leases SET ends_us = ? WHERE name = ? AND token = ?"
RELEASE = "UPDATE leases SET ends_us = 0 WHERE name = ? AND token = ?"
FIND = "SELECT token, holder, ends_us FROM leases WHERE name = ?"


@dataclass(frozen=True)
class Holder:
    """Who holds a lease.

    Attributes:
        name: for people: host and process.
        token: of the lease as it was taken.
        ends_at: when it may be taken by another, unless it is renewed.
    """

    name: str
    token: int
    ends_at: datetime


@dataclass(frozen=True)
class Leases:
    """The SQLite file of leases in the state folder; made on first use.

    Attributes:
        state_dir: a local folder (SQLite's locks do not hold on a network share).
    """

    state_dir: Path

    def take(self, name: str, holder: str, now: datetime, length: timedelta, *, floor: int = 0) -> int | None:
        """Take a lease that nobody holds.

        Args:
            name: of the lease.
            holder: who asks, for people to read.
            now: the caller's clock.
            length: how long it is held without being renewed.
            floor: a token that is known from elsewhere; the new one is greater, whatever became of this file.

        Returns:
            The token; None while another holds the lease.
        """
        facts = {"name": name, "holder": holder, "now": _us(now), "ends": _us(now + length), "floor": floor}
        with self._transaction() as connection:
            row = connection.execute(TAKE, facts).fetchone()
        return None if row is None else int(row[0])

    def renew(self, name: str, token: int, now: datetime, length: timedelta) -> bool:
        """Hold a lease for longer; False when another has taken it since."""
        with self._transaction() as connection:
            return connection.execute(RENEW, (_us(now + length), name, token)).rowcount == 1

    def release(self, name: str, token: int) -> None:
        """Give a lease back; harmless when another has taken it since."""
        with self._transaction() as connection:
            connection.execute(RELEASE, (name, token))

    def holder(self, name: str) -> Holder | None:
        """Return who took a lease last, whether it has ended or not; None where nobody did."""
        with self._transaction() as connection:
            row = connection.execute(FIND, (name,)).fetchone()
        return None if row is None else Holder(row[1], int(row[0]), EPOCH + row[2] * MICROSECOND)

    @contextmanager
    def fenced(self, name: str, token: int) -> Iterator[None]:
        """Run the block while nobody can take the lease: it checks and what it writes cannot be told apart.

        Raises:
            LeaseLostError: when another has taken the lease; the block is not run.
        """
        with self._transaction() as connection:
            row = connection.execute(FIND, (name,)).fetchone()
            if row is None or int(row[0]) != token:
                successor = "nobody" if row is None else f"{row[1]}, token {row[0]}"
                raise LeaseLostError(
                    f"This process requires the lease {name!r}, which it held with token {token}; got {successor} as its holder. "
                    "Another process has taken over and goes on; this one wrote nothing more."
                )
            yield

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Run the block as one transaction that no other process can begin beside it."""
        path = self.state_dir / FILE_NAME
        with reported("A lease", path, "without it nobody forecasts"):
            make_folder(path.parent)
            with closing(connect(path)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                with connection:
                    connection.execute(SCHEMA)
                    yield connection


def _us(instant: datetime) -> int:
    return (instant - EPOCH) // MICROSECOND
