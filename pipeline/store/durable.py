"""Has the commits of a local table on disk: delta-rs calls no fsync, and what a commit says is soon believed elsewhere.

The catalog, the snapshots, the ledger of landed files and the trimmed inbox are on disk when they say so, and what they say is what the
tables have. So a commit is on disk before its writer goes on: what a power failure can still tear is one commit that nobody has heard of.
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
    """Have commits on disk: their data files, their log files with the checkpoints, and the names of all of these.

    Args:
        table_uri: where the table is; in an object store, which keeps what it has taken, nothing is done.
        first: version of the first of them.
        last: version of the last; where it is before the first, nothing is done.

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
        if path.exists():  # few commits have a checkpoint; and somebody may have tidied already
            sync(path)


def _added(commit: Path) -> Iterator[str]:
    """Yield the data files that a commit added, relative to the table."""
    if not commit.exists():
        return
    for line in commit.read_bytes().splitlines():
        added = json.loads(line).get("add")
        if added is not None:
            yield unquote(added["path"])
