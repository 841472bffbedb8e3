"""The lake: one Delta table for each schema, opened fresh, read at one version and appended to behind a fence.

Every other module of `pipeline.store` reads and writes through `Lake`; nothing else imports deltalake. Three measured
facts decide its shape. delta-rs does not enforce its own idempotency record: only a commit through a handle that was
loaded *before* the record was checked is a fence. A handle that is kept grows slower with every commit, so each use opens
its own. And a torn Parquet file panics in Rust, past any `except Exception`: `read` turns that into a `StoreError`.
"""

import os
import random
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeVar
from urllib.parse import unquote

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from polars.exceptions import ComputeError, PanicException

from pipeline.errors import LeaseLostError, StoreError
from pipeline.schemas import TABLES, Forecasts, Readings, TableSchema
from pipeline.store.durable import sync_commits
from pipeline.store.state_files import make_folder, sync
from pipeline.store.upkeep import EVERY, HOOKS, recorded, tidy

T = TypeVar("T")

# A conflict means that somebody else's commit won, so ten rounds are lost only to ten other commits.
MAX_ATTEMPTS = 10
FIRST_BACK_OFF_S = 0.01
# Rows are sorted by key inside a file, so the statistics of small row groups let a point query skip most of it.
WRITER = WriterProperties(compression="ZSTD", compression_level=1, max_row_group_size=32_768)
# A forecast is one row of a thousand numbers: groups of 32k rows made a point query 63 ms, of 4k 16 ms (10M points, compacted).
FORECAST_WRITER = WriterProperties(compression="ZSTD", compression_level=1, max_row_group_size=4_096)
UNUSABLE = re.compile(r"%[0-9A-Fa-f]{2}|[\[\]=]")  # in a local path: decoded, a panic, taken for a partition
S3_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ALLOW_HTTP",
)


class Fence(NamedTuple):
    """A number that goes into every commit of one writer; who comes with a lower one than the table's has been replaced.

    Attributes:
        app_id: what is fenced.
        token: rises with each writer; `pipeline.store.lease` gives it.
    """

    app_id: str
    token: int

    def check(self, handle: DeltaTable) -> None:
        """Refuse a writer that has been replaced.

        Raises:
            LeaseLostError: with both tokens.
        """
        newest = handle.transaction_version(self.app_id)
        if newest is not None and newest > self.token:
            raise LeaseLostError(
                f"A writer requires the newest lease on {self.app_id}; got token {self.token}, and the table has {newest}. "
                "Another process has taken over and goes on; this one wrote nothing more."
            )


