"""What maintenance promises: fewer files, the same rows, and nothing deleted that somebody may still read."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from deltalake import write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from pipeline.errors import StoreError
from pipeline.schemas import Observations, Quarantine
from pipeline.store.lake import Lake, read
from pipeline.store.maintenance import MaintenanceReport, compact, vacuum
from pipeline.store.observations import write_observations
from pipeline.store.upkeep import merge_files

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def payload(text: str) -> pl.DataFrame:
    row = {"connector": "test", "position": text, "payload": b"", "error_code": "", "error_text": "", "received_at": NOON}
    return pl.DataFrame([{**row, "ingest_date": NOON.date()}])


def files(lake: Lake) -> int:
    return len(list(Path(lake.table_uri(Quarantine)).glob("ingest_date=*/*.parquet")))


def two_days_pass(lake: Lake) -> None:
    """Make every file two days old, and let the log forget the tombstones as it does after an hour."""
    lake.open(Quarantine).alter.set_table_properties({"delta.deletedFileRetentionDuration": "interval 0 seconds"})
    lake.open(Quarantine).create_checkpoint()
    for file in Path(lake.table_uri(Quarantine)).glob("ingest_date=*/*.parquet"):
        os.utime(file, (then := file.stat().st_mtime - 2 * 86_400, then))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(str(tmp_path / "lake"))
    made.create_all()
    for seq in range(1, 6):
        made.append(Quarantine, payload(str(seq)), app_id="s", seq=seq)
    return made


def test_compaction_makes_one_file_of_a_partition_and_changes_no_row(lake: Lake) -> None:
    before = read(lake.scan(Quarantine)).sort("position")
    report = compact(lake)
    assert (report.files_removed, report.files_added, report.tables) == (5, 1, {"quarantine": 5})
    assert len(lake.open(Quarantine).file_uris()) == 1
    assert read(lake.scan(Quarantine)).sort("position").equals(before)


def test_compaction_keeps_the_numbers_of_its_sources(lake: Lake) -> None:
    compact(lake)
    assert lake.last_seq(Quarantine, "s") == 5


def test_compaction_of_a_compact_lake_commits_nothing(lake: Lake) -> None:
    compact(lake)
    version = lake.version(Quarantine)
    assert compact(lake) == MaintenanceReport()
    assert lake.version(Quarantine) == version


def test_of_two_compactions_of_one_version_the_second_merges_nothing(lake: Lake) -> None:
    """Shown to fail by leaving out the look after the turn: delta-rs commits both, and every row is there twice."""
    first, second = lake.open(Quarantine), lake.open(Quarantine)
    place = lake.table_uri(Quarantine)
    assert [merge_files(place, handle) for handle in (first, second)] == [(5, 1), (0, 0)]
    assert read(lake.scan(Quarantine)).height == 5


def test_a_rewrite_of_a_day_and_a_compaction_of_it_exclude_each_other(lake: Lake) -> None:
    """The rewrite looks again. Delta's own doing: pinned, because a row would be there twice without it."""
    label = {"series_id": "a", "ts": NOON, "observed": True, "n_obs": 1, "revision": 1, "available_at": NOON, "event_date": NOON.date()}
    rows = Observations.conform(pl.DataFrame([{**label, "value": 1.0}]))
    write_observations(lake, rows, readings_version=1)
    write_observations(lake, rows.with_columns(ts=pl.col("ts") + timedelta(hours=1)), readings_version=2)
    before = lake.open(Observations)
    compact(lake)
    with pytest.raises(CommitFailedError):
        write_deltalake(before, rows, mode="overwrite", predicate="event_date = '2026-01-01'")
    assert read(lake.scan(Observations)).height == 2


def test_vacuum_keeps_what_an_older_version_reads_for_a_day(lake: Lake) -> None:
    """Shown to fail by a vacuum that sets a retention of its own, of 0 hours."""
    version = lake.version(Quarantine)
    compact(lake)
    assert vacuum(lake) == MaintenanceReport()
    assert read(lake.scan(Quarantine, version)).height == 5


def test_vacuum_deletes_what_left_the_table_a_day_ago_and_changes_no_row(lake: Lake) -> None:
    compact(lake)
    two_days_pass(lake)
    assert vacuum(lake) == MaintenanceReport(files_removed=5, tables={"quarantine": 5})
    assert files(lake) == 1
    assert read(lake.scan(Quarantine)).height == 5


def test_vacuum_leaves_files_of_a_commit_in_progress(lake: Lake) -> None:
    """No commit has named such a file yet. Shown to fail by a `KEPT_HOURS` of 0."""
    compact(lake)
    two_days_pass(lake)
    in_progress = Path(lake.table_uri(Quarantine), "ingest_date=2026-01-01", "in-progress.parquet")
    payload("6").write_parquet(in_progress)
    assert vacuum(lake).files_removed == 5
    assert in_progress.exists()


def test_delta_refuses_a_retention_that_would_delete_under_readers(lake: Lake) -> None:
    """`vacuum` takes no retention; whoever goes past it is refused, unless the refusal is switched off by name."""
    with pytest.raises(DeltaError, match="retention"):
        lake.open(Quarantine).vacuum(retention_hours=0, dry_run=False)


def test_report_is_one_line_and_json_ready(lake: Lake) -> None:
    report = compact(lake)
    assert str(report) == "5 files removed (quarantine 5), 1 written"
    assert report.to_dict() == {"files_removed": 5, "files_added": 1, "tables": {"quarantine": 5}}


def test_rewritten_table_is_compacted_too(lake: Lake) -> None:
    row = {"series_id": "a", "value": 1.0, "observed": True, "n_obs": 1, "revision": 1, "event_date": NOON.date()}
    for minute in range(3):
        label = NOON + timedelta(minutes=minute)
        write_observations(lake, Observations.conform(pl.DataFrame([{**row, "ts": label, "available_at": label}])), readings_version=minute)
    assert compact(lake).tables["observations"] == 3
    assert read(lake.scan(Observations)).height == 3


def test_lake_without_tables_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="Run `tidecast ingest` or `tidecast listen` first"):
        compact(Lake(str(tmp_path)))
