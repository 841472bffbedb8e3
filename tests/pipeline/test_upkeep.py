"""What a table does for itself: it stays small and its log short, whatever the number of commits, and no row changes."""

import fcntl
import threading
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from pipeline.errors import StoreError
from pipeline.schemas import Quarantine
from pipeline.store.lake import Lake, read
from pipeline.store.upkeep import TURN, trim_log

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def payload(seq: int) -> pl.DataFrame:
    row = {"connector": "test", "position": f"{seq:04}", "payload": b"", "error_code": "", "error_text": "", "received_at": NOON}
    return pl.DataFrame([{**row, "ingest_date": NOON.date()}])


def append(lake: Lake, first: int, last: int) -> None:
    for seq in range(first, last + 1):
        lake.append(Quarantine, payload(seq), app_id="s", seq=seq)


def log_of(lake: Lake) -> Path:
    return Path(lake.table_uri(Quarantine), "_delta_log")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(str(tmp_path / "lake"))
    made.create_all()
    return made


def test_files_and_log_stay_few_whatever_the_number_of_commits(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown to fail by leaving out the call of `tidy`, and by leaving out either of its steps."""
    monkeypatch.setattr("pipeline.store.lake.EVERY", 10)
    monkeypatch.setattr("pipeline.store.upkeep.KEPT_VERSIONS", 20)
    append(lake, 1, 90)
    assert read(lake.scan(Quarantine))["position"].sort().to_list() == [f"{seq:04}" for seq in range(1, 91)]
    assert len(lake.open(Quarantine).file_uris()) <= 10
    assert len(list(log_of(lake).glob("*.json"))) <= 20 + 20 + 10  # kept, to the checkpoint before, and since the last tidying


def test_a_commit_stands_where_tidying_fails(lake: Lake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A torn file in the way of the merge. Shown to fail by letting the error through."""
    monkeypatch.setattr("pipeline.store.lake.EVERY", 3)
    append(lake, 1, 2)
    Path(lake.open(Quarantine).file_uris()[0]).write_bytes(b"torn")
    append(lake, 3, 3)
    assert lake.last_seq(Quarantine, "s") == 3
    assert "table not tidied" in caplog.text


def test_no_commit_waits_for_another_process_that_merges(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown to fail by waiting for the turn: a process that was stopped in it held up every writer of the table, for ever."""
    monkeypatch.setattr("pipeline.store.lake.EVERY", 3)
    with Path(lake.table_uri(Quarantine), TURN).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        writer = threading.Thread(target=append, args=(lake, 1, 4), daemon=True)
        writer.start()
        writer.join(timeout=30)
        assert not writer.is_alive()
    assert len(lake.open(Quarantine).file_uris()) == 4


def test_a_trimmed_log_reads_from_the_checkpoint_that_was_kept(lake: Lake) -> None:
    append(lake, 1, 65)  # checkpoints at 19, 39 and 59
    newest = read(lake.scan(Quarantine))
    kept = min(int(path.name[:20]) for path in log_of(lake).glob("*.checkpoint.parquet") if int(path.name[:20]) >= 30)
    assert trim_log(log_of(lake), kept + 5) > kept
    assert read(lake.scan(Quarantine)).sort("position").equals(newest.sort("position"))
    assert read(lake.scan(Quarantine, kept)).height == kept
    with pytest.raises(StoreError, match="requires a version that its log still holds"):
        lake.open(Quarantine, kept - 1)


def test_a_log_without_an_old_checkpoint_is_left_whole(lake: Lake) -> None:
    append(lake, 1, 5)
    assert trim_log(log_of(lake), 5) == 0
