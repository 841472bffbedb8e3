"""Mends a table: what is damaged is taken out, and the numbers are set back so that what was lost comes again.

A version number is never used twice: the place of a lost commit is filled with an empty one, so whoever has taken in version n of a
table (regularise, a snapshot, the marks of the scores) still knows what came after it. The fences of live sources are set back to before
the loss; readings are deduplicated on their stamps, so what is drained twice is stored once. Called by `pipeline.doctor.doctor`.
"""

import json
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
from deltalake import DeltaTable, Transaction
from deltalake.transaction import RemoveAction

from pipeline.doctor.findings import Finding, Ward
from pipeline.doctor.log import TableLog
from pipeline.doctor.state import InboxNumbers
from pipeline.errors import StoreError
from pipeline.schemas import Forecasts, Observations, Quarantine, Readings, TableSchema
from pipeline.store.commits import HOOKS, recorded
from pipeline.store.lake import Lake
from pipeline.store.observations import LATENESS
from pipeline.store.readings import fence
from pipeline.store.state_files import sync

DOCTOR = "doctor"  # its own commits are numbered too: a write without a number is a torn one
RECOMPUTE = -1  # µs: no allowed lateness is that, so observations recorded under it are all computed anew
COUNTED = (fence("file"), fence("replay"))  # their numbers count commits, and mean no position in anything


def mend_log(lake: Lake, schema: type[TableSchema], findings: Sequence[Finding], ward: Ward, now: datetime) -> None:
    """Take torn log files out, put an empty commit in the place of each lost one, and set back what later commits recorded.

    Args:
        lake: the lake.
        schema: the table.
        findings: what is wrong with its log.
        ward: takes the files.
        now: for the empty commits.
    """
    log = TableLog.of(lake, schema)
    lost = [f.version for f in findings if f.kind in ("torn_commit", "missing_commit") and f.version is not None]
    for finding in findings:
        if finding.kind != "missing_commit":
            ward.take(Path(finding.place))
    for version in lost:
        _fill(log.folder / f"{version:020}.json", _empty_commit(now) if version else _creation(schema))
        ward.did(f"put {'an empty commit' if version else 'the creation of the table'} in the place of version {version} of {schema.name}")
    if lost:
        is_overtaken = any(commit.records for version, commit in log.whole.items() if version > min(lost))
        _set_back(lake, schema, min(lost), ward, is_overtaken=is_overtaken)


def remove_files(lake: Lake, schema: type[TableSchema], findings: Sequence[Finding], ward: Ward, now: datetime) -> None:
    """Take damaged data files out of a table and out of its folder, and set back what they were recorded under.

    Args:
        lake: the lake.
        schema: the table.
        findings: its files that are missing, torn or rotten.
        ward: takes those that are there.
        now: for the commit.
    """
    root = Path(lake.table_uri(schema))
    paths = [Path(finding.place).relative_to(root).as_posix() for finding in findings]
    log = TableLog.of(lake, schema)
    origins = [log.left_from(path) for path in paths]
    known = [version for version in origins if version is not None]
    ward.did(_loss(lake.open(schema), schema, paths))
    for path in paths:
        if (root / path).exists():
            ward.take(root / path)
    lake.commit(schema, lambda handle: _remove(handle, schema, paths, now))
    _set_back(lake, schema, min(known) if len(known) == len(paths) else None, ward, is_overtaken=True)


def note_lost_messages(lake: Lake, numbers: InboxNumbers, ward: Ward) -> None:
    """Set the fence to where the inbox begins: what is lost is in the report, and the next loss is told by itself."""
    _record(lake, Readings, {numbers.app_id: numbers.trimmed})
    ward.did(f"noted messages {numbers.fence + 1} to {numbers.trimmed} of the inbox as lost")


def keep_to_inbox(lake: Lake, numbers: InboxNumbers, before: int, ward: Ward) -> None:
    """Raise a fence that was set back behind what the inbox still holds, and say what cannot be drained again."""
    if numbers.fence < numbers.trimmed:
        _record(lake, Readings, {numbers.app_id: min(numbers.trimmed, before)})
        ward.did(
            f"messages {numbers.fence + 1} to {min(numbers.trimmed, before)} are not in the inbox any more: "
            "those of their readings that were in what was taken out are lost, unless their source sends them again"
        )


def _empty_commit(now: datetime) -> str:
    said = {"commitInfo": {"timestamp": int(now.timestamp() * 1000), "operation": "DOCTOR", "engineInfo": "tidecast"}}
    return json.dumps(said) + "\n"


def _creation(schema: type[TableSchema]) -> str:
    """Return the first commit of a new table, which says what the table is: without one, no later commit can be read."""
    with TemporaryDirectory() as folder:
        Lake(folder).create_all()
        return Path(folder, schema.name, "_delta_log", f"{0:020}.json").read_text(encoding="utf-8")


