"""What the doctor promises: it finds every damage, mends without deleting, and what comes again makes the tables what they were."""

import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from pipeline.doctor.doctor import examine, repair
from pipeline.doctor.findings import DoctorReport
from pipeline.doctor.hashes import record_hashes
from pipeline.errors import SettingsError, StoreError
from pipeline.listen.inbox import Inbox
from pipeline.schemas import EPOCH, Observations, Readings
from pipeline.settings import Settings
from pipeline.store.handovers import Handovers
from pipeline.store.maintenance import compact
from tests.streams import START, Stream

NUM_MESSAGES = 60
TABLES_IN_DANGER = [Readings, Observations]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Stream:
    """A healthy lake of six commits, the observations in two; its hashes are recorded."""
    made = Stream(tmp_path_factory.mktemp("undisturbed"))
    made.send(1, NUM_MESSAGES // 2)
    made.drain()
    made.send(NUM_MESSAGES // 2 + 1, NUM_MESSAGES)
    made.drain()
    assert examine(made.settings, made.clock).is_healthy
    return made


@pytest.fixture
def stream(undisturbed: Stream, tmp_path: Path) -> Stream:
    """A copy of the healthy lake, to be damaged."""
    shutil.copytree(undisturbed.folder, tmp_path / "copy", copy_function=shutil.copyfile)  # the times of files do not come with it
    return Stream(tmp_path / "copy")


def mended(stream: Stream, *, deep: bool = False) -> DoctorReport:
    """Repair, and expect that a second look finds nothing."""
    report = repair(stream.settings, stream.clock, deep=deep)
    assert report.is_healthy
    assert report.repaired
    assert examine(stream.settings, stream.clock, deep=deep).is_healthy
    return report


def is_again(stream: Stream, undisturbed: Stream) -> bool:
    """Drain and compare both tables with those of the undisturbed run."""
    stream.drain()
    return stream.readings().equals(undisturbed.readings()) and stream.observations().equals(undisturbed.observations())


def kinds(report: DoctorReport) -> set[str]:
    return {finding.kind for finding in report.findings}


def empty(content: bytes) -> bytes:
    return b""


def first_byte(content: bytes) -> bytes:
    return content[:1]


def inside_the_first_line(content: bytes) -> bytes:
    return content[: content.index(b"\n") // 2]


def after_the_first_line(content: bytes) -> bytes:
    return content[: content.index(b"\n")]


def after_the_first_line_end(content: bytes) -> bytes:
    return content[: content.index(b"\n") + 1]


def inside_the_second_line(content: bytes) -> bytes:
    return content[: content.index(b"\n") + 100]


def without_the_records(content: bytes) -> bytes:
    return content[: content.index(b'\n{"txn"')]


def without_the_last_byte(content: bytes) -> bytes:
    return content[:-1]


def zeros(content: bytes) -> bytes:
    return bytes(len(content))


CUTS = [
    empty,
    first_byte,
    inside_the_first_line,
    after_the_first_line,
    after_the_first_line_end,
    inside_the_second_line,
    without_the_records,
    without_the_last_byte,
    zeros,
]


@pytest.mark.parametrize("schema", TABLES_IN_DANGER)
@pytest.mark.parametrize("cut", CUTS)
def test_a_torn_last_commit_is_found_and_what_it_held_comes_again(stream: Stream, undisturbed: Stream, schema, cut) -> None:
    """Shown to fail by taking every file that parses for whole: delta-rs itself opens four of these nine without a word."""
    file = stream.log(schema)
    file.write_bytes(cut(file.read_bytes()))
    assert kinds(examine(stream.settings, stream.clock)) == {"torn_commit"}
    mended(stream)
    assert is_again(stream, undisturbed)


@pytest.mark.parametrize("schema", TABLES_IN_DANGER)
def test_a_last_commit_that_is_gone_is_found_by_the_version_that_was_recorded(stream: Stream, undisturbed: Stream, schema) -> None:
    stream.log(schema).unlink()
    assert kinds(examine(stream.settings, stream.clock)) == {"missing_commit"}
    mended(stream)
    assert is_again(stream, undisturbed)


@pytest.mark.parametrize("schema", TABLES_IN_DANGER)
@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(path.read_bytes()[:500])]
)
def test_a_commit_in_the_middle_is_found_and_what_it_held_comes_again(stream: Stream, undisturbed: Stream, schema, damage) -> None:
    """Later commits have recorded greater numbers. Shown to fail by leaving the fences, or regularise's record, where they are."""
    damage(stream.log(schema, 1))
    assert kinds(examine(stream.settings, stream.clock)) <= {"missing_commit", "torn_commit"}
    mended(stream)
    assert is_again(stream, undisturbed)


@pytest.mark.parametrize("schema", TABLES_IN_DANGER)
@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        ("missing_file", Path.unlink),
        ("torn_file", lambda path: path.write_bytes(b"")),
        ("torn_file", lambda path: path.write_bytes(path.read_bytes()[:-100])),
    ],
)
@pytest.mark.parametrize("is_compacted", [False, True])
def test_a_damaged_data_file_is_taken_out_and_its_rows_come_again(
    stream: Stream, undisturbed: Stream, schema, kind: str, damage: Callable[[Path], None], *, is_compacted: bool
) -> None:
    """Shown to fail by leaving the fence where it is: the rows never come again."""
    if is_compacted:
        compact(stream.lake)
    damage(stream.data_files(schema)[0])
    assert kinds(examine(stream.settings, stream.clock)) == {kind}
    mended(stream)
    assert is_again(stream, undisturbed)