@dataclass(frozen=True)
class Lake:
    """Where the tables are: a local folder or an `s3://` URI; holds no connection and no handle.

    Attributes:
        uri: folder or URI above the tables' own folders.
    """

    uri: str

    @property
    def storage_options(self) -> dict[str, str] | None:
        """The object store's credentials and endpoint, from the usual `AWS_…` variables; None for a local folder."""
        if "://" not in self.uri:
            return None
        return {name: os.environ[name] for name in S3_VARIABLES if name in os.environ}

    def table_uri(self, schema: type[TableSchema]) -> str:
        """Return the location of one table: an absolute folder or a URI."""
        if "://" in self.uri:
            return f"{self.uri.rstrip('/')}/{schema.name}"
        return str(Path(self.uri).absolute() / schema.name)

    def exists(self) -> bool:
        """Return whether the lake holds every table."""
        return all(self._has(schema) for schema in TABLES)

    def create_all(self) -> None:
        """Create the tables that are not there yet; harmless to repeat, also from several processes at once.

        Raises:
            StoreError: when the lake cannot be written.
        """
        for schema in TABLES:
            if not self._has(schema):
                self._create(schema)

    def open(self, schema: type[TableSchema], version: int | None = None) -> DeltaTable:
        """Return a fresh handle on one table.

        Args:
            schema: which table.
            version: the table version to see; None for the newest.

        Raises:
            StoreError: when the table is missing, its log is damaged, or it has no such version any more.
        """
        try:
            return DeltaTable(self.table_uri(schema), version=version, storage_options=self.storage_options)
        except TableNotFoundError as error:
            if version is not None and self._has(schema):  # the commits that it rests on were cut from the log
                raise StoreError(
                    f"The table {schema.name} requires a version that its log still holds; got {version}. Read a later one."
                ) from error
            raise StoreError(
                f"A lake requires the table {schema.name}; got {self.uri!r}, which has none. "
                "Run `tidecast ingest` first, or point TIDECAST_LAKE at a lake."
            ) from error
        except DeltaError as error:
            wanted = "its newest version" if version is None else f"version {version}"
            raise StoreError(
                f"The table {schema.name} requires a readable log for {wanted}; got {_first_line(error)}. "
                "Run `tidecast doctor`: it says what is damaged, and with --repair mends it."
            ) from error

    def version(self, schema: type[TableSchema]) -> int:
        """Return the newest version of one table; 0 is the empty table that was created."""
        return self.open(schema).version()

    def has_moved(self, schema: type[TableSchema], version: int) -> bool:
        """Return whether a table is past a version; in a local lake the look at two files' names (`upkeep.trim_log` deletes old ones)."""
        if "://" in self.uri:
            return self.version(schema) > version
        log = Path(self.table_uri(schema)) / "_delta_log"
        return (log / f"{version + 1:020}.json").exists() or not (log / f"{version:020}.json").exists()

    def last_seq(self, schema: type[TableSchema], app_id: str) -> int | None:
        """Return the last sequence number that `app_id` has committed to one table; None before its first."""
        return self.open(schema).transaction_version(app_id)

    def scan(self, schema: type[TableSchema], version: int | None = None) -> pl.LazyFrame:
        """Return one table lazily, pinned to the version that is newest now (or to `version`); collect it with `read`."""
        return scan_handle(self.open(schema, version))

    def append(self, schema: type[TableSchema], frame: pl.DataFrame, *, app_id: str, seq: int, after: int | None = None) -> bool:
        """Append rows once for each `(app_id, seq)`, whatever is repeated or raced; an empty frame records the seq alone.

        Args:
            schema: which table.
            frame: rows that `schema.conform` accepts.
            app_id: the source of the batch; numbers of one source only rise.
            seq: the batch's number in its source.
            after: the number that must be the last one committed, 0 for none, where batches may overlap; None: any lower one.

        Returns:
            False when that number, or a later one, was committed before, or another than `after`: nothing was written.

        Raises:
            StoreError: when the commit fails or meets conflicts without end.
        """
        rows = _sorted(schema, frame)

        def attempt(handle: DeltaTable) -> bool:
            last = handle.transaction_version(app_id)
            if (last is not None and last >= seq) or (after is not None and (last or 0) != after):
                return False
            append_through(handle, rows, app_id=app_id, seq=seq)
            return True

        return self.commit(schema, attempt)

    def commit(self, schema: type[TableSchema], attempt: Callable[[DeltaTable], T]) -> T:
        """Run `attempt` on a fresh handle, and again on another fresh one while its commit conflicts.

        This is the one correct pattern for a write that depends on what is stored: check and write through the
        handle given, so that a commit of the same `app_id` in between makes this one fail and look again.

        Args:
            schema: which table.
            attempt: reads through the handle it is given and writes with `append_through` on the same handle.

        Returns:
            What `attempt` returned.

        Raises:
            StoreError: after `MAX_ATTEMPTS` conflicts, or at once for any other failure of the store.
        """
        for number in range(MAX_ATTEMPTS):
            handle = self.open(schema)
            before = handle.version()
            try:
                done = attempt(handle)
                break
            except CommitFailedError as error:
                conflict = error
                time.sleep(random.uniform(0.5, 1.0) * FIRST_BACK_OFF_S * 2**number)  # noqa: S311 (spreads rivals, guards nothing)
            except DeltaError as error:
                raise StoreError(
                    f"The table {schema.name} requires a commit that succeeds; got {_first_line(error)}. Nothing was written."
                ) from error
        else:
            raise StoreError(
                f"The table {schema.name} requires a commit within {MAX_ATTEMPTS} attempts; got {_first_line(conflict)}. "
                "Look for another writer of the same source, then run it again: nothing was written."
            ) from conflict
        try:
            sync_commits(self.table_uri(schema), before + 1, handle.version())
        except OSError as error:
            raise StoreError(
                f"The table {schema.name} requires a disk that keeps what was committed; got {error}. Check the disk, then run it again."
            ) from error
        if handle.version() // EVERY > before // EVERY:
            tidy(self.table_uri(schema), self.open(schema), writer_for(handle))
        return done

    def _has(self, schema: type[TableSchema]) -> bool:
        return DeltaTable.is_deltatable(self.table_uri(schema), self.storage_options)

    def _create(self, schema: type[TableSchema]) -> None:
        refused = None if "://" in self.uri else UNUSABLE.search(self.table_uri(schema))
        if refused:
            raise StoreError(
                f"A lake requires a folder that Delta can open; got {self.table_uri(schema)!r}, with {refused[0]!r} in its path. "
                "Choose another folder."
            )
        try:
            if "://" in self.uri:
                self._create_at(self.table_uri(schema), schema)
            else:
                self._create_whole(Path(self.table_uri(schema)), schema)
        except (DeltaError, OSError) as error:
            if not self._has(schema):  # else another process was quicker, with the same properties
                raise StoreError(
                    f"A lake requires a place that can be written; got {self.uri!r}: {_first_line(error)}. "
                    "Check the path, its permissions and the space left."
                ) from error

    def _create_whole(self, place: Path, schema: type[TableSchema]) -> None:
        """Put a table in its place in one step, on disk: of one whose first commit is torn nothing is left that a repair could use."""
        make_folder(place.parent)
        with TemporaryDirectory(dir=place.parent, prefix="_making-") as folder:
            draft = Path(folder, schema.name)
            draft.mkdir()
            self._create_at(str(draft), schema)
            sync_commits(str(draft), 0, 0)
            draft.rename(place)
        sync(place.parent)

    def _create_at(self, table_uri: str, schema: type[TableSchema]) -> None:
        DeltaTable.create(
            table_uri,
            schema=schema.polars(),
            mode="error",
            name=schema.name,
            partition_by=[schema.partition_by],
            configuration=_properties(schema),
            storage_options=self.storage_options,
            # A retried creation commits the table a second time, as version 1: the loser of a race must lose.
            commit_properties=CommitProperties(max_commit_retries=0),
        )


