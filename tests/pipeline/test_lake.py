"""What the lake promises: each batch applied once whatever is repeated or raced, damage told in one sentence."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StoreError
from pipeline.schemas import Forecasts, Quarantine, Readings
from pipeline.store.commits import append_through
from pipeline.store.lake import MAX_ATTEMPTS, Lake, read

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def payloads(*texts: str) -> pl.DataFrame:
    return pl.DataFrame({"payload": [text.encode() for text in texts], "position": texts}).with_columns(
        connector=pl.lit("test"),
        error_code=pl.lit("garbage"),
        error_text=pl.lit(""),
        received_at=pl.lit(NOON),
        ingest_date=pl.lit(NOON.date()),
    )


def stored(lake: Lake) -> list[str]:
    return sorted(read(lake.scan(Quarantine))["position"])


def data_files(lake: Lake) -> list[Path]:
    return sorted(Path(lake.table_uri(Quarantine)).rglob("*.parquet"))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(str(tmp_path / "data" / "lake"))
    made.create_all()
    return made


def test_creating_again_changes_nothing(lake: Lake) -> None:
    lake.append(Quarantine, payloads("a"), app_id="s", seq=1)
    lake.create_all()
    assert lake.exists()
    assert lake.version(Quarantine) == 1


def test_missing_table_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"requires the table forecasts; got .* Run `tidecast ingest` or `tidecast listen` first"):
        Lake(str(tmp_path)).open(Forecasts)
    assert not Lake(str(tmp_path)).exists()
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=10, deadline=None)
@given(deliveries=st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 4)), max_size=8))
def test_each_number_of_a_source_is_applied_once_and_numbers_only_rise(tmp_path_factory, deliveries) -> None:
    """Shown to fail by leaving out the look at the last number, and by comparing it with `>` instead of `>=`."""
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    lake.create_all()
    last: dict[str, int] = {}
    expected = []
    for app_id, seq in deliveries:
        is_new = seq > last.get(app_id, 0)
        assert lake.append(Quarantine, payloads(f"{app_id}{seq}"), app_id=app_id, seq=seq) == is_new
        expected += [f"{app_id}{seq}"] * is_new
        last[app_id] = max(seq, last.get(app_id, 0))
    assert stored(lake) == sorted(expected)
    assert [lake.last_seq(Quarantine, name) for name in "ab"] == [last.get(name) for name in "ab"]


def test_empty_batch_records_its_number(lake: Lake) -> None:
    assert lake.append(Quarantine, payloads(), app_id="s", seq=7)
    assert lake.last_seq(Quarantine, "s") == 7


def test_number_outlives_checkpoints(lake: Lake) -> None:
    for seq in range(1, 22):  # the 20th commit writes a checkpoint
        lake.append(Quarantine, payloads(str(seq)), app_id="s", seq=seq)
    assert Path(lake.table_uri(Quarantine), "_delta_log", "_last_checkpoint").exists()
    assert not lake.append(Quarantine, payloads("again"), app_id="s", seq=21)


def test_commit_of_the_same_source_since_the_look_is_a_conflict(lake: Lake) -> None:
    """Shown to fail by writing through the table's path in place of the handle: the batch is then there twice."""
    handle = lake.open(Quarantine)
    lake.append(Quarantine, payloads("a"), app_id="s", seq=1)
    with pytest.raises(CommitFailedError):
        append_through(handle, Quarantine.conform(payloads("a")), app_id="s", seq=1)
    append_through(handle, Quarantine.conform(payloads("b")), app_id="other", seq=1)
    assert stored(lake) == ["a", "b"]


def test_loser_of_a_race_looks_again_through_a_fresh_handle(lake: Lake) -> None:
    seen = []

    def attempt(handle: DeltaTable) -> int:
        seen.append(handle.transaction_version("s"))
        if len(seen) == 1:  # a rival commits between the look and the write
            lake.append(Quarantine, payloads("rival"), app_id="s", seq=1)
        append_through(handle, Quarantine.conform(payloads("mine")), app_id="s", seq=2)
        return len(seen)

    assert lake.commit(Quarantine, attempt) == 2
    assert seen == [None, 1]
    assert stored(lake) == ["mine", "rival"]


