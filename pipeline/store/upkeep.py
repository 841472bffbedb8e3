"""What a table does for itself at every hundredth commit, so that the 20,000th is as quick as the 200th. Called by `Lake.commit`.

Three things grow with the number of commits, each measured (CPU time of one small append, 9,000 commits, a checkpoint every 20): data
files, which every reader opens; log files, which every open and every write lists (21 ms to open and 82 ms to write with 9,000, 9 and
9 ms with 200); and delta-rs's own search for log files to clean up, at every commit (60 of those 82 ms). So small files are merged and
old log files deleted here, once in a hundred commits, and the search is switched off.
"""

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from pipeline.errors import first_line
from pipeline.settings import is_remote
from pipeline.store.commits import HOOKS, writer_for
from pipeline.store.durable import LOG, sync_commits

logger = logging.getLogger(__name__)

EVERY = 100  # commits; a merge takes as long as ten of them
KEPT_VERSIONS = 500  # that can be read again: 83 minutes at a commit each 10 s, and never more than the log's retention
MERGED_BYTES = 16 * 1024**2  # larger files are left to `tidecast maintain`, so that no append waits for seconds
TURN = "_merging.lock"  # in the table's folder; Delta leaves names with an underscore alone


def merge_files(table_uri: str, handle: DeltaTable, target_bytes: int | None = None, *, waits: bool = True) -> tuple[int, int]:
    """Merge the small files of each partition, one process at a time, and return how many went and how many came.

    delta-rs lets two compactions of one version both succeed, which doubles every row: it checks for conflicts of data, and a compaction
    changes none (nor can its caller give it a fence or a limit of retries). Therefore a process takes a file lock first and reads the
    table after that. An object store has no such lock: there, only one process may merge, which is `tidecast maintain`.

    Args:
        table_uri: where the table is.
        handle: a handle on it; it is brought up to date.
        target_bytes: size up to which files are merged; None for the table's own, 100 MB.
        waits: until another process that merges has finished.

    Raises:
        BlockingIOError: when another process merges and `waits` is False.
    """
    with _turn(table_uri, waits=waits):
        handle.update_incremental()
        before = handle.version()
        metrics = handle.optimize.compact(target_size=target_bytes, writer_properties=writer_for(handle), post_commithook_properties=HOOKS)
        sync_commits(table_uri, before + 1, handle.version())
    return int(metrics["numFilesRemoved"]), int(metrics["numFilesAdded"])


@contextmanager
def _turn(table_uri: str, *, waits: bool) -> Iterator[None]:
    """Run the block while no other process merges the table's files; the lock is freed however this process ends."""
    if is_remote(table_uri):
        yield
        return
    with Path(table_uri, TURN).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def tidy(table_uri: str, handle: DeltaTable) -> None:
    """Merge the small files of a local table and delete the oldest part of its log; a failure is logged and left to the next time.

    The caller's commit is already stored, so no fault here may reach the caller. Appends are not held up.

    Args:
        table_uri: where the table is.
        handle: a fresh handle on it.
    """
    if is_remote(table_uri):
        return
    try:
        with suppress(BlockingIOError):  # `maintain` may take minutes, and a stopped process for ever: a commit waits for neither
            merge_files(table_uri, handle, MERGED_BYTES, waits=False)
        handle.cleanup_metadata()  # by age
        trim_log(Path(table_uri, LOG), handle.version() - KEPT_VERSIONS)
    except (DeltaError, OSError) as error:
        logger.warning("table not tidied uri=%s reason=%s", table_uri, first_line(error))


def trim_log(log: Path, oldest_kept: int) -> int:
    """Delete the log files of versions before the last checkpoint at or before `oldest_kept`, oldest first; return how many.

    From that checkpoint on every version can still be read. Safe beside readers, writers and other trimmers.
    """
    versions = {file: int(file.name[:20]) for file in log.iterdir() if file.name[:20].isdigit()}
    checkpoints = [version for file, version in versions.items() if ".checkpoint" in file.name and version <= oldest_kept]
    old = sorted(file for file, version in versions.items() if version < max(checkpoints, default=0))
    for file in old:
        file.unlink(missing_ok=True)
    return len(old)