def append_through(handle: DeltaTable, frame: pl.DataFrame, *, app_id: str, seq: int, fence: Fence | None = None) -> None:
    """Append rows through a handle that was loaded before the caller's check, and record `(app_id, seq)` with them.

    Args:
        handle: as `Lake.commit` gives it.
        frame: rows in the table's own schema and order.
        app_id: the fence; a commit of the same one since the handle was loaded makes this one fail.
        seq: the number to record.
        fence: recorded too, where the writer has one.

    Raises:
        CommitFailedError: on a conflict; `Lake.commit` catches it and tries again.
    """
    records = [Transaction(app_id, seq), *([] if fence is None else [Transaction(fence.app_id, fence.token)])]
    write_deltalake(
        handle,
        frame,
        mode="append",
        writer_properties=writer_for(handle),
        commit_properties=recorded(*records),
        post_commithook_properties=HOOKS,
    )


def append_new(lake: Lake, schema: type[TableSchema], frame: pl.DataFrame, *, app_id: str, fence: Fence | None = None) -> int:
    """Append the rows whose key is not stored yet; of rows with one key the first counts, here and in the table.

    Writers that share `app_id` may race: the look and the write are one, and the loser of a race looks again.

    Args:
        lake: the lake.
        schema: which table; only the partitions of `frame` are looked at.
        frame: rows that `schema.conform` accepts.
        app_id: shared by all who may write the same keys.
        fence: of a writer that may have been replaced.

    Returns:
        How many rows were appended.

    Raises:
        LeaseLostError: when the writer has been replaced; nothing was written.
        StoreError: when the commit fails or meets conflicts without end.
    """
    rows = _sorted(schema, frame.unique(schema.key, keep="first", maintain_order=True))

    def attempt(handle: DeltaTable) -> int:
        if fence is not None:
            fence.check(handle)
        new = rows.join(_stored_keys(handle, schema, rows), on=schema.key, how="anti", maintain_order="left")
        if not new.is_empty():
            append_through(handle, new, app_id=app_id, seq=(handle.transaction_version(app_id) or 0) + 1, fence=fence)
        return new.height

    return lake.commit(schema, attempt)


def writer_for(handle: DeltaTable) -> WriterProperties:
    """Return how the files of a table are written."""
    return FORECAST_WRITER if handle.metadata().name == Forecasts.name else WRITER


def scan_handle(handle: DeltaTable) -> pl.LazyFrame:
    """Return the table that a handle sees, lazily.

    Polars looks for `%20` in place of the space in a folder's name; such a lake is scanned file by file, without the log's statistics.
    """
    files = local_files(handle.file_uris())
    if files == handle.file_uris():
        return pl.scan_delta(handle)
    partitions = dict.fromkeys(handle.metadata().partition_columns, pl.Date)
    return pl.scan_parquet(files, hive_schema=partitions, hive_partitioning=True, glob=False)


def local_files(uris: Iterable[str]) -> list[str]:
    """Return files as Polars must be told of them: delta-rs percent-encodes local paths, and Polars takes them as they are."""
    return [uri if "://" in uri else unquote(uri) for uri in uris]


def read(scan: pl.LazyFrame) -> pl.DataFrame:
    """Collect a scan of the lake.

    Raises:
        StoreError: when a data file is missing, torn or not Parquet.
    """
    try:
        return scan.collect()
    except (PanicException, ComputeError, OSError) as error:  # a torn file panics, and that is no Exception
        raise StoreError(
            f"A read of the lake requires whole Parquet files; got {_first_line(error)}. "
            "A file was damaged or removed under the table: `tidecast doctor` says which, and with --repair mends it."
        ) from error


def _stored_keys(handle: DeltaTable, schema: type[TableSchema], rows: pl.DataFrame) -> pl.DataFrame:
    """Read the keys of `rows` that are stored; the ranges let file and row-group statistics skip the rest."""
    if rows.is_empty():
        return rows.select(schema.key)
    within = [pl.col(name).is_between(pl.lit(rows[name].min()), pl.lit(rows[name].max())) for name in schema.key]
    in_partitions = pl.col(schema.partition_by).is_in(rows[schema.partition_by].unique().to_list())
    stored = scan_handle(handle).filter(in_partitions, *within).select(schema.key)
    return read(stored.join(rows.lazy().select(schema.key), on=schema.key, how="semi"))


def _sorted(schema: type[TableSchema], frame: pl.DataFrame) -> pl.DataFrame:
    return schema.conform(frame).sort(schema.key)


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


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
