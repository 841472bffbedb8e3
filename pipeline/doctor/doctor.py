"""The examination of a whole lake, and its repair: `tidecast doctor` below the command line.

The order is that of dependence: the SQLite files first, then the tables, then what compares the two. A repair examines again after each
round, because damage hides damage: a table whose log is torn says nothing about its files.
"""

import json
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pipeline.clock import Clock
from pipeline.doctor.findings import DoctorReport, Finding, Ward
from pipeline.doctor.hashes import record_hashes, recorded, recorded_versions
from pipeline.doctor.repair import keep_to_inbox, mend_log, note_lost_messages, remove_files
from pipeline.doctor.salvage import SIDE_FILES, salvage
from pipeline.doctor.state import examine_databases, examine_handovers, examine_inbox, examine_snapshots, inbox_numbers
from pipeline.doctor.tables import TableExamination, examine_table, schema_named
from pipeline.errors import FormatError, SettingsError, StoreError
from pipeline.listen.inbox import FILE_NAME as INBOX
from pipeline.listen.inbox import SCHEMA as INBOX_SCHEMA
from pipeline.schemas import TABLES, Observations, Readings, Scores
from pipeline.settings import Settings
from pipeline.store.catalog import Catalog
from pipeline.store.handovers import Handovers
from pipeline.store.lake import Lake
from pipeline.store.observations import APP_ID
from pipeline.store.snapshot_pointers import SnapshotPointers
from pipeline.store.state_files import connect

logger = logging.getLogger(__name__)

MAX_ROUNDS = 6  # databases, logs, files, fences, and one that finds nothing
LOG_KINDS = ("torn_commit", "missing_commit", "old_commit", "torn_checkpoint")
FILE_KINDS = ("missing_file", "torn_file", "rotten_file")
UNMENDED = ("unreadable_log",)


def examine(settings: Settings, clock: Clock, *, deep: bool = False) -> DoctorReport:
    """Look for damage in a lake and its state folder; what is healthy has its content hashes recorded, else nothing is changed.

    Args:
        settings: lake and state folder.
        clock: tells how old what was left over is.
        deep: whether to read every data file and hold it against its content hash.

    Raises:
        SettingsError: when the lake is in an object store, which keeps whole objects or none.
        StoreError: when there is no lake.
    """
    lake = _local(settings)
    report = _examined(lake, settings.state_dir, clock, deep=deep)
    if report.is_healthy:
        record_hashes(lake, settings.state_dir)
    return report


def repair(settings: Settings, clock: Clock, *, deep: bool = False) -> DoctorReport:
    """Mend what can be mended; nothing is deleted: what is taken out goes to `<lake>/_doctor/<stamp>`, with a report.

    Stop what writes to the lake before. What was lost comes back by the next drain, or by ingesting its files again.

    Args:
        settings: lake and state folder.
        clock: names the folder of what is taken out.
        deep: as for `examine`.

    Raises:
        SettingsError: when the lake is in an object store.
        StoreError: when there is no lake, or somebody writes to it.
    """
    lake, state_dir = _local(settings), settings.state_dir
    root = Path(lake.uri).absolute()
    ward = Ward(root, root / "_doctor" / f"{clock.now():%Y%m%dT%H%M%S.%fZ}")
    repaired: list[Finding] = []
    for _ in range(MAX_ROUNDS):
        report = _examined(lake, state_dir, clock, deep=deep)
        mendable = [finding for finding in report.findings if finding.kind not in UNMENDED]
        if not mendable:
            break
        _mend(lake, state_dir, mendable, ward, clock)
        repaired += mendable
    if report.is_healthy:
        record_hashes(lake, state_dir)
    if not ward.actions:
        return report
    done = replace(report, repaired=tuple(repaired), actions=tuple(ward.actions), folder=ward.folder)
    (ward.folder / "report.json").write_text(json.dumps(done.to_dict(), indent=2, ensure_ascii=False) + "\n")
    return done


def _local(settings: Settings) -> Lake:
    if settings.is_remote:
        raise SettingsError(
            f"tidecast doctor requires a lake in a local folder; got {settings.lake}. An object store keeps whole objects or none: "
            "use its own versioning and checks."
        )
    if not any(Path(settings.lake, schema.name).is_dir() for schema in TABLES):
        raise StoreError(
            f"tidecast doctor requires a lake; got {settings.lake!r}, which has none. Run `tidecast ingest` or `tidecast listen` first."
        )
    lake = Lake(settings.lake)
    _refuse_later_formats(lake, settings.state_dir)
    return lake


def _refuse_later_formats(lake: Lake, state_dir: Path) -> None:
    """Refuse what a later tidecast wrote: to us it would look damaged."""
    for schema in TABLES:
        try:
            lake.open(schema)
        except FormatError:
            raise
        except StoreError:  # a finding
            continue
    for path in state_dir.glob("*.db"):
        try:
            connect(path).close()
        except FormatError:
            raise
        except (StoreError, sqlite3.Error):  # a finding too
            continue


