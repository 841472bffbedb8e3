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
from pipeline.doctor.tables import SETTLED
from pipeline.listen.inbox import FILE_NAME as INBOX
from pipeline.schemas import Observations, Readings
from pipeline.store.catalog import FILE_NAME as CATALOG
from pipeline.store.catalog import Catalog
from pipeline.store.lake import Lake

SQLITE_REMEDIES = {
    INBOX: "--repair takes it out and copies every message that can still be read into a new one, under its number.",
    CATALOG: "--repair takes it out and copies what can still be read; `tidecast ingest` adds series that are lost, from their files.",
}
OTHER_REMEDY = "--repair takes it out and copies what can still be read."


@dataclass(frozen=True)
class InboxNumbers:
    """Where an inbox and the lake stand.

    Attributes:
        name: the inbox's identity, which its fence is called after.
        trimmed: every number up to this one has been forgotten.
        fence: the last number whose message the lake says it has; 0 before the first.
    """

    name: str
    trimmed: int
    fence: int

    @property
    def app_id(self) -> str:
        """The name of the fence in the readings table."""
        return f"ingest/inbox/{self.name}"


def examine_databases(state_dir: Path) -> Iterator[Finding]:
    """Yield the SQLite files of the state folder that are not whole."""
    for path in sorted(state_dir.glob("*.db")):
        fault = _integrity(path)
        if fault is not None:
            yield Finding("damaged_database", str(path), f"SQLite finds it damaged: {fault}", SQLITE_REMEDIES.get(path.name, OTHER_REMEDY))


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
    fences = TableLog(Path(lake.table_uri(Readings), "_delta_log")).records()  # a torn log has them too
    fence = fences.get(f"ingest/inbox/{name}", 0)
    return InboxNumbers(name, trimmed, fence)


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
    folder = state_dir / "snapshots"
    pointers = Catalog(state_dir).snapshot_pointers() if (state_dir / CATALOG).exists() else []
    newest = lake.version(Observations)
    for pointer in pointers:
        path = folder / pointer.path.name
        fault = _snapshot_fault(path, pointer.model_version)
        if fault is None and pointer.observations_version > newest:
            fault = f"it has read version {pointer.observations_version} of the observations, which have only {newest}"
        if fault is not None:
            remedy = "--repair takes it out; the next forecast rebuilds the state of every series from the observations."
            yield Finding("lost_snapshot", str(path), fault, remedy)
    for path in sorted(folder.glob("*.tmp")):
        if now.timestamp() - path.stat().st_mtime > SETTLED.total_seconds():
            yield Finding("left_over", str(path), "an interrupted snapshot left it", "--repair takes it out.")


def _integrity(path: Path) -> str | None:
    """Return what SQLite says against a file; None where it is whole."""
    try:
        with closing(_opened(path)) as connection:
            (said,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            if path.name == INBOX:  # an empty file is whole to SQLite
                connection.execute("SELECT name FROM identity").fetchone()
    except sqlite3.Error as error:
        return str(error)
    return None if said == "ok" else str(said)


def _opened(path: Path) -> sqlite3.Connection:
    """Open a file that is there, to write too: SQLite takes back itself what a power failure cut short, where it may."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=30.0)


def _snapshot_fault(path: Path, model_version: str) -> str | None:
    try:
        with safe_open(path, framework="np") as file:
            made_for = (file.metadata() or {}).get("model_version")
    except (SafetensorError, OSError) as error:
        return f"the snapshot cannot be read: {error}"
    return None if made_for == model_version else f"it is the state of model {made_for}, and the catalog says {model_version}"
