"""The catalog's file, one SQLite file in the state folder: its tables, and how it is opened at their newest form.

Delta holds what only grows; what is overwritten belongs here. Each block is one transaction on a connection of its own, on disk
(`synchronous=FULL`) when it ends, so threads and processes may share a state folder freely. Called by the modules of `pipeline.store` that
own the tables: `catalog`, `known_units` and `snapshot_pointers`.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from pipeline.store.state_files import connect, damaged_number, format_of, make_in_wal_mode, reported, write_format

FILE_NAME = "catalog.db"

# The statements that lead to each format of the file, oldest first; add to them, never edit what was released. A format after 4 has
# the number of the release that brings it (`number_of` in `pipeline.store.formats`), so that an older release can name it. Each format
# adds at least one column, so that the tables alone tell the format.
MIGRATIONS: dict[int, tuple[str, ...]] = {
    1: (
        """
        CREATE TABLE series (
            series_id TEXT PRIMARY KEY, device_id TEXT NOT NULL, metric TEXT NOT NULL, unit TEXT, aggregation TEXT,
            sample_interval_us INTEGER, grid_offset_us INTEGER, first_ts INTEGER, last_ts INTEGER
        ) STRICT, WITHOUT ROWID
        """,
        """
        CREATE TABLE snapshots (
            model_version TEXT PRIMARY KEY, path TEXT NOT NULL, observations_version INTEGER NOT NULL, updated_at INTEGER
        ) STRICT
        """,
        "CREATE TABLE positions (source TEXT PRIMARY KEY, position INTEGER NOT NULL) STRICT",
    ),
    2: (
        "CREATE TABLE units (key TEXT PRIMARY KEY, unit TEXT NOT NULL) STRICT",
        "CREATE TABLE unfinished_ingests (run TEXT PRIMARY KEY, newest TEXT NOT NULL) STRICT",  # newest: JSON, us by series_id
    ),
    3: (
        """
        CREATE TABLE device_attributes (
            device_id TEXT, name TEXT, value TEXT NOT NULL, PRIMARY KEY (device_id, name)
        ) STRICT, WITHOUT ROWID
        """,
    ),
    4: (
        "ALTER TABLE series ADD COLUMN last_received INTEGER",
        "ALTER TABLE series ADD COLUMN resumed_at INTEGER",
        "ALTER TABLE series ADD COLUMN retired_at INTEGER",
        # newest: JSON by series_id, from now on of [last_ts, last_received, resumed_at]
        "UPDATE unfinished_ingests SET newest = (SELECT json_group_object(key, json_array(value, NULL, NULL)) FROM json_each(newest))",
        """
        CREATE TABLE unit_intervals (
            device_id TEXT NOT NULL, metric TEXT NOT NULL, unit TEXT NOT NULL, valid_from INTEGER NOT NULL, valid_to INTEGER,
            PRIMARY KEY (device_id, metric, valid_from), CHECK (valid_to > valid_from)
        ) STRICT, WITHOUT ROWID
        """,
    ),
}
NEWEST = max(MIGRATIONS)


@contextmanager
def transaction(state_dir: Path) -> Iterator[sqlite3.Connection]:
    """Open the file, created or migrated as needed, and run the block as one transaction, committed unless it raises.

    Args:
        state_dir: a local folder (SQLite's locks do not hold on a network share).

    Raises:
        StoreError: when the file cannot be read or written, the number of its format is damaged, or a newer tidecast wrote it.
    """
    path = state_dir / FILE_NAME
    with reported("The catalog", path, "`tidecast ingest` rebuilds the registry from its sources"):
        if not path.exists():
            make_in_wal_mode(path)
        with closing(connect(path)) as connection:
            _migrate(connection)
            connection.execute("BEGIN")
            with connection:
                yield connection


def format_of_tables(connection: sqlite3.Connection) -> int:
    """Return the format that the tables are in, whatever the file says: the newest format that added one of their columns."""
    brought: dict[tuple[str, str], int] = {}
    with closing(sqlite3.connect(":memory:")) as model:
        for number, statements in MIGRATIONS.items():
            for statement in statements:
                model.execute(statement)
            brought |= dict.fromkeys(_columns(model) - brought.keys(), number)
    return max((brought.get(column, 0) for column in _columns(connection)), default=0)


def _columns(connection: sqlite3.Connection) -> set[tuple[str, str]]:
    return set(connection.execute("SELECT t.name, c.name FROM sqlite_master t JOIN pragma_table_info(t.name) c WHERE t.type = 'table'"))


def _migrate(connection: sqlite3.Connection) -> None:
    """Bring the file to the newest format, one transaction for all that is missing."""
    if format_of(connection) >= NEWEST:
        return
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        have = format_of(connection)  # again, now that no other process can change it
        if have != format_of_tables(connection):
            raise damaged_number(FILE_NAME, have)
        for statement in (statement for number, statements in MIGRATIONS.items() if number > have for statement in statements):
            connection.execute(statement)
        write_format(connection, max(have, NEWEST))
