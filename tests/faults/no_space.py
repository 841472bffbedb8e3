"""Stands in for a full disk where none can be mounted: imported first by a process, it refuses what that writes to marked folders.

A commit to a table and a statement that changes a SQLite file fail as they do on a full disk; other files are not refused.
"""

import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pipeline.store.commits
import pipeline.store.observations
from tests.faults.small_disk import FOLDERS, MARK, folders_in

DISKS = folders_in(os.environ.get(FOLDERS, ""))
CHANGES = ("INSERT", "UPDATE", "DELETE", "CREATE")
write_deltalake, connect = pipeline.store.commits.write_deltalake, sqlite3.connect


def is_full(path: str | Path) -> bool:
    """Return whether a path lies on a disk that is marked as full."""
    return any(Path(path).is_relative_to(disk) and (disk / MARK).exists() for disk in DISKS)


class Connection(sqlite3.Connection):
    """A connection that changes nothing on a full disk."""

    path: str

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        """Run a statement."""
        self._refuse(sql)
        return super().execute(sql, *parameters)

    def executemany(self, sql: str, rows: Iterable[Any]) -> sqlite3.Cursor:
        """Run a statement for each row."""
        self._refuse(sql)
        return super().executemany(sql, rows)

    def _refuse(self, sql: str) -> None:
        if sql.lstrip().upper().startswith(CHANGES) and is_full(self.path):
            raise sqlite3.OperationalError("database or disk is full")


def refusing_connect(path: str | Path, **options: Any) -> sqlite3.Connection:
    """Open a SQLite file."""
    connection = connect(path, factory=Connection, **options)
    connection.path = str(path)
    return connection


def refusing_write(handle: Any, *arguments: Any, **options: Any) -> None:
    """Commit to a table."""
    if is_full(handle.table_uri.removeprefix("file://")):
        raise OSError(28, "No space left on device")
    write_deltalake(handle, *arguments, **options)


if DISKS:
    sqlite3.connect = refusing_connect  # type: ignore[assignment]
    pipeline.store.commits.write_deltalake = refusing_write
    pipeline.store.observations.write_deltalake = refusing_write
