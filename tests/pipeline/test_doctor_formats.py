"""The number of a SQLite file's format, which SQLite does not check: every flipped bit of it is mended, and a later release stays one."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.doctor.doctor import examine, repair
from pipeline.errors import FormatError, StoreError
from pipeline.listen.inbox import FILE_NAME as INBOX
from pipeline.store.catalog_file import FILE_NAME as CATALOG
from pipeline.store.catalog_file import MIGRATIONS, NEWEST, format_of_tables
from pipeline.store.formats import FORMAT, KNOWN, number_of, seal_of, written_number
from pipeline.store.state_files import connect, format_of, write_format
from tests.damage import OPENERS, kinds, mended, with_every_file
from tests.streams import Stream

NUMBER_AT, SEAL_AT = 60, 68  # bytes in the header of a SQLite file: user_version and application_id, four each
LATER = [number_of(release) for release in ("0.1.1", "0.2.0", "0.12.3")]
OURS = {file: NEWEST if file == CATALOG else number_of(FORMAT) for file in OPENERS}
DAMAGED = "it is damaged. Stop what writes to the lake and run `tidecast doctor --repair`"


@pytest.fixture
def stream(tmp_path: Path) -> Stream:
    return with_every_file(tmp_path)


def flip(stream: Stream, file: str, bit: int, at: int = NUMBER_AT) -> None:
    """Flip a bit of four bytes of a file, 0 the lowest, when nothing is in its write-ahead log any more."""
    path = stream.settings.state_dir / file
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    header = bytearray(path.read_bytes())
    header[at + 3 - bit // 8] ^= 1 << bit % 8
    path.write_bytes(header)


def content(stream: Stream, file: str) -> tuple[int, int, list[str]]:
    """Return the number of a file's format, its seal, and its tables and rows."""
    with closing(sqlite3.connect(stream.settings.state_dir / file)) as connection:
        (seal,) = connection.execute("PRAGMA application_id").fetchone()
        return format_of(connection), seal, list(connection.iterdump())


@pytest.mark.parametrize("is_sealed", [True, False])
def test_any_flipped_bit_of_the_number_is_called_damage_by_every_verb_and_mended(stream: Stream, is_sealed: bool) -> None:
    """One bit makes 0.1.1 of 0.1.0. Shown to fail by a bound on what is plausible as a later format, and by a catalog that trusts a 0."""
    before = {file: content(stream, file) for file in OPENERS}
    assert {file: said[:2] for file, said in before.items()} == {file: (number, seal_of(number)) for file, number in OURS.items()}
    for bit in range(32):
        for file in OPENERS:
            if not is_sealed:  # as 0.1.0 left it
                with closing(sqlite3.connect(stream.settings.state_dir / file)) as connection:
                    connection.execute("PRAGMA application_id = 0")
            flip(stream, file, bit)
        for opened in OPENERS.values():
            with pytest.raises(StoreError, match=DAMAGED):
                opened(stream)
        report = mended(stream)
        assert [(found.kind, Path(found.place).name) for found in report.repaired] == [
            ("damaged_database", file) for file in sorted(OPENERS)
        ]
        assert {file: content(stream, file) for file in OPENERS} == before


@pytest.mark.parametrize("number", LATER)
def test_a_later_format_is_refused_by_its_release_whatever_bit_of_it_flips(stream: Stream, number: int) -> None:
    """By the doctor too, which changes nothing. Shown to fail by a seal that is not written, and by a look at the number alone."""
    with closing(connect(stream.settings.state_dir / INBOX)) as connection:
        write_format(connection, number)
    said = f"The file inbox.db requires tidecast {number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000} or later"
    for at in (NUMBER_AT, SEAL_AT):
        for bit in range(32):
            flip(stream, INBOX, bit, at)
            for use in (OPENERS[INBOX], lambda stream: repair(stream.settings, stream.clock)):
                with pytest.raises(FormatError, match=said):
                    use(stream)
            flip(stream, INBOX, bit, at)
    assert not (Path(stream.settings.lake) / "_doctor").exists()


def test_a_flipped_bit_of_the_seal_harms_nobody(stream: Stream) -> None:
    for bit in range(32):
        for file in OPENERS:
            flip(stream, file, bit, SEAL_AT)
        for opened in OPENERS.values():
            opened(stream)
        assert examine(stream.settings, stream.clock).is_healthy
        for file in OPENERS:
            flip(stream, file, bit, SEAL_AT)


@pytest.mark.parametrize("number", [*sorted(KNOWN - {0}), *LATER])
def test_number_and_seal_tell_one_format_whatever_bit_of_either_flips(number: int) -> None:
    assert {written_number(number ^ 1 << bit, seal_of(number)) for bit in range(32)} <= {number, 0}
    assert {written_number(number, seal_of(number) ^ 1 << bit) for bit in range(32)} == {number}


@pytest.mark.parametrize(("written", "says"), [(1, 0), (1, 3), (2, 0), (2, 3), (3, 1), (3, 2)])
def test_a_catalog_of_the_past_whose_number_is_of_another_is_told_by_its_tables(stream: Stream, written: int, says: int) -> None:
    """No seal is that old. Shown to fail by going by the number: a table is there already, or never comes."""
    path = stream.settings.state_dir / CATALOG
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        for statement in (statement for number in MIGRATIONS if number <= written for statement in MIGRATIONS[number]):
            connection.execute(statement)
        connection.execute("INSERT INTO positions VALUES ('a mark', 7)")
        connection.execute(f"PRAGMA user_version = {says}")
        connection.commit()
    with pytest.raises(StoreError, match=DAMAGED):
        OPENERS[CATALOG](stream)
    assert kinds(examine(stream.settings, stream.clock)) == {"damaged_database"}
    mended(stream)
    OPENERS[CATALOG](stream)
    number, seal, rows = content(stream, CATALOG)
    assert (number, seal) == (NEWEST, seal_of(NEWEST))
    assert """INSERT INTO "positions" VALUES('a mark',7);""" in rows


def test_the_tables_of_each_format_of_the_catalog_tell_it() -> None:
    """Shown to fail by a migration that brings no column."""
    assert set(MIGRATIONS) <= KNOWN
    with closing(sqlite3.connect(":memory:")) as connection:
        for number, statements in MIGRATIONS.items():
            for statement in statements:
                connection.execute(statement)
            assert format_of_tables(connection) == number
