"""Appends that repeat nothing: of the rows given, those whose key is not stored yet.

Called by `pipeline.store.forecasts`, `scores` and `plans`.
"""

import polars as pl
from deltalake import DeltaTable

from pipeline.schemas import TableSchema
from pipeline.store.commits import Fence, append_through
from pipeline.store.lake import Lake, read, scan_handle


def append_new(lake: Lake, schema: type[TableSchema], frame: pl.DataFrame, *, app_id: str, fence: Fence | None = None) -> int:
    """Append the rows whose key is not stored yet; of several rows with one key, the first is kept, in the frame as in the table.

    Writers that share `app_id` may race: check and write are atomic, and the loser of a race checks again.

    Args:
        lake: the lake.
        schema: which table, with a partition that follows from the key: only those of `frame` are looked at.
        frame: rows that `schema.conform` accepts.
        app_id: shared by all who may write the same keys.
        fence: for a writer that another process may replace.

    Returns:
        How many rows were appended.

    Raises:
        LeaseLostError: when the writer has been replaced; nothing was written.
        StoreError: when the commit fails or meets conflicts without end.
    """
    rows = schema.conform(frame.unique(schema.key, keep="first", maintain_order=True)).sort(schema.key)

    def attempt(handle: DeltaTable) -> int:
        if fence is not None:
            fence.check(handle)
        new = rows.join(_stored_keys(handle, schema, rows), on=schema.key, how="anti", maintain_order="left")
        if not new.is_empty():
            append_through(handle, new, app_id=app_id, seq=(handle.transaction_version(app_id) or 0) + 1, fence=fence)
        return new.height

    return lake.commit(schema, attempt)


def append_new_by_model(lake: Lake, schema: type[TableSchema], frame: pl.DataFrame, *, stage: str, fence: Fence | None = None) -> int:
    """Append as `append_new`, one commit for each `model_version`: models do not hold each other up.

    Args:
        lake: the lake.
        schema: which table.
        frame: rows that `schema.conform` accepts.
        stage: first word of the app_id under which the commits are numbered.
        fence: for a writer that another process may replace.

    Returns:
        How many rows were appended.

    Raises:
        LeaseLostError: when the writer has been replaced; rows of other models that were already appended stay.
        StoreError: when a commit fails or meets conflicts without end.
    """
    models = frame.partition_by("model_version", as_dict=True, maintain_order=True)
    return sum(append_new(lake, schema, rows, app_id=f"{stage}/{version}", fence=fence) for (version,), rows in models.items())


def _stored_keys(handle: DeltaTable, schema: type[TableSchema], rows: pl.DataFrame) -> pl.DataFrame:
    """Read the keys of `rows` that are stored; the ranges let file and row-group statistics skip the rest."""
    if rows.is_empty():
        return rows.select(schema.key)
    within = [pl.col(name).is_between(pl.lit(rows[name].min()), pl.lit(rows[name].max())) for name in schema.key]
    in_partitions = pl.col(schema.partition_by).is_in(rows[schema.partition_by].unique().to_list())
    stored = scan_handle(handle).filter(in_partitions, *within).select(schema.key)
    return read(stored.join(rows.lazy().select(schema.key), on=schema.key, how="semi"))
