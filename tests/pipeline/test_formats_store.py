"""A lake and its state folder say which tidecast they are for; what a later one wrote is refused by its name, and nothing is changed."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from deltalake import DeltaTable

from pipeline.doctor.doctor import repair
from pipeline.errors import FormatError
from pipeline.listen.drain import drain
from pipeline.listen.inbox import FILE_NAME as INBOX
from pipeline.schemas import TABLES, Quarantine, Readings
from pipeline.store.catalog_file import FILE_NAME as CATALOG
from pipeline.store.catalog_file import NEWEST
from pipeline.store.formats import DESCRIPTION, FORMAT, number_of
from pipeline.store.state_files import connect, format_of, write_format
from tests.damage import OPENERS, with_every_file
from tests.streams import Stream

LATER = "in whose format it is; got tidecast .* Install that version"


@pytest.fixture
def stream(tmp_path: Path) -> Stream:
    """A lake with every file of a state folder, and messages that are not drained."""
    made = with_every_file(tmp_path)
    made.send(21, 30)
    return made


def in_a_later_format(stream: Stream, file: str) -> None:
    with closing(sqlite3.connect(stream.settings.state_dir / file)) as connection:
        write_format(connection, number_of("0.12.3"))


def test_every_table_and_every_file_names_the_release_that_its_format_is_of(stream: Stream) -> None:
    assert {stream.lake.open(schema).metadata().description for schema in TABLES} == {DESCRIPTION}
    for file in sorted(stream.settings.state_dir.glob("*.db")):
        with closing(connect(file)) as connection:
            assert format_of(connection) == (NEWEST if file.name == CATALOG else number_of(FORMAT)), file
    assert {file.name for file in stream.settings.state_dir.glob("*.db")} == OPENERS.keys()


@pytest.mark.parametrize("file", OPENERS)
def test_a_file_of_a_later_tidecast_is_refused(stream: Stream, file: str) -> None:
    """Shown to fail by opening a file without a look at its format."""
    in_a_later_format(stream, file)
    with pytest.raises(FormatError, match=f"The file {file} requires tidecast 0.12.3 or later, {LATER}"):
        OPENERS[file](stream)


def test_a_table_of_a_later_tidecast_is_neither_read_nor_written(stream: Stream) -> None:
    """Shown to fail by opening a table without a look at its format."""
    stream.lake.open(Readings).alter.set_table_description("tidecast 0.12.3")
    version = DeltaTable(stream.lake.table_uri(Readings)).version()
    for use in (lambda: stream.lake.version(Readings), lambda: drain(stream.settings, stream.clock)):
        with pytest.raises(FormatError, match=f"The table readings requires tidecast 0.12.3 or later, {LATER}"):
            use()
    assert DeltaTable(stream.lake.table_uri(Readings)).version() == version


def test_the_doctor_takes_what_a_later_tidecast_wrote_for_no_damage(stream: Stream) -> None:
    """Shown to fail by leaving the formats to the examination, which finds a log that cannot be opened."""
    in_a_later_format(stream, INBOX)
    with pytest.raises(FormatError, match="The file inbox"):
        repair(stream.settings, stream.clock)
    assert not (Path(stream.settings.lake) / "_doctor").exists()


def test_a_table_or_file_that_names_no_format_is_of_the_first(stream: Stream) -> None:
    stream.lake.open(Quarantine).alter.set_table_description("ours")
    with closing(sqlite3.connect(stream.settings.state_dir / INBOX)) as connection:
        connection.execute("PRAGMA user_version = 0")
    stream.drain()
    with closing(connect(stream.settings.state_dir / INBOX)) as connection:
        assert format_of(connection) == number_of(FORMAT)
