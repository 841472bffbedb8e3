"""What the doctor does about damage to what is derived: forecasts are never made again, scores are, snapshots are rebuilt."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from pipeline.clock import ReplayClock
from pipeline.doctor.doctor import examine, repair
from pipeline.doctor.hashes import record_hashes
from pipeline.schemas import Forecasts, Scores
from pipeline.settings import Settings
from pipeline.store.catalog import Catalog
from pipeline.store.forecasts import append_forecasts
from pipeline.store.lake import Lake
from pipeline.store.scores import append_scores
from pipeline.store.snapshot_pointers import SnapshotPointer, SnapshotPointers

MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)
CLOCK = ReplayClock(MIDNIGHT + timedelta(days=3))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(lake=str(tmp_path / "lake"))
    Lake(made.lake).create_all()
    return made


def issued(hour: int) -> pl.DataFrame:
    row = {"series_id": "a", "origin": MIDNIGHT + timedelta(hours=hour), "horizon": 2, "sample_interval_us": 3_600_000_000, "status": "ok"}
    made = {"quantile_levels": [0.5], "quantiles": [1.0, 2.0], "model_version": "1", "input_version": 1, "created_at": MIDNIGHT}
    return Forecasts.conform(pl.DataFrame([{**row, **made, "origin_date": MIDNIGHT.date()}]))


def scored(hour: int) -> pl.DataFrame:
    row = {"series_id": "a", "origin": MIDNIGHT + timedelta(hours=hour), "step": 1, "ts": MIDNIGHT, "model_version": "1", "actual": 1.0}
    return Scores.conform(
        pl.DataFrame([{**row, "error": 0.0, "pinball": 0.0, "in_80": True, "scored_at": MIDNIGHT, "origin_date": MIDNIGHT.date()}])
    )


def newest_file(lake: Lake, schema: type[Forecasts | Scores]) -> Path:
    return max((Path(uri) for uri in lake.open(schema).file_uris()), key=lambda file: file.stat().st_mtime_ns)


def test_origins_of_lost_forecasts_are_named(settings: Settings) -> None:
    lake = Lake(settings.lake)
    for hour in (3, 4):
        append_forecasts(lake, issued(hour))
    newest_file(lake, Forecasts).unlink()
    report = repair(settings, CLOCK)
    assert report.is_healthy
    said = " ".join(report.actions)
    assert "took 1 files with 1 rows out of forecasts, origin 2026-03-02 04:00:00" in said
    assert "issued forecasts are never made again" in said


def test_lost_scores_are_looked_for_anew(settings: Settings) -> None:
    """Shown to fail by leaving the marks in the catalog: the scorer would go on behind them."""
    lake, catalog = Lake(settings.lake), Catalog(settings.state_dir)
    append_scores(lake, scored(3))
    for mark in ("scores/observations", "scores/forecasts", "regularise/readings"):
        catalog.set_position(mark, 1)
    newest_file(lake, Scores).write_bytes(b"")
    assert repair(settings, CLOCK).is_healthy
    assert [catalog.position(mark) for mark in ("scores/observations", "scores/forecasts", "regularise/readings")] == [None, None, 1]


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-8]), lambda path: path.write_bytes(b"")])
def test_a_damaged_snapshot_is_forgotten(settings: Settings, damage) -> None:
    path = settings.state_dir / "snapshots" / "model-1-observations-0.safetensors"
    path.parent.mkdir(parents=True)
    save_file({"tick_B": np.zeros(3)}, path, metadata={"model_version": "1"})
    SnapshotPointers(settings.state_dir).set(SnapshotPointer("1", path.name, 0))
    assert examine(settings, CLOCK).is_healthy
    damage(path)
    assert [finding.kind for finding in examine(settings, CLOCK).findings] == ["lost_snapshot"]
    assert repair(settings, CLOCK).is_healthy
    assert SnapshotPointers(settings.state_dir).of("1") is None


def test_a_snapshot_that_has_read_what_the_observations_never_had_is_forgotten(settings: Settings) -> None:
    path = settings.state_dir / "snapshots" / "model-1-observations-9.safetensors"
    path.parent.mkdir(parents=True)
    save_file({"tick_B": np.zeros(3)}, path, metadata={"model_version": "1"})
    SnapshotPointers(settings.state_dir).set(SnapshotPointer("1", path.name, 9))
    (finding,) = examine(settings, CLOCK).findings
    assert "it has read version 9 of the observations, which have only 0" in finding.seen


def test_hashes_are_recorded_once_for_each_file_and_forgotten_with_it(settings: Settings) -> None:
    lake = Lake(settings.lake)
    for hour in (3, 4):
        append_forecasts(lake, issued(hour))
    assert [(r.files, r.forgotten) for r in (record_hashes(lake, settings.state_dir) for _ in range(2))] == [(2, 0), (0, 0)]
    lake.open(Forecasts).optimize.compact()
    report = record_hashes(lake, settings.state_dir)
    assert (report.files, report.forgotten) == (1, 2)
