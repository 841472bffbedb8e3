"""The lake: one Delta table for each schema, opened fresh, read at one version and appended to behind a fence.

Every other module of `pipeline.store` that keeps a table reads and writes through `Lake`. Three measured
facts decide its shape. delta-rs does not enforce its own idempotency record: only a commit through a handle that was
loaded *before* the record was checked is a fence. A handle that is kept grows slower with every commit, so each use opens
its own. And a torn Parquet file panics in Rust, past any `except Exception`: `read` turns that into a `StoreError`.
"""

import os
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from polars.exceptions import ComputeError, PanicException

from pipeline.errors import StoreError, first_line
from pipeline.schemas import TABLES, TableSchema
from pipeline.settings import is_remote
from pipeline.store.commits import append_through
from pipeline.store.creation import create_table
from pipeline.store.durable import LOG, sync_commits
from pipeline.store.formats import described, require_known
from pipeline.store.upkeep import EVERY, tidy

T = TypeVar("T")

# A conflict means that somebody else's commit won, so ten rounds are lost only to ten other commits.
MAX_ATTEMPTS = 10
FIRST_BACK_OFF_S = 0.01
S3_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ALLOW_HTTP",
)


@dataclass(frozen=True)
class Lake:
    """Where the tables are: a local folder or an `s3://` URI; holds no connection and no handle.

    Attributes:
        uri: folder or URI above the tables' own folders.
        pinned: by table name, the version that is read where the caller names none.
    """

    uri: str
    pinned: Mapping[str, int] = field(default_factory=dict, hash=False)

    def at(self, schema: type[TableSchema], version: int) -> "Lake":
        """Return the same lake with one table pinned to a version for all reads; do not write to that table through it."""
        return replace(self, pinned={**self.pinned, schema.name: version})

    @property
    def storage_options(self) -> dict[str, str] | None:
        """The object store's credentials and endpoint, from the usual `AWS_…` variables; None for a local folder."""
        if not is_remote(self.uri):
            return None
        return {name: os.environ[name] for name in S3_VARIABLES if name in os.environ}

    def table_uri(self, schema: type[TableSchema]) -> str:
        """Return the location of one table: an absolute folder or a URI."""
        if is_remote(self.uri):
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
                create_table(self.table_uri(schema), schema, self.storage_options)

    def open(self, schema: type[TableSchema], version: int | None = None) -> DeltaTable:
        """Return a fresh handle on one table.

        Args:
            schema: which table.
            version: the table version to see; None for the newest, or the one that is pinned.

        Raises:
            FormatError: when a later tidecast wrote it.
            StoreError: when the table is missing, its log is damaged, or it has no such version any more.
        """
        version = self.pinned.get(schema.name) if version is None else version
        try:
            handle = DeltaTable(self.table_uri(schema), version=version, storage_options=self.storage_options)
        except TableNotFoundError as error:
            if version is not None and self._has(schema):  # the commits that it rests on were cut from the log
                raise StoreError(
                    f"The table {schema.name} requires a version that its log still holds; got {version}. Read a later one."
                ) from error
            raise StoreError(
                f"A lake requires the table {schema.name}; got {self.uri!r}, which has none. "
                "Run `tidecast ingest` or `tidecast listen` first, or point TIDECAST_LAKE at a lake."
            ) from error
        except DeltaError as error:
            wanted = "its newest version" if version is None else f"version {version}"
            raise StoreError(
                f"The table {schema.name} requires a readable log for {wanted}; got {first_line(error)}. "
                "Run `tidecast doctor`: it says what is damaged, and with --repair mends it."
            ) from error
        require_known(f"The table {schema.name}", described(handle.metadata().description))
        return handle

    def version(self, schema: type[TableSchema]) -> int:
        """Return the newest version of one table; 0 is the empty table that was created."""
        return self.open(schema).version()

    def has_moved(self, schema: type[TableSchema], version: int) -> bool:
        """Return whether a table is past a version; in a local lake by two names in its log, whose old files are deleted."""
        if is_remote(self.uri):
            return self.version(schema) > version
        log = Path(self.table_uri(schema), LOG)
        return (log / f"{version + 1:020}.json").exists() or not (log / f"{version:020}.json").exists()

    def last_seq(self, schema: type[TableSchema], app_id: str) -> int | None:
        """Return the last sequence number that `app_id` has committed to one table; None before its first."""
        return self.open(schema).transaction_version(app_id)

    def scan(self, schema: type[TableSchema], version: int | None = None) -> pl.LazyFrame:
        """Return one table lazily, pinned to the version that is newest now (or to `version`); collect it with `read`."""
        return scan_handle(self.open(schema, version))

    def append(self, schema: type[TableSchema], frame: pl.DataFrame, *, app_id: str, seq: int, after: int | None = None) -> bool:
        """Append rows once for each `(app_id, seq)`, however often it is repeated or raced; an empty frame records the seq alone.

        Args:
            schema: which table.
            frame: rows that `schema.conform` accepts.
            app_id: the source of the batch; numbers of one source only rise.
            seq: the batch's number in its source.
            after: the number that must be the last one committed, 0 for none; for batches that may overlap. None: any lower one.

        Returns:
            False when `seq` or a later number is already committed, or `after` is not the last one committed: nothing was written.

        Raises:
            StoreError: when the commit fails or meets conflicts without end.
        """
        rows = schema.conform(frame).sort(schema.key)

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
            if number:
                time.sleep(random.uniform(0.5, 1.0) * FIRST_BACK_OFF_S * 2 ** (number - 1))  # noqa: S311 (spreads rivals, guards nothing)
            handle = self.open(schema)
            before = handle.version()
            try:
                done = attempt(handle)
            except CommitFailedError as error:
                conflict = error
            except (DeltaError, OSError) as error:
                raise StoreError(
                    f"The table {schema.name} requires a commit that succeeds; got {_in_one_line(error)}. "
                    "Mend that, then run it again: where the commit was made after all, it is found."
                ) from error
            else:
                self._keep(schema, before, handle.version())
                return done
        raise StoreError(
            f"The table {schema.name} requires a commit within {MAX_ATTEMPTS} attempts; got {first_line(conflict)}. "
            "Look for another writer of the same source, then run it again: nothing was written."
        ) from conflict

    def _keep(self, schema: type[TableSchema], before: int, after: int) -> None:
        """Have the commits behind version `before`, up to `after`, on disk, and tidy the table where its turn has come."""
        try:
            sync_commits(self.table_uri(schema), before + 1, after)
        except OSError as error:
            raise StoreError(
                f"The table {schema.name} requires a disk that keeps what was committed; got {error}. Check the disk, then run it again."
            ) from error
        if after // EVERY > before // EVERY:
            tidy(self.table_uri(schema), self.open(schema))

    def _has(self, schema: type[TableSchema]) -> bool:
        return DeltaTable.is_deltatable(self.table_uri(schema), self.storage_options)