@pytest.mark.parametrize("schema", TABLES_IN_DANGER)
def test_a_data_file_of_zeroes_is_found_though_its_length_is_right(stream: Stream, undisturbed: Stream, schema) -> None:
    """What delayed allocation leaves after a power failure. Shown to fail by a look at lengths alone."""
    (stream.settings.state_dir / "hashes.db").unlink()  # since the last commit nobody has looked
    file = stream.data_files(schema)[0]
    file.write_bytes(bytes(file.stat().st_size))
    assert kinds(examine(stream.settings, stream.clock)) == {"torn_file"}
    mended(stream)
    assert is_again(stream, undisturbed)


def test_every_single_flipped_bit_is_found_by_its_hash(stream: Stream, undisturbed: Stream) -> None:
    """Shown to fail by leaving out the comparison: sizes and logs are as they were."""
    rng = random.Random(7)
    files = [*stream.data_files(Readings), *stream.data_files(Observations)]
    for _ in range(20):
        file = rng.choice(files)
        whole = file.read_bytes()
        at = rng.randrange(len(whole))
        file.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << rng.randrange(8))]) + whole[at + 1 :])
        assert [finding.place for finding in examine(stream.settings, stream.clock, deep=True).findings] == [str(file)]
        file.write_bytes(whole)
    file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    mended(stream, deep=True)
    assert is_again(stream, undisturbed)


def test_a_hash_is_of_the_file_as_it_was_first_seen(stream: Stream) -> None:
    """Shown to fail by recording again what is known."""
    file = stream.data_files(Readings)[0]
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert record_hashes(stream.lake, stream.settings.state_dir).files == 0
    assert kinds(examine(stream.settings, stream.clock, deep=True)) == {"rotten_file"}


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


@pytest.mark.parametrize("content", [b"", b"PAR1 torn", None])
def test_a_torn_checkpoint_is_taken_out_and_the_log_is_read_from_before(stream: Stream, undisturbed: Stream, content) -> None:
    stream.lake.open(Readings).create_checkpoint()
    log = stream.log(Readings).parent
    checkpoint = next(log.glob("*.checkpoint.parquet"))
    checkpoint.unlink() if content is None else checkpoint.write_bytes(content)
    assert kinds(examine(stream.settings, stream.clock)) == {"torn_checkpoint"}
    mended(stream)
    assert is_again(stream, undisturbed)


def test_what_interrupted_writers_left_is_taken_out_once_it_is_old(stream: Stream) -> None:
    """A commit in progress is young. Shown to fail by an age of nought."""
    table = Path(stream.lake.table_uri(Readings))
    left = [table / "_delta_log" / f"{99:020}.json#1", stream.data_files(Readings)[0].parent / "begun.parquet"]
    for path in left:
        path.touch()
    now = left[0].stat().st_mtime
    clock = stream.clock
    clock.instant = EPOCH + timedelta(seconds=now + 60)
    assert examine(stream.settings, clock).is_healthy
    clock.instant = EPOCH + timedelta(seconds=now, days=4)
    assert {finding.place for finding in examine(stream.settings, clock).findings} == {str(path) for path in left}
    assert repair(stream.settings, clock).is_healthy


def test_what_a_compaction_merged_away_is_nothing_left_over(stream: Stream) -> None:
    compact(stream.lake)
    clock = stream.clock
    clock.instant = START + timedelta(days=400)
    assert examine(stream.settings, clock).is_healthy


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


@pytest.mark.parametrize("schema", TABLES_IN_DANGER)
def test_a_table_whose_first_commit_is_torn_is_told_again_what_it_is(stream: Stream, undisturbed: Stream, schema) -> None:
    """Shown to fail by an empty commit in its place: Delta opens no table that does not say what its columns are."""
    stream.log(schema, 0).write_bytes(b"")
    mended(stream)
    assert is_again(stream, undisturbed)


def test_a_file_that_another_process_holds_is_not_called_damaged(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown to fail by taking every error of SQLite for damage: a repair moved the inbox away under its writer."""
    monkeypatch.setattr("pipeline.doctor.state.BUSY_TIMEOUT_S", 0.05)
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


def test_a_table_that_is_gone_is_made_again(stream: Stream, undisturbed: Stream) -> None:
    shutil.rmtree(stream.lake.table_uri(Observations))
    assert kinds(examine(stream.settings, stream.clock)) == {"missing_table"}
    mended(stream)
    assert is_again(stream, undisturbed)
    assert pl.DataFrame(stream.lake.open(Observations).get_add_actions()).height > 0