def test_conflicts_without_end_are_told(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts, pauses = [], []
    monkeypatch.setattr("pipeline.store.lake.time.sleep", pauses.append)

    def attempt(handle: DeltaTable) -> None:
        attempts.append(handle.version())
        lake.append(Quarantine, payloads("rival"), app_id="s", seq=len(attempts))
        append_through(handle, Quarantine.conform(payloads("mine")), app_id="s", seq=99)

    with pytest.raises(StoreError, match="within 10 attempts"):
        lake.commit(Quarantine, attempt)
    assert len(attempts) == MAX_ATTEMPTS
    assert len(pauses) == MAX_ATTEMPTS - 1  # none behind the last one
    assert "mine" not in stored(lake)


def test_what_the_file_system_refuses_is_told_in_one_line_that_promises_nothing(lake: Lake) -> None:
    """Shown to fail by passing it on: for a folder that is read-only, delta-rs 1.6 raises an `OSError` of many lines with colours.

    And by saying that nothing was written: here the commit is in the log before delta-rs fails, as it may in what it does after one.
    """

    def refused(handle: DeltaTable) -> None:
        append_through(handle, Quarantine.conform(payloads("mine")), app_id="s", seq=1)
        raise OSError("Generic LocalFileSystem error\n  \x1b[31m↳\x1b[0m Permission denied (os error 13)\n")

    with pytest.raises(StoreError, match=r"got Generic LocalFileSystem error Permission denied \(os error 13\)\. Mend that, then run"):
        lake.commit(Quarantine, refused)
    assert not lake.append(Quarantine, payloads("mine"), app_id="s", seq=1)
    assert stored(lake) == ["mine"]


def test_rows_of_a_file_are_sorted_by_key(lake: Lake) -> None:
    lake.append(Quarantine, payloads("c", "a", "b"), app_id="s", seq=1)
    (file,) = data_files(lake)
    assert pl.read_parquet(file)["position"].to_list() == ["a", "b", "c"]


def test_scan_keeps_to_the_version_it_was_made_at(lake: Lake) -> None:
    before = lake.scan(Quarantine)
    lake.append(Quarantine, payloads("a"), app_id="s", seq=1)
    assert read(before).is_empty()
    assert read(lake.scan(Quarantine)).height == 1
    assert read(lake.scan(Quarantine, version=0)).is_empty()


def test_instants_within_a_millisecond_are_found(lake: Lake) -> None:
    """Delta's statistics stop at the millisecond; a reader that trusts their maximum would skip the file."""
    late = NOON + timedelta(microseconds=700)
    lake.append(Quarantine, payloads("a").with_columns(received_at=pl.lit(late)), app_id="s", seq=1)
    assert read(lake.scan(Quarantine).filter(pl.col("received_at") >= late)).height == 1


@pytest.mark.parametrize("kept", [0, 400])
def test_torn_data_file_is_a_store_error(lake: Lake, kept: int) -> None:
    """Shown to fail by `except Exception`: the panic of the Parquet reader is none."""
    lake.append(Quarantine, payloads("a"), app_id="s", seq=1)
    (file,) = data_files(lake)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(StoreError, match="requires whole Parquet files"):
        read(lake.scan(Quarantine))


def test_missing_data_file_is_a_store_error(lake: Lake) -> None:
    lake.append(Quarantine, payloads("a"), app_id="s", seq=1)
    data_files(lake)[0].unlink()
    with pytest.raises(StoreError, match="requires whole Parquet files"):
        read(lake.scan(Quarantine))


def test_torn_log_is_a_store_error(lake: Lake) -> None:
    lake.append(Quarantine, payloads("a"), app_id="s", seq=1)
    Path(lake.table_uri(Quarantine), "_delta_log", f"{1:020}.json").write_text('{"add":{"pa')
    with pytest.raises(StoreError, match="requires a readable log for its newest version"):
        lake.open(Quarantine)


def test_object_store_is_named_by_the_uri_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    remote = Lake("s3://bucket/lake/")
    assert remote.table_uri(Readings) == "s3://bucket/lake/readings"
    assert remote.storage_options["AWS_REGION"] == "eu-central-1"
    assert Lake("data/lake").storage_options is None


@pytest.mark.parametrize("folder", ["with space", "größe", "a#b"])
def test_a_folder_with_unusual_letters_is_read_as_any_other(tmp_path: Path, folder: str) -> None:
    lake = Lake(str(tmp_path / folder))
    lake.create_all()
    lake.append(Quarantine, payloads("a", "b"), app_id="s", seq=1)
    assert stored(lake) == ["a", "b"]
    assert read(lake.scan(Quarantine)).schema == Quarantine.polars()
