"""Commits of the lake are on disk when they return. What that is good for is shown by `tests/faults/test_quick_power.py`."""

from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

import polars as pl
import pytest

from pipeline.errors import StoreError
from pipeline.schemas import Readings
from pipeline.store.lake import Lake, read
from pipeline.store.maintenance import compact
from tests.streams import Stream

SYNC = "pipeline.store.durable.sync"


def synced_by(write) -> set[Path]:
    """Return what is synced while something is done."""
    with patch(SYNC) as sync:
        write()
    return {call.args[0] for call in sync.call_args_list}


@pytest.fixture
def stream(tmp_path: Path) -> Stream:
    stream = Stream(tmp_path)
    stream.send(1, 20)
    stream.drain()
    return stream


def test_a_commit_is_on_disk_with_its_files_and_their_names(stream):
    """Shown to fail by leaving out any of the five."""
    tomorrow = pl.col("ingest_date") + timedelta(days=1)
    row = read(stream.lake.scan(Readings)).head(1).with_columns(ingest_date=tomorrow)
    before = set(stream.data_files(Readings))
    synced = synced_by(lambda: stream.lake.append(Readings, row, app_id="test", seq=1))
    (file,) = set(stream.data_files(Readings)) - before
    log = stream.log(Readings)
    assert synced == {file, file.parent, file.parent.parent, log, log.parent}


def test_what_a_compaction_wrote_is_on_disk(stream):
    before = set(stream.data_files(Readings))
    synced = synced_by(lambda: compact(stream.lake))
    assert set(stream.data_files(Readings)) - before <= synced
    assert stream.log(Readings) in synced


def test_a_checkpoint_is_on_disk_before_the_log_before_it_may_be_cut(stream):
    """Shown to fail by syncing commits alone."""
    synced: set[Path] = set()
    while not (hint := stream.log(Readings).with_name("_last_checkpoint")).exists():
        stream.send(1, 20)
        synced = synced_by(stream.drain)
    assert {hint, *hint.parent.glob("*.checkpoint.parquet")} <= synced


def test_a_disk_that_refuses_is_said_in_one_sentence(stream):
    stream.send(21, 30)
    with patch(SYNC, side_effect=OSError(5, "Input/output error")), pytest.raises(StoreError, match="requires a disk that keeps what"):
        stream.drain()


def test_a_table_that_is_not_on_disk_is_not_there(tmp_path):
    """Shown to fail by making the table in its place: a torn first commit leaves nothing that could be repaired."""
    lake = Lake(str(tmp_path / "lake"))
    with patch(SYNC, side_effect=OSError(5, "Input/output error")), pytest.raises(StoreError, match="requires a place that can be written"):
        lake.create_all()
    assert list((tmp_path / "lake").iterdir()) == []
    lake.create_all()
    assert lake.exists()