def _examined(lake: Lake, state_dir: Path, clock: Clock, *, deep: bool) -> DoctorReport:
    """Look at everything that can be looked at in the present state."""
    damaged = list(examine_databases(state_dir))
    if damaged:
        return DoctorReport(tuple(damaged))
    versions = _known_versions(lake, state_dir)
    hashes = recorded(state_dir)
    done = [
        examine_table(lake, schema, known_version=versions.get(schema.name, -1), hashes=hashes, deep=deep, now=clock.now())
        for schema in TABLES
    ]
    found = [finding for examined in done for finding in examined.findings]
    if all(finding.kind in (*FILE_KINDS, "left_over", "old_commit") for finding in found):  # every log can be read
        found += [*examine_inbox(lake, state_dir), *examine_snapshots(lake, state_dir, clock.now()), *examine_handovers(state_dir)]
    return DoctorReport(tuple(found), files=_sum(done, "files"), hashed=_sum(done, "hashed"))


def _sum(done: list[TableExamination], name: str) -> int:
    return sum(int(getattr(examined, name)) for examined in done)


def _known_versions(lake: Lake, state_dir: Path) -> dict[str, int]:
    """Return versions that tables are known to have reached: recorded with the hashes, or taken in by regularise."""
    recorded_by_id = recorded_versions(state_dir)
    known = {}
    for schema in TABLES:
        with suppress(StoreError):  # a table that cannot be opened has another finding
            known[schema.name] = recorded_by_id.get(str(lake.open(schema).metadata().id), -1)
    with suppress(StoreError):
        taken_in = lake.last_seq(Observations, APP_ID)
        known[Readings.name] = max(known.get(Readings.name, -1), -1 if taken_in is None else taken_in)
    return known


def _mend(lake: Lake, state_dir: Path, findings: list[Finding], ward: Ward, clock: Clock) -> None:
    """Mend what one examination found: logs before files, because files are taken out by a commit."""
    for finding in findings:
        _mend_one(lake, state_dir, finding, ward)
    tables = {finding.table for finding in findings if finding.kind in LOG_KINDS}
    kinds, mend = (LOG_KINDS, mend_log) if tables else (FILE_KINDS, remove_files)
    in_tables = any(finding.kind in kinds for finding in findings)
    numbers = inbox_numbers(lake, state_dir) if in_tables else None
    for name, of_table in _by_table(findings, kinds):
        mend(lake, schema_named(name), of_table, ward, clock.now())
        if name == Scores.name:
            Catalog(state_dir).forget_positions("scores/")
            ward.did("set the scores to be looked for anew")
    lowered = None if numbers is None else inbox_numbers(lake, state_dir)
    if numbers is not None and lowered is not None and lowered.fence < numbers.fence:
        keep_to_inbox(lake, lowered, numbers.fence, ward)


def _mend_one(lake: Lake, state_dir: Path, finding: Finding, ward: Ward) -> None:
    """Mend what concerns one file, or one number."""
    path = Path(finding.place)
    if finding.kind == "missing_table":
        lake.create_all()
        ward.did(f"made the table {finding.table} anew")
    elif finding.kind == "damaged_database":
        ward.did(_renewed(path, ward))
    elif finding.kind == "left_over":
        ward.take(path)
    elif finding.kind == "lost_snapshot":
        if path.exists():
            ward.take(path)
        SnapshotPointers(state_dir).forget(path.name)
        ward.did(f"forgot the pointer to the snapshot {path.name}")
    elif finding.kind == "torn_handovers":
        whole = Handovers(state_dir).all()
        ward.take(path)
        Handovers(state_dir).write(whole)
        ward.did(f"wrote {len(whole)} changes of the model that forecasts into a new {path.name}")
    elif finding.kind == "lost_messages":
        numbers = inbox_numbers(lake, state_dir)
        if numbers is not None:
            note_lost_messages(lake, numbers, ward)


def _renewed(path: Path, ward: Ward) -> str:
    """Take a SQLite file out and copy what can be read into a new one; say how many rows of each table that was."""
    damaged = ward.take(path)
    for suffix in SIDE_FILES:
        side = path.with_name(path.name + suffix)
        if side.exists():
            ward.take(side)
    copied = salvage(damaged, path, INBOX_SCHEMA if path.name == INBOX else ())
    rows = ", ".join(f"{table} {count}" for table, count in copied.items())
    return f"copied what could be read of {path.name} into a new file: {rows}" if copied else f"nothing of {path.name} could be read"


def _by_table(findings: list[Finding], kinds: tuple[str, ...]) -> Iterator[tuple[str | None, list[Finding]]]:
    for name in dict.fromkeys(finding.table for finding in findings if finding.kind in kinds):
        yield name, [finding for finding in findings if finding.table == name and finding.kind in kinds]
