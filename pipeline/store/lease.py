"""Leases: which of several processes may do what only one should, with a number that tells a replaced holder from its successor.

A holder renews its lease again and again. A process that sees no renewal for a while, by its own monotonic clock, takes the lease with a
higher token. No instant is stored, so a wall clock that jumps neither kills a holder nor keeps a dead one. A holder that was paused (a
machine that slept, SIGSTOP) does not know that it was replaced; therefore whatever it protects checks the token in the transaction that
writes. `Leases.fenced` does so for files of the state folder, `pipeline.store.commits.Fence` for Delta tables. Called by
`pipeline.forecast`.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import LeaseLostError
from pipeline.store.state_files import connect, name_format, reported

FILE_NAME = "leases.db"
SCHEMA = """
    CREATE TABLE IF NOT EXISTS holders (
        name TEXT PRIMARY KEY, token INTEGER NOT NULL, holder TEXT NOT NULL, renewals INTEGER NOT NULL, is_free INTEGER NOT NULL
    ) STRICT
"""
TAKE = """
    INSERT INTO holders VALUES (:name, :floor + 1, :holder, 0, FALSE) ON CONFLICT (name) DO UPDATE
    SET token = max(token, :floor) + 1, holder = excluded.holder, renewals = 0, is_free = FALSE
    WHERE is_free OR (token = :token AND renewals = :renewals)
    RETURNING token
"""
RENEW = "UPDATE holders SET renewals = renewals + 1 WHERE name = ? AND token = ?"
RELEASE = "UPDATE holders SET is_free = TRUE WHERE name = ? AND token = ?"
FIND = "SELECT holder, token, renewals FROM holders WHERE name = ?"


@dataclass(frozen=True)
class Holder:
    """Who took a lease last.

    Attributes:
        name: host and process, for people.
        token: the number that the lease was taken with.
        renewals: how often it was renewed; while the holder lives, this number rises.
    """

    name: str
    token: int
    renewals: int


@dataclass(frozen=True)
class Leases:
    """The SQLite file of leases in the state folder; made on first use.

    Attributes:
        state_dir: a local folder (SQLite's locks do not hold on a network share).
    """

    state_dir: Path

    def take(self, name: str, holder: str, *, instead_of: Holder | None = None, floor: int = 0) -> int | None:
        """Take a lease that nobody holds.

        Args:
            name: the lease's name.
            holder: who asks, for people to read.
            instead_of: a holder believed dead; it loses the lease if it has not renewed it since this was read.
            floor: the highest token known from elsewhere; the new one is greater, even if this file was lost.

        Returns:
            The token; None while another holds the lease.
        """
        token, renewals = (None, None) if instead_of is None else (instead_of.token, instead_of.renewals)
        facts = {"name": name, "holder": holder, "floor": floor, "token": token, "renewals": renewals}
        with self._faults():
            self.state_dir.mkdir(parents=True, exist_ok=True)  # only here: a folder that was moved away is not made again in its old place
        with self._transaction() as connection:
            row = connection.execute(TAKE, facts).fetchone()
        return None if row is None else int(row[0])

    def renew(self, name: str, token: int) -> bool:
        """Show that the holder lives; False when another has taken the lease since."""
        with self._transaction() as connection:
            return connection.execute(RENEW, (name, token)).rowcount == 1

    def release(self, name: str, token: int) -> None:
        """Give a lease back; harmless when another has taken it since."""
        with self._transaction() as connection:
            connection.execute(RELEASE, (name, token))

    def holder(self, name: str) -> Holder | None:
        """Return who took a lease last, whether it was given back or not; None where nobody did."""
        if not self._path.exists():
            return None
        with self._transaction() as connection:
            row = connection.execute(FIND, (name,)).fetchone()
        return None if row is None else Holder(*row)

    @contextmanager
    def fenced(self, name: str, token: int) -> Iterator[None]:
        """Check the token and run the block in one SQLite transaction, so that nobody can take the lease in between.

        What the block raises is passed on unchanged: a disk that is full for the block is no fault of the lease.

        Raises:
            LeaseLostError: when another has taken the lease; the block is not run.
        """
        with closing(self._begun()) as connection:  # and rolled back: nothing is written here
            with self._faults():
                row = connection.execute(FIND, (name,)).fetchone()
            if row is None or int(row[1]) != token:
                successor = "nobody" if row is None else f"{row[0]}, token {row[1]}"
                raise LeaseLostError(
                    f"This process requires the lease {name!r}, which it held with token {token}; got {successor} as its holder. "
                    "Another process has taken over and goes on; this one wrote nothing more."
                )
            yield

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Run the block, which must hold SQL statements only, as one transaction that excludes other processes."""
        with self._faults(), closing(self._begun()) as connection, connection:
            yield connection

    def _begun(self) -> sqlite3.Connection:
        """Return a connection that has the file to itself."""
        with self._faults():
            connection = connect(self._path)
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(SCHEMA)
                name_format(connection)
            except BaseException:
                connection.close()
                raise
            return connection

    def _faults(self) -> AbstractContextManager[None]:
        return reported("A lease", self._path, "without it nobody forecasts")

    @property
    def _path(self) -> Path:
        return self.state_dir / FILE_NAME
