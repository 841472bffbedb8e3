"""What changed in a table since a version of it: the files of then and now, compared by content, so that a compaction changes nothing.

Called by `pipeline.store.observations` and by `pipeline.forecast.revisions`.
"""

import logging
from collections.abc import Collection

import polars as pl

from pipeline.errors import StoreError
from pipeline.schemas import TableSchema
from pipeline.store.lake import Lake, local_files, read

logger = logging.getLogger(__name__)


def changed_rows(lake: Lake, schema: type[TableSchema], since_version: int) -> pl.DataFrame | None:
    """Return the rows that came or went since a version of a table, without their partition; None where that version cannot be read."""
    try:
        before = set(lake.open(schema, since_version).file_uris())
        now = set(lake.open(schema).file_uris())
        gone, come = _read_files(lake, schema, before - now), _read_files(lake, schema, now - before)
    except StoreError as error:
        logger.warning("%s changes unknown since_version=%d reason=%s", schema.name, since_version, error)
        return None
    return pl.concat(
        [come.join(gone, on=come.columns, how="anti", nulls_equal=True), gone.join(come, on=come.columns, how="anti", nulls_equal=True)]
    )


def _read_files(lake: Lake, schema: type[TableSchema], uris: Collection[str]) -> pl.DataFrame:
    columns = [name for name in schema.columns if name != schema.partition_by]  # the partition is in the folder's name
    if not uris:
        return schema.empty().select(columns)
    return read(pl.scan_parquet(sorted(local_files(uris)), storage_options=lake.storage_options).select(columns))
