"""Copies what can still be read of a damaged SQLite file into a new one. Called by `pipeline.doctor.doctor`."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

from pipeline.store.catalog_file import FILE_NAME as CATALOG
from pipeline.store.catalog_file import format_of_tables
from pipeline.store.formats import FORMATS, number_of
from pipeline.store.state_files import write_format, written_format

SIDE_FILES = ("-wal", "-shm", "-journal")  # a journal that stayed would be played back into the new file


def salvage(damaged: Path, place: Path, schema: Sequence[str] = ()) -> dict[str, int]:
    """Make a new SQLite file of the rows of a damaged one, under their own numbers.

    A table is read from its start until a page fails, and from its end back to the same damage.

    Args:
        damaged: the file, moved away with its side files.
        place: where the new one goes; nothing is there.
        schema: statements that make what the file must hold, for what of it the damaged one has lost.

    Returns:
        Rows copied by table; empty where there is no table, or not even their names can be read, and then no file is made.
    """
    with closing(sqlite3.connect(damaged)) as old:
        try:
            made = old.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type = 'index'").fetchall()
            number = true_format(old, place.name)
        except sqlite3.Error:
            return {}
        tables = [name for kind, name, _ in made if kind == "table" and not name.startswith("sqlite_")]
        if not tables:
            return {}
        with closing(sqlite3.connect(place)) as new:
            new.execute("PRAGMA journal_mode = WAL")
            with new:
                for _, name, statement in made:
                    if not name.startswith("sqlite_"):
                        new.execute(statement)
                for statement in schema:
                    with suppress(sqlite3.OperationalError):  # it is there
                        new.execute(statement)
                copied = {name: _copy(old, new, name) for name in tables}
                with suppress(sqlite3.Error):  # only files with counted keys have it
                    new.execute("DELETE FROM sqlite_sequence")
                    new.executemany("INSERT INTO sqlite_sequence VALUES (?, ?)", old.execute("SELECT name, seq FROM sqlite_sequence"))
            if number:
                write_format(new, number)
    return copied


def true_format(connection: sqlite3.Connection, name: str) -> int:
    """Return the number of the format that a file of the state folder is in, whatever number it names; 0 where it is as old as formats are.

    The catalog's tables tell it, because its number may be that of another format of the past. Of any other file its seal does; one that
    has none is of the release before seals.

    Args:
        connection: to the file.
        name: of the file, in the state folder.
    """
    if name == CATALOG:
        return format_of_tables(connection)
    written = written_format(connection)
    return number_of(FORMATS[0]) if written is None else written


def _copy(old: sqlite3.Connection, new: sqlite3.Connection, table: str) -> int:
    for direction in ("ASC", "DESC"):
        for row in _rows(old, table, direction):
            with suppress(sqlite3.IntegrityError):  # a damaged page may say the impossible
                new.execute(f"INSERT OR IGNORE INTO {table} VALUES ({', '.join('?' * len(row))})", row)  # noqa: S608 (names of our own tables)
    return int(new.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608


def _rows(old: sqlite3.Connection, table: str, direction: str) -> Iterator[tuple[object, ...]]:
    """Yield the rows of a table until one cannot be read."""
    with suppress(sqlite3.Error):
        yield from old.execute(f"SELECT * FROM {table} ORDER BY 1 {direction}")  # noqa: S608
