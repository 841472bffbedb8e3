"""What changed in a table since a version of it: the files of then and now, compared by content, so that a compaction changes nothing.

Called by `pipeline.store.observations`, `pipeline.store.scores` and `pipeline.forecast.revisions`.
"""

import logging
from collections.abc import Collection, Sequence

import polars as pl

from pipeline.errors import StoreError
from pipeline.schemas import TableSchema
from pipeline.store.lake import Lake, local_files, read

logger = logging.getLogger(__name__)


def changed_rows(lake: Lake, schema: type[TableSchema], since_version: int) -> pl.DataFrame | None:
    """Return the rows added or removed since a version of a table, without their partition; None if that version cannot be read."""
    columns = [name for name in schema.columns if name != schema.partition_by]  # the partition is in the folder's name
    moved = _moved_rows(lake, schema, since_version, columns)
    if moved is None:
        return None
    come, gone = moved
    return pl.concat([come.join(gone, on=columns, how="anti", nulls_equal=True), gone.join(come, on=columns, how="anti", nulls_equal=True)])


def new_keys(lake: Lake, schema: type[TableSchema], since_version: int) -> pl.DataFrame | None:
    """Return the keys added since a version of a table, reading no other column; None if that version cannot be read."""
    moved = _moved_rows(lake, schema, since_version, schema.key)
    if moved is None:
        return None
    come, gone = moved
    return come.join(gone, on=schema.key, how="anti")


def _moved_rows(
    lake: Lake, schema: type[TableSchema], since_version: int, columns: Sequence[str]
) -> tuple[pl.DataFrame, pl.DataFrame] | None:
    """Return the rows of added files and the rows of removed files; rows that a compaction moved are in both."""
    try:
        before = set(lake.open(schema, since_version).file_uris())
        now = set(lake.open(schema).file_uris())
        return _read_files(lake, schema, now - before, columns), _read_files(lake, schema, before - now, columns)
    except StoreError as error:
        logger.warning("%s changes unknown since_version=%d reason=%s", schema.name, since_version, error)
        return None


def _read_files(lake: Lake, schema: type[TableSchema], uris: Collection[str], columns: Sequence[str]) -> pl.DataFrame:
    if not uris:
        return schema.empty().select(columns)
    return read(pl.scan_parquet(sorted(local_files(uris)), storage_options=lake.storage_options).select(columns))
