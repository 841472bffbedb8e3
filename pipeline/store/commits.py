"""What a commit to a table carries: how its files are written, how far its sources have come, and the fence of who writes.

Called by `pipeline.store`, and by the doctor, which sets recorded numbers back.
"""

from typing import NamedTuple

import polars as pl
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Transaction, WriterProperties, write_deltalake

from pipeline.errors import LeaseLostError
from pipeline.failpoints import failpoint
from pipeline.schemas import Forecasts

# Rows are sorted by key inside a file, so the statistics of small row groups let a point query skip most of it.
WRITER = WriterProperties(compression="ZSTD", compression_level=1, max_row_group_size=32_768)
# A forecast is one row of a thousand numbers: groups of 32k rows made a point query 63 ms, of 4k 16 ms (10M points, compacted).
FORECAST_WRITER = WriterProperties(compression="ZSTD", compression_level=1, max_row_group_size=4_096)
HOOKS = PostCommitHookProperties(cleanup_expired_logs=False)  # `pipeline.store.upkeep` says why


def writer_for(handle: DeltaTable) -> WriterProperties:
    """Return how the files of a table are written."""
    return FORECAST_WRITER if handle.metadata().name == Forecasts.name else WRITER


def recorded(*records: Transaction) -> CommitProperties:
    """Return the properties of a commit that records how far its sources have come."""
    return CommitProperties(app_transactions=list(records))


class Fence(NamedTuple):
    """A number that goes into every commit of one writer; a writer whose number is below the table's has been replaced.

    Attributes:
        app_id: names what the fence protects.
        token: rises with each writer; `pipeline.store.lease` gives it.
    """

    app_id: str
    token: int

    def check(self, handle: DeltaTable) -> None:
        """Refuse a writer that has been replaced.

        Raises:
            LeaseLostError: when it has; the message names both tokens.
        """
        newest = handle.transaction_version(self.app_id)
        if newest is not None and newest > self.token:
            raise LeaseLostError(
                f"A writer requires the newest lease on {self.app_id}; got token {self.token}, and the table has {newest}. "
                "Another process has taken over and goes on; this one wrote nothing more."
            )


def append_through(handle: DeltaTable, frame: pl.DataFrame, *, app_id: str, seq: int, fence: Fence | None = None) -> None:
    """Append rows through a handle that was loaded before the caller's check, and record `(app_id, seq)` with them.

    Args:
        handle: as `Lake.commit` gives it.
        frame: rows in the table's own schema and order; columns that an older table lacks are added to it.
        app_id: the fence; if the same app_id has committed since the handle was loaded, this commit fails.
        seq: the number to record.
        fence: recorded too, where the writer has one.

    Raises:
        CommitFailedError: on a conflict; `Lake.commit` catches it and tries again.
    """
    failpoint("lake.before_write")
    records = [Transaction(app_id, seq), *([] if fence is None else [Transaction(fence.app_id, fence.token)])]
    write_deltalake(
        handle,
        frame,
        mode="append",
        schema_mode="merge" if frame.width > len(handle.schema().fields) else None,
        writer_properties=writer_for(handle),
        commit_properties=recorded(*records),
        post_commithook_properties=HOOKS,
    )
