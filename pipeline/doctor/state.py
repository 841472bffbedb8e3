"""Examines the state folder: SQLite files, the inbox against the fence in the lake, snapshots against the catalog's pointers.

Called by `pipeline.doctor.doctor`.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from safetensors import SafetensorError, safe_open

from pipeline.doctor.findings import Finding
from pipeline.doctor.log import TableLog
from pipeline.doctor.salvage import true_format
from pipeline.doctor.tables import SETTLED
from pipeline.errors import StoreError
from pipeline.listen.inbox import FILE_NAME as INBOX
from pipeline.listen.inbox import source_of
from pipeline.schemas import Observations, Readings
from pipeline.store.catalog_file import FILE_NAME as CATALOG
from pipeline.store.handovers import Handovers
from pipeline.store.lake import Lake
from pipeline.store.readings import fence
from pipeline.store.snapshot_pointers import SnapshotPointers
from pipeline.store.state_files import BUSY_TIMEOUT_S, format_of

SQLITE_REMEDIES = {
    INBOX: "--repair takes it out and copies every message that can still be read into a new one, under its number.",
    CATALOG: "--repair takes it out and copies what can still be read; `tidecast ingest` adds series that are lost, from their files.",
}
# What SQLite says of a file that it cannot judge: another process holds it, or its folder is read-only. In the last byte of its codes.
OUT_OF_REACH = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY)
OTHER_REMEDY = "--repair takes it out and copies what can still be read."


@dataclass(frozen=True)
class InboxNumbers:
    """Where an inbox and the lake stand.

    Attributes:
        app_id: the name of the fence in the readings table.
        trimmed: every number up to this one has been forgotten.
        fence: the last number whose message the lake says it has; 0 before the first.
    """

    app_id: str
    trimmed: int
    fence: int


def examine_databases(state_dir: Path) -> Iterator[Finding]:
    """Yield the SQLite files of the state folder that are not whole.

    Raises:
        StoreError: where one cannot be opened, which is no damage.
    """
    for path in sorted(state_dir.glob("*.db")):
        fault = _integrity(path)
        if fault is not None:
            yield Finding("damaged_database", str(path), fault, SQLITE_REMEDIES.get(path.name, OTHER_REMEDY))


def inbox_numbers(lake: Lake, state_dir: Path) -> InboxNumbers | None:
    """Return where the inbox and its fence stand; None where there is no inbox, or one without a name."""
    path = state_dir / INBOX
    if not path.exists():
        return None
    with closing(_opened(path)) as connection:
        row = connection.execute("SELECT name, forgotten FROM identity").fetchone()
    if row is None:  # salvaged without it: the next listener names it anew
        return None
    name, trimmed = row
    app_id = fence(source_of(name))
    fences = TableLog.of(lake, Readings).records()  # a torn log has them too
    return InboxNumbers(app_id, trimmed, fences.get(app_id, 0))


def examine_inbox(lake: Lake, state_dir: Path) -> Iterator[Finding]:
    """Yield messages that are neither in the inbox nor in the readings; an inbox older than its fence is put right by the next drain."""
    numbers = inbox_numbers(lake, state_dir)
    if numbers is None:
        return
    place = str(state_dir / INBOX)
    if numbers.fence < numbers.trimmed:
        lost = numbers.trimmed - numbers.fence
        seen = (
            f"{lost:,} messages ({numbers.fence + 1} to {numbers.trimmed}) were forgotten, and the readings do not have them: they are lost"
        )
        remedy = "Ask their source for them again; --repair notes the loss and goes on behind it."
        yield Finding("lost_messages", place, seen, remedy, Readings.name)


def examine_snapshots(lake: Lake, state_dir: Path, now: datetime) -> Iterator[Finding]:
    """Yield snapshots that are damaged, or of another lake's future, and what interrupted ones left behind."""
    pointers = SnapshotPointers(state_dir)
    newest = lake.version(Observations)
    for pointer in pointers.all() if (state_dir / CATALOG).exists() else ():
        path = pointers.folder / pointer.name
        fault = _snapshot_fault(path, pointer.model)
        if fault is None and pointer.observations_version > newest:
            fault = f"it has read version {pointer.observations_version} of the observations, which have only {newest}"
        if fault is not None:
            remedy = "--repair takes it out; the next forecast rebuilds the state of every series from the observations."
            yield Finding("lost_snapshot", str(path), fault, remedy)
    for path in sorted(pointers.folder.glob("*.tmp")):
        if now.timestamp() - path.stat().st_mtime > SETTLED.total_seconds():
            yield Finding("left_over", str(path), "an interrupted snapshot left it", "--repair takes it out.")


def examine_handovers(state_dir: Path) -> Iterator[Finding]:
    """Yield the record of which model forecast when, where lines of it are none."""
    handovers = Handovers(state_dir)
    damaged = handovers.num_damaged()
    if damaged:
        remedy = "--repair takes it out and writes those that are whole into a new one."
        yield Finding("torn_handovers", str(handovers.path), f"{damaged} of its lines are no change of the model that forecasts", remedy)


def _integrity(path: Path) -> str | None:
    """Return what is wrong with a file, as half a sentence; None where it is whole."""
    try:
        with closing(_opened(path)) as connection:
            (said,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            if path.name == INBOX:  # an empty file is whole to SQLite
                connection.execute("SELECT name, seq FROM identity, messages").fetchone()
            connection.execute("BEGIN")  # whoever migrates changes number and tables together
            number, true = format_of(connection), true_format(connection, path.name)
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in OUT_OF_REACH:  # Python's own errors have no code
            raise StoreError(
                f"An examination requires SQLite files that it can open; got {path}: {error}. This says nothing of damage. "
                "Look for the process that holds the file, or at the permissions of its folder."
            ) from error
        said = error
    if str(said) != "ok":
        return f"SQLite finds it damaged: {said}"
    return None if number == true else f"the number of its format is damaged: {number} in place of {true}"


def _opened(path: Path) -> sqlite3.Connection:
    """Open a file that is there, to write too: SQLite takes back itself what a power failure cut short, where it may."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_TIMEOUT_S)


def _snapshot_fault(path: Path, model_version: str) -> str | None:
    try:
        with safe_open(path, framework="np") as file:
            made_for = (file.metadata() or {}).get("model_version")
    except (SafetensorError, OSError) as error:
        return f"the snapshot cannot be read: {error}"
    return None if made_for == model_version else f"it is the state of model {made_for}, and the catalog says {model_version}"
