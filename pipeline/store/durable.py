"""Fsyncs the commits of a local table, because delta-rs does not and other files soon rely on them.

The catalog, the snapshots, the ledger of landed files and the trimmed inbox are fsynced, and they say what the tables hold. Therefore each
commit is fsynced before its writer goes on: a power failure can then tear at most one commit, which nothing relies on yet.
Called by `lake.py`, `creation.py` and `upkeep.py`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from pipeline.settings import is_remote
from pipeline.store.state_files import sync

LOG = "_delta_log"


def sync_commits(table_uri: str, first: int, last: int) -> None:
    """Fsync commits: their data files, their log files with the checkpoints, and the folders that name all of these.

    Args:
        table_uri: where the table is; for an object store, which keeps what it has accepted, nothing is done.
        first: version of the first commit.
        last: version of the last; if it is below `first`, nothing is done.

    Raises:
        OSError: when the disk refuses.
    """
    if is_remote(table_uri) or last < first:
        return
    table = Path(table_uri)
    log = table / LOG
    versions = range(first, last + 1)
    commits = [log / f"{version:020}.json" for version in versions]
    checkpoints = [log / f"{version:020}.checkpoint.parquet" for version in versions]
    data = {table / path for commit in commits for path in _added(commit)}
    hint = [log / "_last_checkpoint"] if any(path.exists() for path in checkpoints) else []
    for path in (*data, *{file.parent for file in data}, table, *commits, *checkpoints, *hint, log):
        if path.exists():  # few commits have a checkpoint, and another process may have tidied already
            sync(path)


def _added(commit: Path) -> Iterator[str]:
    """Yield the data files that a commit added, relative to the table."""
    if not commit.exists():
        return
    for line in commit.read_bytes().splitlines():
        added = json.loads(line).get("add")
        if added is not None:
            yield unquote(added["path"])
