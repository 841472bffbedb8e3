"""What the doctor promises of the state folder and of a lake as a whole: it mends without deleting, and leaves what is healthy alone."""

import shutil
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.doctor.doctor import examine, repair
from pipeline.errors import SettingsError, StoreError
from pipeline.listen.inbox import Inbox
from pipeline.schemas import Observations, Readings
from pipeline.settings import Settings
from pipeline.store.handovers import Handovers
from tests.damage import NUM_MESSAGES, copied, healthy, is_again, kinds, mended
from tests.streams import START, Stream


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Stream:
    return healthy(tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def stream(undisturbed: Stream, tmp_path: Path) -> Stream:
    return copied(undisturbed, tmp_path / "copy")


def test_repair_deletes_nothing_and_says_what_it_did(stream: Stream) -> None:
    file = stream.data_files(Readings)[0]
    content = file.read_bytes()[:-1]
    file.write_bytes(content)
    report = mended(stream)
    assert report.folder is not None
    assert [kept.read_bytes() for kept in report.folder.rglob("*.parquet")] == [content]
    assert (report.folder / "report.json").exists()
    assert any("took 1 files with 10 rows out of readings" in action for action in report.actions)


def test_a_healthy_lake_is_left_as_it_is(stream: Stream) -> None:
    before = {path: path.stat().st_mtime_ns for path in stream.folder.rglob("*") if path.suffix in (".json", ".parquet")}
    report = repair(stream.settings, stream.clock, deep=True)
    assert report.is_healthy
    assert (report.folder, report.hashed) == (None, report.files)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not Path(stream.settings.lake, "_doctor").exists()


def test_messages_that_neither_inbox_nor_lake_have_are_counted(stream: Stream) -> None:
    """Shown to fail by comparing with the greatest number in place of the oldest."""
    with closing(Inbox(stream.settings.state_dir)) as inbox:
        inbox.trim(NUM_MESSAGES - 3, received_before=stream.clock.now())
    stream.log(Readings).write_bytes(b"")
    report = repair(stream.settings, stream.clock)
    (lost,) = [finding for finding in report.repaired if finding.kind == "lost_messages"]
    assert lost.seen.startswith("7 messages (51 to 57) were forgotten")
    assert report.is_healthy
    stream.drain()
    assert len(stream.readings()) == NUM_MESSAGES - 7


def test_only_what_the_inbox_has_forgotten_is_not_drained_again(stream: Stream) -> None:
    """Messages 1 to 10 are in no inbox any more, and the commit of 1 to 10 is torn, with later ones behind it."""
    with closing(Inbox(stream.settings.state_dir)) as inbox:
        inbox.trim(20, received_before=stream.clock.now())
    stream.log(Readings, 1).write_bytes(b"")
    report = mended(stream)
    assert any(action.startswith("messages 1 to 20 are not in the inbox any more") for action in report.actions)
    assert "lost_messages" not in {finding.kind for finding in report.repaired}
    stream.drain()
    assert stream.readings()["source_seq"].sort().to_list() == list(range(11, NUM_MESSAGES + 1))


def test_a_damaged_inbox_gives_what_can_be_read_under_its_numbers(stream: Stream) -> None:
    stream.send(NUM_MESSAGES + 1, NUM_MESSAGES + 2_000)
    path = stream.settings.state_dir / "inbox.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (name,) = connection.execute("SELECT name FROM identity").fetchone()
    pages = bytearray(path.read_bytes())
    middle = len(pages) // 2 // 4096 * 4096
    pages[middle : middle + 4096] = bytes(4096)
    path.write_bytes(pages)
    assert kinds(examine(stream.settings, stream.clock)) == {"damaged_database"}
    mended(stream)
    with closing(Inbox(stream.settings.state_dir)) as inbox:
        kept = [stored.seq for stored in inbox.read(0, max_messages=5_000, max_bytes=10**8)]
        assert (inbox.name, inbox.last_seq()) == (name, NUM_MESSAGES + 2_000)
    assert NUM_MESSAGES + 1_800 < len(kept) < NUM_MESSAGES + 2_000
    assert (kept[0], kept[-1]) == (1, NUM_MESSAGES + 2_000)


def test_an_inbox_of_no_bytes_is_damage_and_the_next_listener_makes_another(stream: Stream, undisturbed: Stream) -> None:
    """Shown to fail by asking SQLite alone, which finds an empty file whole: the doctor died of the table that is not there."""
    path = stream.settings.state_dir / "inbox.db"
    for file in (path, path.with_name("inbox.db-wal"), path.with_name("inbox.db-shm")):
        file.unlink(missing_ok=True)
    path.touch()
    assert kinds(examine(stream.settings, stream.clock)) == {"damaged_database"}
    mended(stream)
    assert is_again(stream, undisturbed)


@pytest.mark.parametrize("table", ["identity", "messages"])
def test_an_inbox_without_a_table_is_made_whole_and_drained_once_more(stream: Stream, undisturbed: Stream, table: str) -> None:
    """Shown to fail by a copy of what is there: six rounds of repair, and as many of the same finding."""
    with closing(sqlite3.connect(stream.settings.state_dir / "inbox.db")) as connection:
        connection.execute(f"DROP TABLE {table}")
    assert kinds(examine(stream.settings, stream.clock)) == {"damaged_database"}
    mended(stream)
    assert is_again(stream, undisturbed)


def test_a_file_that_another_process_holds_is_not_called_damaged(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown to fail by taking every error of SQLite for damage: a repair moved the inbox away under its writer."""
    for module in ("pipeline.doctor.state", "pipeline.store.state_files"):
        monkeypatch.setattr(f"{module}.BUSY_TIMEOUT_S", 0.05)
    with closing(sqlite3.connect(stream.settings.state_dir / "inbox.db", isolation_level=None)) as holder:
        holder.execute("PRAGMA locking_mode = EXCLUSIVE")
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="says nothing of damage"):
            repair(stream.settings, stream.clock)


def test_a_torn_record_of_models_is_found_and_what_is_whole_stays(stream: Stream) -> None:
    handovers = Handovers(stream.settings.state_dir)
    handovers.record("1", "1-aa", START)
    with handovers.path.open("ab") as file:
        file.write(b'{"version": "2"}\n\xff\x00\n')
    handovers.record("3", "3-cc", START)
    whole = handovers.all()
    assert kinds(examine(stream.settings, stream.clock)) == {"torn_handovers"}
    mended(stream)
    assert [change.version for change in handovers.all()] == ["1", "3"]
    assert handovers.all() == whole


def test_a_transaction_that_the_power_cut_short_is_taken_back_and_no_damage(stream: Stream, tmp_path: Path) -> None:
    """Its journal lies beside the file. Shown to fail by opening the file to read alone: SQLite may then not play it back."""
    place = stream.settings.state_dir / "words.db"
    with closing(sqlite3.connect(tmp_path / "words.db")) as connection:
        connection.execute("CREATE TABLE words (word TEXT)")
        connection.executemany("INSERT INTO words VALUES (?)", [("before" * 100,)] * 100)
        connection.commit()
        connection.execute("PRAGMA cache_size = 1")  # so that pages go to the file before the commit
        connection.execute("UPDATE words SET word = 'after'")
        for suffix in ("", "-journal"):
            shutil.copyfile(tmp_path / f"words.db{suffix}", place.with_name(f"words.db{suffix}"))
    assert examine(stream.settings, stream.clock).is_healthy
    with closing(sqlite3.connect(place)) as connection:
        assert connection.execute("SELECT DISTINCT word FROM words").fetchall() == [("before" * 100,)]


def test_answers_as_of_an_instant_do_not_depend_on_the_times_of_files(stream: Stream, undisturbed: Stream) -> None:
    """A copy has other times: where Delta's travel by instant were used, every one of these would be the first version's."""
    from pipeline.store.observations import read_observations

    assert stream.log(Readings, 1).stat().st_mtime_ns != undisturbed.log(Readings, 1).stat().st_mtime_ns
    for minute in (5, 12, 30):
        instant = START + timedelta(minutes=minute)
        known = read_observations(stream.lake, as_of=instant)
        assert known.equals(read_observations(undisturbed.lake, as_of=instant))
        assert known["ts"].max() < instant


def test_no_module_travels_to_a_version_by_an_instant() -> None:
    """`load_as_version` and a `version` that is no number are the ways; neither is in the code. Pinned, because mtimes decide there."""
    sources = [path.read_text(encoding="utf-8") for path in Path(__file__).parents[2].joinpath("pipeline").rglob("*.py")]
    assert not [text for text in sources if "load_as_version" in text or "starting_timestamp" in text or ".restore(" in text]


def test_errors_of_other_verbs_lead_to_the_doctor(stream: Stream) -> None:
    stream.log(Readings).write_bytes(b'{"add":{"pa')
    with pytest.raises(StoreError, match="tidecast doctor"):
        stream.readings()
    stream.data_files(Observations)[0].write_bytes(b"")
    with pytest.raises(StoreError, match="tidecast doctor"):
        stream.observations()


def test_places_that_cannot_be_examined_are_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="requires a lake in a local folder"):
        examine(Settings(lake="s3://bucket/lake"), Stream(tmp_path).clock)
    with pytest.raises(StoreError, match="requires a lake; got"):
        examine(Settings(lake=str(tmp_path)), Stream(tmp_path).clock)