def scan_handle(handle: DeltaTable) -> pl.LazyFrame:
    """Return the table that a handle sees, lazily.

    Polars looks for `%20` in place of the space in a folder's name; such a lake is scanned file by file, without the log's statistics.
    """
    files = local_files(handle.file_uris())
    if files == handle.file_uris():
        return pl.scan_delta(handle)
    partitions, columns = dict.fromkeys(handle.metadata().partition_columns, pl.Date), pl.scan_delta(handle).collect_schema()
    return pl.scan_parquet(
        files, schema=columns, missing_columns="insert", hive_schema=partitions, hive_partitioning=True, glob=False
    ).select(columns.names())


def local_files(uris: Iterable[str]) -> list[str]:
    """Return paths as Polars needs them: delta-rs percent-encodes local paths, and Polars does not decode them."""
    return [uri if is_remote(uri) else unquote(uri) for uri in uris]


def read(scan: pl.LazyFrame) -> pl.DataFrame:
    """Collect a scan of the lake.

    Raises:
        StoreError: when a data file is missing, torn or not Parquet.
    """
    try:
        return scan.collect()
    except (PanicException, ComputeError, OSError) as error:  # a torn file panics, and that is no Exception
        raise StoreError(
            f"A read of the lake requires whole Parquet files; got {first_line(error)}. "
            "A file was damaged or removed under the table: `tidecast doctor` says which, and with --repair mends it."
        ) from error


def _in_one_line(error: BaseException) -> str:
    """Return delta-rs's message of many coloured lines as one: its first line is the kind of error, its last the system's words."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m|↳", " ", str(error)).split())