def _fill(path: Path, commit: str) -> None:
    """Write a commit, on disk before it has its name; whoever was quicker wins."""
    draft = path.with_name(f"{path.name}.tmp")
    with draft.open("w") as file:
        file.write(commit)
        file.flush()
        os.fsync(file.fileno())
    try:
        path.hardlink_to(draft)
    except FileExistsError as error:
        raise StoreError(f"A repair requires a lake at rest; got another writer of {path.name}. Stop it and repair again.") from error
    finally:
        draft.unlink()
    sync(path.parent)


def _remove(handle: DeltaTable, schema: type[TableSchema], paths: Sequence[str], now: datetime) -> None:
    """Commit that files have left the table; a file that left it meanwhile, by a compaction, counts as done."""
    live = set(pl.DataFrame(handle.get_add_actions(flatten=True))["path"])
    stamp = int(now.timestamp() * 1000)
    actions = [
        RemoveAction(path, False, stamp, None, _partition(path)) for path in paths if path in live
    ]  # no data change: readings are append-only
    handle.create_write_transaction(
        actions,  # type: ignore[arg-type]
        mode="append",
        schema=handle.schema(),
        partition_by=[schema.partition_by],
        commit_properties=recorded(Transaction(DOCTOR, stamp)),
        post_commithook_properties=HOOKS,
    )


def _partition(path: str) -> dict[str, str | None]:
    name, value = path.split("/", maxsplit=1)[0].split("=")
    return {name: value}


def _loss(handle: DeltaTable, schema: type[TableSchema], paths: Sequence[str]) -> str:
    """Say what was in the files, by the log's own account of them."""
    adds = pl.DataFrame(handle.get_add_actions(flatten=True)).filter(pl.col("path").is_in(list(paths)))
    instant = "origin" if "origin" in schema.columns else next((name for name in ("ts", "received_at") if name in schema.columns), "")
    columns = [f"{end}.{instant}" for end in ("min", "max")]
    span = "" if not set(columns) <= set(adds.columns) else f", {instant} {adds[columns[0]].min()!s} to {adds[columns[1]].max()!s}"
    what = f"took {len(adds)} files with {adds['num_records'].sum()} rows out of {schema.name}{span}"
    return f"{what}; issued forecasts are never made again" if schema is Forecasts else what


def _set_back(lake: Lake, schema: type[TableSchema], lost_from: int | None, ward: Ward, *, is_overtaken: bool) -> None:
    """Make what follows from a table, or fills it, begin again before a loss.

    Args:
        lake: the lake.
        schema: the table that lost rows.
        lost_from: the first version that lost any; None where that is not known.
        ward: notes what was done.
        is_overtaken: whether numbers that were recorded with the lost rows, or after them, still stand.
    """
    if schema is Observations and is_overtaken:
        _record(lake, Observations, {LATENESS: RECOMPUTE})
        ward.did("set the observations to be computed anew from the readings; the next `tidecast ingest` or forecast does it")
    if schema is Readings and is_overtaken:
        _lower(lake, lost_from - 1 if lost_from else None, ward)  # before the first commit there were none
    if schema is Quarantine:  # its numbers only count: the readings' say how far a source has been read
        _lower(lake, None, ward)


def _lower(lake: Lake, version: int | None, ward: Ward) -> None:
    """Set the fences of live sources back to what they were at a version of the readings; to their start where it is not known."""
    log = TableLog.of(lake, Readings)
    now = {name: number for name, number in log.records().items() if name.startswith(fence("")) and name not in COUNTED}
    before = _records_at(lake, version, list(now))
    lowered = {name: before[name] for name, number in now.items() if before[name] < number}
    if lowered:
        _record(lake, Readings, lowered)
        ward.did("set back " + ", ".join(f"{name} from {now[name]} to {number}" for name, number in lowered.items()))


def _records_at(lake: Lake, version: int | None, names: list[str]) -> dict[str, int]:
    start = dict.fromkeys(names, 0)  # of an inbox the last message that the lake has, counted from 1; of Kafka the first that it has not
    if version is None:
        return start
    try:
        handle = lake.open(Readings, version)
    except StoreError:  # older than the log
        return start
    found = {name: handle.transaction_version(name) for name in names}
    return {name: start[name] if number is None else number for name, number in found.items()}


def _record(lake: Lake, schema: type[TableSchema], numbers: dict[str, int]) -> None:
    """Commit numbers, lower ones too: Delta takes what it is given, and only `Lake.append` insists that they rise."""
    lake.commit(
        schema,
        lambda handle: handle.create_write_transaction(
            [],
            mode="append",
            schema=handle.schema(),
            partition_by=[schema.partition_by],
            commit_properties=recorded(*(Transaction(name, number) for name, number in numbers.items())),
            post_commithook_properties=HOOKS,
        ),
    )
