"""The log of a table, file by file, without Delta: what is there, what is whole, and what each commit did.

delta-rs opens a table whose last commit is empty, or ends after its first line, and says nothing: the rows of that commit are gone. So
the log is read here as what it is, lines of JSON. Called by the doctor alone.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import polars as pl
from polars.exceptions import ComputeError, PanicException

from pipeline.schemas import TableSchema
from pipeline.store.lake import Lake

COMMIT = re.compile(r"(\d{20})\.json")
CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\.parquet")
LAST_CHECKPOINT = "_last_checkpoint"
# How a commit's own account names the files that it added and removed.
COUNTS = {"WRITE": ("num_added_files", "num_removed_files"), "OPTIMIZE": ("numFilesAdded", "numFilesRemoved")}

Action = dict[str, Any]


@dataclass(frozen=True)
class Commit:
    """One whole commit file.

    Attributes:
        operation: as the commit says it: WRITE, OPTIMIZE, CREATE TABLE …
        added: paths of the data files that it added.
        removed: paths of those that it removed.
        records: the numbers of the sources that it recorded.
    """

    operation: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    records: dict[str, int]


@dataclass(frozen=True)
class TableLog:
    """The log folder of one table as it is at this moment.

    Attributes:
        folder: `<table>/_delta_log`.
    """

    folder: Path

    @classmethod
    def of(cls, lake: Lake, schema: type[TableSchema]) -> Self:
        """Return the log of a table of a lake in a local folder."""
        return cls(Path(lake.table_uri(schema), "_delta_log"))

    @cached_property
    def commits(self) -> dict[int, Path]:
        """The commit files by version, ascending."""
        return self._numbered(COMMIT)

    @cached_property
    def checkpoints(self) -> dict[int, Path]:
        """The checkpoints by version, ascending."""
        return self._numbered(CHECKPOINT)

    @cached_property
    def whole(self) -> dict[int, Commit]:
        """What each whole commit did; a version that is missing here has a file that is not whole."""
        read = ((version, parse_commit(path)) for version, path in self.commits.items())
        return {version: commit for version, commit in read if commit is not None}

    @cached_property
    def torn(self) -> tuple[int, ...]:
        """Versions whose commit file is not whole."""
        return tuple(version for version in self.commits if version not in self.whole)

    @cached_property
    def torn_checkpoints(self) -> tuple[int, ...]:
        """Versions whose checkpoint cannot be read."""
        return tuple(version for version, path in self.checkpoints.items() if _checkpoint(path) is None)

    @property
    def base(self) -> int:
        """The newest version that can be read without the commits before it; -1 where that takes all of them."""
        return max((version for version in self.checkpoints if version not in self.torn_checkpoints), default=-1)

    @property
    def newest(self) -> int:
        """The newest version that has a file; -1 for an empty log."""
        return max((*self.commits, *self.checkpoints), default=-1)

    def hint_is_good(self) -> bool:
        """Return whether `_last_checkpoint`, where there is one, names a checkpoint that is there."""
        path = self.folder / LAST_CHECKPOINT
        try:
            return not path.exists() or int(json.loads(path.read_bytes())["version"]) in self.checkpoints
        except (ValueError, KeyError, TypeError):
            return False

    def left_from(self, path: str) -> int | None:
        """Return the first commit that rows of a data file can come from; None where the log does not reach back that far.

        A file that was merged from others holds what their commits brought.
        """
        born = {name: version for version, commit in self.whole.items() for name in commit.added}
        waiting, first = [path], self.newest + 1
        while waiting:
            version = born.get(waiting.pop())
            if version is None:
                return None
            if self.whole[version].operation == "OPTIMIZE":
                waiting += self.whole[version].removed
            else:
                first = min(first, version)
        return first

    def records(self) -> dict[str, int]:
        """Return the last number of each source: from the newest whole checkpoint and the commits after it."""
        rows = () if self.base < 0 else _column(self.checkpoints[self.base], "txn")
        found = {row["appId"]: int(row["version"]) for row in rows}
        for version in sorted(v for v in self.whole if v > self.base):
            found |= self.whole[version].records
        return found

    def removed(self) -> set[str]:
        """Return the data files that left the table and may still be read by whoever sees an older version."""
        rows = () if self.base < 0 else _column(self.checkpoints[self.base], "remove")
        gone = {str(row["path"]) for row in rows}
        return gone.union(*(commit.removed for commit in self.whole.values()))

    def _numbered(self, pattern: re.Pattern[str]) -> dict[int, Path]:
        found = ((pattern.fullmatch(path.name), path) for path in sorted(self.folder.iterdir()))
        return {int(match[1]): path for match, path in found if match}


def parse_commit(path: Path) -> Commit | None:
    """Read one commit file; None where it is empty, torn, or holds less than its own first line says.

    delta-rs ends no commit with a line end, so one that was cut between two lines is still JSON. What gives it away is its account:
    it names how many files it added and removed, and every write of ours records the number of its source in its last line.
    """
    try:
        actions = [json.loads(line) for line in path.read_bytes().splitlines()]
    except (ValueError, FileNotFoundError):  # a writer may cut its log at any time
        return None
    if not actions or not all(isinstance(action, dict) for action in actions):
        return None
    said = next(_of(actions, "commitInfo"), {})
    commit = Commit(
        operation=str(said.get("operation", "")),
        added=tuple(str(add["path"]) for add in _of(actions, "add")),
        removed=tuple(str(remove["path"]) for remove in _of(actions, "remove")),
        records={str(txn["appId"]): int(txn["version"]) for txn in _of(actions, "txn")},
    )
    return commit if _is_complete(commit, said) and not _is_cut(commit, actions) else None


def _of(actions: list[Action], kind: str) -> Iterator[Action]:
    return (action[kind] for action in actions if kind in action)


def _is_complete(commit: Commit, said: Action) -> bool:
    """Whether a commit holds as many files as it says of itself."""
    names = COUNTS.get(commit.operation)
    metrics = said.get("operationMetrics")
    if names is None or not isinstance(metrics, dict):
        return True
    counted = dict(zip(names, (len(commit.added), len(commit.removed)), strict=True))
    return all(int(metrics.get(name, count)) == count for name, count in counted.items())


def _is_cut(commit: Commit, actions: list[Action]) -> bool:
    """Whether the last line of a write, or the table of its creation, is missing."""
    if commit.operation == "CREATE TABLE":
        return not {"protocol", "metaData"} <= {kind for action in actions for kind in action}
    return commit.operation == "WRITE" and not commit.records


def _column(path: Path, name: str) -> list[Action]:
    checkpoint = _checkpoint(path)
    return [] if checkpoint is None else checkpoint[name].drop_nulls().to_list()


def _checkpoint(path: Path) -> pl.DataFrame | None:
    try:
        return pl.read_parquet(path, columns=["add", "remove", "txn"], glob=False)
    except (PanicException, ComputeError, OSError):  # a torn file panics, and that is no Exception
        return None
