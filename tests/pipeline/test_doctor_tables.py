"""What the doctor promises of tables: it finds every damage to logs and files, and what comes again makes the tables what they were."""

import random
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from pipeline.doctor.doctor import examine, repair
from pipeline.doctor.hashes import record_hashes
from pipeline.schemas import EPOCH, Observations, Readings
from pipeline.store.maintenance import compact
from tests.damage import TABLES_IN_DANGER, copied, healthy, is_again, kinds, mended
from tests.streams import START, Stream


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Stream:
    return healthy(tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def stream(undisturbed: Stream, tmp_path: Path) -> Stream:
    return copied(undisturbed, tmp_path / "copy")


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


@pytest.mark.parametrize("schema", TABLES_IN_DANGER)
def test_a_table_whose_first_commit_is_torn_is_told_again_what_it_is(stream: Stream, undisturbed: Stream, schema) -> None:
    """Shown to fail by an empty commit in its place: Delta opens no table that does not say what its columns are."""
    stream.log(schema, 0).write_bytes(b"")
    mended(stream)
    assert is_again(stream, undisturbed)


def test_a_table_that_is_gone_is_made_again(stream: Stream, undisturbed: Stream) -> None:
    shutil.rmtree(stream.lake.table_uri(Observations))
    assert kinds(examine(stream.settings, stream.clock)) == {"missing_table"}
    mended(stream)
    assert is_again(stream, undisturbed)
    assert pl.DataFrame(stream.lake.open(Observations).get_add_actions()).height > 0
