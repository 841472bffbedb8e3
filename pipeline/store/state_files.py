"""Files of the state folder: how SQLite ones are made, opened and reported broken, and how what was written gets on disk.

Used for the catalog, the leases, the inbox, the ledger of landed files, the content hashes and the snapshots.
"""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.errors import StoreError
from pipeline.store.formats import FORMAT, number_of, require_known, seal_of, written_number

BUSY_TIMEOUT_S = 30.0


def connect(path: Path) -> sqlite3.Connection:
    """Open a SQLite file, and create it where it is missing; its folder must exist.

    A statement outside of BEGIN is a transaction of its own. Each commit is an fsync; a process that finds the file locked waits for
    up to `BUSY_TIMEOUT_S`. Any thread may use the connection, but only one at a time.

    Raises:
        FormatError: when a later tidecast wrote the file.
        StoreError: when the number of its format is damaged.
    """
    with ExitStack() as if_refused:
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        if_refused.callback(connection.close)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN")  # a migration changes both together
        number, written = format_of(connection), written_format(connection)
        connection.execute("COMMIT")
        require_known(f"The file {path.name}", written or 0)
        if written != number:
            raise damaged_number(path.name, number)
        if_refused.pop_all()
    return connection


def format_of(connection: sqlite3.Connection) -> int:
    """Return the number of the format that a SQLite file names; 0 where it names none."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def written_format(connection: sqlite3.Connection) -> int | None:
    """Return the format that a SQLite file was written in, even if the number it names is damaged; None if that is unknown."""
    return written_number(format_of(connection), int(connection.execute("PRAGMA application_id").fetchone()[0]))


def write_format(connection: sqlite3.Connection, number: int) -> None:
    """Write a format's number into a SQLite file, after its seal: a later format's number without a seal would be taken for damage."""
    connection.execute(f"PRAGMA application_id = {seal_of(number)}")
    connection.execute(f"PRAGMA user_version = {number}")


def name_format(connection: sqlite3.Connection) -> None:
    """Write our format into a SQLite file that names none: a new file, or one older than formats."""
    if format_of(connection) == 0:
        write_format(connection, number_of(FORMAT))


def damaged_number(name: str, number: int) -> StoreError:
    """Return the error for a SQLite file whose format number was changed after it was written."""
    return StoreError(
        f"The file {name} requires the number of the format that it was written in; got {number}: it is damaged. "
        "Stop what writes to the lake and run `tidecast doctor --repair`."
    )


def make_in_wal_mode(path: Path, statements: Sequence[str] = ()) -> None:
    """Create a SQLite file in one step, fsynced with the folders above it; harmless when another process was quicker.

    The file is prepared as a private draft, because SQLite gives up at once, without its busy timeout, when two processes change the
    journal mode.

    Args:
        path: where the file is to be, on a local disk.
        statements: its schema.
    """
    make_folder(path.parent)
    with TemporaryDirectory(dir=path.parent, prefix=f"{path.stem}-") as folder:
        draft = Path(folder) / path.name
        with closing(connect(draft)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            for statement in statements:
                connection.execute(statement)
        with suppress(FileExistsError):
            path.hardlink_to(draft)
    sync(path.parent)


@contextmanager
def reported(what: str, path: Path, advice: str) -> Iterator[None]:
    """Turn what SQLite and the file system raise in the block into one sentence.

    Args:
        what: the file's role, as the subject of the sentence.
        path: where the file is.
        advice: what to do, besides checking the folder.

    Raises:
        StoreError: instead of the original error.
    """
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StoreError(
            f"{what} requires a readable, writable SQLite file; got {path}: {error}. "
            f"Check the folder, its permissions and the space left; {advice}."
        ) from error


def make_folder(path: Path) -> None:
    """Make a folder and its parents and fsync their directory entries, so that callers need to sync their own files only."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync(folder.parent)


def sync(path: Path) -> None:
    """Fsync a file, or the names in a folder: after an fsync of a file alone, its name may be lost in a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
