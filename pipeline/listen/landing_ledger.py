"""What has become of each file of a landing folder: a small SQLite file of its own, `<state>/landing.db`.

A file is known by its path, size and time of change, and its content by its SHA-256. Called by `landing.py`.
"""

import os
import stat
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pipeline.schemas import EPOCH, MICROSECOND
from pipeline.store.state_files import connect, make_folder, name_format, reported

FILE_NAME = "landing.db"
SCHEMA = (
    """
    CREATE TABLE IF NOT EXISTS files (
        path TEXT NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, sha256 TEXT, error TEXT, seen_us INTEGER NOT NULL,
        PRIMARY KEY (path, size, mtime_ns)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX IF NOT EXISTS contents ON files (sha256) WHERE sha256 IS NOT NULL",
)
RECORD = "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class FileVersion:
    """A file as it was: written to again, it is another.

    Attributes:
        path: absolute.
        size: bytes.
        mtime_ns: when it was last written to, as the file system says.
    """

    path: str
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> "FileVersion | None":
        """Return what a file is now; None where there is none that we may see."""
        try:
            found = path.stat()
        except OSError:
            return None
        name = os.fsencode(path.absolute()).decode("utf-8", "backslashreplace")  # a name need not be text
        return cls(name, found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


class LandingLedger:
    """An open ledger; one connection, for one thread at a time (several processes may each open their own)."""

    def __init__(self, state_dir: Path) -> None:
        """Open the ledger of a state folder, and make it where there is none.

        Raises:
            StoreError: when the file cannot be made or is no ledger.
        """
        self._path = state_dir / FILE_NAME
        with self._faults(), ExitStack() as if_refused:
            make_folder(state_dir)
            # no write-ahead log: two processes that ask for it at once lock each other out, whatever the timeout
            self._connection = if_refused.enter_context(closing(connect(self._path)))
            for statement in SCHEMA:
                self._connection.execute(statement)
            name_format(self._connection)
            if_refused.pop_all()

    def known(self) -> set[FileVersion]:
        """Return every file that was recorded, as it was then."""
        with self._faults():
            return {FileVersion(*row) for row in self._connection.execute("SELECT path, size, mtime_ns FROM files")}

    def taken_as(self, sha256: str) -> list[Path]:
        """Return the files whose content this was when they were taken."""
        with self._faults():
            return [Path(path) for (path,) in self._connection.execute("SELECT path FROM files WHERE sha256 = ?", (sha256,))]

    def record_taken(self, file: FileVersion, sha256: str, at: datetime) -> None:
        """Record that the lake has a file; on disk when this returns."""
        self._record(file, sha256, None, at)

    def record_fault(self, file: FileVersion, error: str, at: datetime) -> None:
        """Record why a file cannot be read."""
        self._record(file, None, error, at)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _record(self, file: FileVersion, sha256: str | None, error: str | None, at: datetime) -> None:
        with self._faults():
            self._connection.execute(RECORD, (file.path, file.size, file.mtime_ns, sha256, error, (at - EPOCH) // MICROSECOND))

    def _faults(self) -> AbstractContextManager[None]:
        return reported("The landing ledger", self._path, "what was not recorded is read again, and found stored")
