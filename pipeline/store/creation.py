"""How a table is made: its columns, its partitions, and the properties that keep its log short. Called by `Lake.create_all`."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory

from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import DeltaError

from pipeline.errors import StoreError, first_line
from pipeline.schemas import Readings, TableSchema
from pipeline.settings import is_remote
from pipeline.store.durable import sync_commits
from pipeline.store.formats import DESCRIPTION
from pipeline.store.state_files import make_folder, sync

UNUSABLE = re.compile(r"%[0-9A-Fa-f]{2}|[\[\]=]")  # in a local path: is decoded; makes delta-rs panic; is taken for a partition


def create_table(table_uri: str, schema: type[TableSchema], storage_options: dict[str, str] | None) -> None:
    """Make an empty table; harmless where another process makes it at the same time.

    Args:
        table_uri: an absolute folder or a URI, where there is no table.
        schema: the table's columns and partition.
        storage_options: the object store's credentials and endpoint; None for a local folder.

    Raises:
        StoreError: when the place cannot be written, or Delta cannot open folders of that name.
    """
    refused = None if is_remote(table_uri) else UNUSABLE.search(table_uri)
    if refused:
        raise StoreError(
            f"A lake requires a folder that Delta can open; got {table_uri!r}, with {refused[0]!r} in its path. Choose another folder."
        )
    try:
        if is_remote(table_uri):
            _create_at(table_uri, schema, storage_options)
        else:
            _create_whole(Path(table_uri), schema)
    except (DeltaError, OSError) as error:
        if not DeltaTable.is_deltatable(table_uri, storage_options):  # else another process was quicker, with the same properties
            raise StoreError(
                f"A lake requires a place that can be written; got {table_uri!r}: {first_line(error)}. "
                "Check the path, its permissions and the space left."
            ) from error


def _create_whole(place: Path, schema: type[TableSchema]) -> None:
    """Create a table in one step, fsynced: a table whose first commit is torn leaves nothing that a repair could use."""
    make_folder(place.parent)
    with TemporaryDirectory(dir=place.parent, prefix="_making-") as folder:
        draft = Path(folder, schema.name)
        draft.mkdir()
        _create_at(str(draft), schema, None)
        sync_commits(str(draft), 0, 0)
        draft.rename(place)
    sync(place.parent)


def _create_at(table_uri: str, schema: type[TableSchema], storage_options: dict[str, str] | None) -> None:
    DeltaTable.create(
        table_uri,
        schema=schema.polars(),
        mode="error",
        name=schema.name,
        description=DESCRIPTION,
        partition_by=[schema.partition_by],
        configuration=_properties(schema),
        storage_options=storage_options,
        # A retried creation commits the table a second time, as version 1: the loser of a race must lose.
        commit_properties=CommitProperties(max_commit_retries=0),
    )


def _properties(schema: type[TableSchema]) -> dict[str, str | None]:
    properties: dict[str, str | None] = {
        "delta.checkpointInterval": "20",  # 25 ms a commit after 1,000 of them; 150 ms and rising without
        "delta.logRetentionDuration": "interval 7 days",  # how far back a version can be read
        "delta.deletedFileRetentionDuration": "interval 1 hours",  # 20,000 tombstones made an open 22 ms, 320 5 ms
        "delta.appendOnly": "true" if schema.append_only else "false",
    }
    if schema is Readings:  # preparation asks which readings came after the version it has seen
        properties["delta.enableChangeDataFeed"] = "true"
    return properties
