"""Files of the state folder: made once, whoever comes at the same time, and found broken in one sentence."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from unittest.mock import patch

import pytest

from pipeline.errors import StoreError
from pipeline.store.state_files import connect, make_folder, make_in_wal_mode, reported

TABLE = ["CREATE TABLE words (word TEXT)", "INSERT INTO words VALUES ('first')"]


def test_a_file_is_made_by_one_of_many_and_nothing_else_is_left(tmp_path: Path) -> None:
    """Shown to fail by making the file in its place, and by leaving the draft."""
    path = tmp_path / "deep" / "state" / "words.db"
    with ThreadPoolExecutor(4) as together:
        list(together.map(lambda _: make_in_wal_mode(path, TABLE), range(8)))
    with closing(connect(path)) as connection:
        assert connection.execute("SELECT word FROM words").fetchall() == [("first",)]
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert [file.name for file in path.parent.iterdir()] == ["words.db"]


def test_a_folder_is_made_with_the_names_of_all_above_it_on_disk(tmp_path: Path) -> None:
    """Shown to fail by an fsync of the nearest one alone: a power failure takes the topmost, and all below it along."""
    with patch("pipeline.store.state_files.sync") as synced:
        make_folder(tmp_path / "lake" / "deep" / "state")
        make_folder(tmp_path / "lake" / "deep" / "state")
    assert {call.args[0] for call in synced.call_args_list} == {tmp_path, tmp_path / "lake", tmp_path / "lake" / "deep"}
    assert synced.call_count == 3


def test_what_breaks_a_file_is_said_with_its_place_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "words.db"
    path.write_bytes(b"no database" * 100)
    said = r"^A list of words requires.*words\.db: file is not a database\. .*; write them again\.$"
    what = reported("A list of words", path, "write them again")
    with pytest.raises(StoreError, match=said) as caught, what, closing(connect(path)) as connection:
        connection.execute("SELECT 1 FROM words")
    assert isinstance(caught.value.__cause__, sqlite3.Error)
