"""Examines one table: its log file by file, then whether Delta opens it, then its data files.

Called by `pipeline.doctor.doctor`. What is wrong with a log hides what is wrong behind it, so an examination of a damaged log stops there.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
from polars.exceptions import ComputeError, PanicException

from pipeline.doctor.findings import Finding, Kind
from pipeline.doctor.hashes import hash_of, live_files
from pipeline.doctor.log import LAST_CHECKPOINT, TableLog
from pipeline.errors import StoreError
from pipeline.schemas import TABLES, TableSchema
from pipeline.store.lake import Lake

SETTLED = timedelta(hours=1)  # a commit in progress is younger than that
ABANDONED = timedelta(days=3)  # `tidecast maintain`, run daily, deletes data files that no version names before that
COMES_BACK = "--repair takes it out; what it held of live sources is drained again, and files are ingested again by you"
REMEDIES: dict[Kind, str] = {
    "missing_table": "--repair makes it anew, empty",
    "torn_commit": COMES_BACK,
    "missing_commit": "--repair puts an empty commit in its place; live sources are drained again, and files are ingested again by you",
    "old_commit": "--repair takes it out; only versions older than the last checkpoint needed it",
    "torn_checkpoint": "--repair takes it out; the log is read from the one before",
    "unreadable_log": "Restore the table from a copy",
    "missing_file": COMES_BACK,
    "torn_file": COMES_BACK,
    "rotten_file": COMES_BACK,
    "left_over": "--repair takes it out; `tidecast maintain`, run daily, deletes such files",
}


@dataclass(frozen=True)
class TableExamination:
    """What is wrong with one table.

    Attributes:
        findings: empty for a healthy table.
        files: live data files looked at.
        hashed: how many of them were held against their hash.
    """

    findings: list[Finding]
    files: int = 0
    hashed: int = 0


def examine_table(
    lake: Lake, schema: type[TableSchema], *, known_version: int, hashes: Mapping[str, bytes], deep: bool, now: datetime
) -> TableExamination:
    """Look for damage in one table; nothing is changed. A data file that has no hash yet is read, before it is given one.

    Args:
        lake: a lake in a local folder.
        schema: which table.
        known_version: a version that it is known to have reached; -1 where nobody knows.
        hashes: content hash by path.
        deep: whether to hold the live files against their hashes.
        now: tells how old what is left over is.
    """
    log = TableLog.of(lake, schema)
    if not log.folder.is_dir() or log.newest < 0:
        return TableExamination([_finding("missing_table", schema, lake.table_uri(schema), "the table has no log")])
    in_log = [*_log_damage(log, schema, known_version), *_temporary(log.folder, schema, now)]
    if any(finding.kind not in ("old_commit", "left_over") for finding in in_log):
        return TableExamination(in_log)
    try:
        live = live_files(schema.name, lake.open(schema))
    except StoreError as error:
        return TableExamination([*in_log, _finding("unreadable_log", schema, str(log.folder), f"Delta cannot open it: {error.__cause__}")])
    root = Path(lake.table_uri(schema)).parent
    damage = [
        _finding(kind, schema, str(root / file.path), seen)
        for file in live
        for kind, seen in _file_damage(root / file.path, file.size, is_known=file.path in hashes)
    ]
    hurt = {finding.place for finding in damage}
    checked = [file for file in live if deep and file.path in hashes and str(root / file.path) not in hurt]
    rotten = [file for file in checked if hash_of(root / file.path) != hashes[file.path]]
    damage += [_finding("rotten_file", schema, str(root / file.path), "its content is not what was written") for file in rotten]
    named = {file.path for file in live} | {f"{schema.name}/{path}" for path in log.removed()}
    return TableExamination([*in_log, *damage, *_unnamed(root, schema, named, now)], len(live), len(checked))


def _log_damage(log: TableLog, schema: type[TableSchema], known_version: int) -> Iterator[Finding]:
    """Yield what is wrong with the files of a log, the oldest first."""
    for version in log.torn_checkpoints:
        yield _finding("torn_checkpoint", schema, str(log.checkpoints[version]), "it is no whole Parquet file", version)
    if not log.hint_is_good():
        yield _finding("torn_checkpoint", schema, str(log.folder / LAST_CHECKPOINT), "it names no checkpoint that is there")
    for version in log.torn:
        if not log.commits[version].exists():  # cut from the log while we looked
            continue
        size = log.commits[version].stat().st_size
        seen = "the commit file is empty" if size == 0 else f"the commit file is torn, {size} bytes of it are left"
        yield _finding("old_commit" if version <= log.base else "torn_commit", schema, str(log.commits[version]), seen, version)
    newest = max(log.newest, known_version)
    for version in range(log.base + 1, newest + 1):
        if version not in log.commits:
            place = str(log.folder / f"{version:020}.json")
            yield _finding("missing_commit", schema, place, f"the commit file of version {version} is gone", version)


def _file_damage(file: Path, size: int, *, is_known: bool) -> Iterator[tuple[Kind, str]]:
    """Yield what is wrong with a data file; after a power failure one that nobody has read since may be as long as it was, and zeroes."""
    if not file.exists():
        yield "missing_file", f"the data file is gone; it had {size:,} bytes"
    elif (found := file.stat().st_size) != size:
        yield "torn_file", f"the data file has {found:,} of {size:,} bytes"
    elif not is_known and not _is_readable(file):
        yield "torn_file", "the data file cannot be read"


def _is_readable(file: Path) -> bool:
    try:
        pl.read_parquet(file, glob=False, hive_partitioning=False)
    except (PanicException, ComputeError, OSError):  # a torn file panics, and that is no Exception
        return False
    return True


def _temporary(folder: Path, schema: type[TableSchema], now: datetime) -> Iterator[Finding]:
    """Yield what interrupted commits left in the log folder."""
    for path in sorted(folder.iterdir()):
        if ("#" in path.name or path.name.endswith(".tmp")) and _age(path, now) > SETTLED:
            yield _finding("left_over", schema, str(path), "an interrupted commit left it")


def _unnamed(root: Path, schema: type[TableSchema], named: set[str], now: datetime) -> Iterator[Finding]:
    """Yield data files, whole or begun, that no version which can still be read names."""
    for path in sorted((root / schema.name).glob(f"{schema.partition_by}=*/*")):
        if path.is_file() and path.relative_to(root).as_posix() not in named and _age(path, now) > ABANDONED:
            yield _finding("left_over", schema, str(path), "no version of the table names this file")


def _age(path: Path, now: datetime) -> timedelta:
    return timedelta(seconds=now.timestamp() - path.stat().st_mtime)


def _finding(kind: Kind, schema: type[TableSchema], place: str, seen: str, version: int | None = None) -> Finding:
    return Finding(kind, place, seen, f"{REMEDIES[kind]}.", schema.name, version)


def schema_named(name: str | None) -> type[TableSchema]:
    """Return the schema of a table by its name."""
    return next(schema for schema in TABLES if schema.name == name)
