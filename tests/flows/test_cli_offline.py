"""`tidecast fill` writes a report of a lake and leaves the lake as it was."""

import json
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from flows.cli import app
from pipeline.errors import SettingsError
from pipeline.store.lake import Lake
from pipeline.store.observations import read_observations
from tests.lakes import TestLake, hourly_readings


def test_fill_writes_a_report_and_says_what_it_filled(tmp_path: Path) -> None:
    """Shown to fail by counting the ticks left open among the filled ones."""
    lake = TestLake.at(tmp_path)
    lake.ingest(hourly_readings(200).filter(~pl.col("seq").is_between(80, 84), ~pl.col("seq").is_between(120, 139)))
    before = read_observations(Lake(lake.settings.lake))
    report = tmp_path / "report.parquet"
    arguments = ["fill", str(report), "--series", "north/*", "--steps", "2", "--longest-gap", "12", "--json", "--lake", lake.settings.lake]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert json.loads(done.stdout) == {"file": str(report), "series": 1, "filled": 5, "left_open": 20}
    frame = pl.read_parquet(report)
    assert frame.columns == ["series_id", "ts", "value", "observed", "knowledge_time"]
    assert frame["value"].null_count() == 20
    assert read_observations(Lake(lake.settings.lake)).equals(before)


@pytest.mark.parametrize("name", ["report.txt", "nowhere/report.csv"])
def test_a_report_that_cannot_be_written_is_refused_before_the_lake_is_looked_at(name: str, tmp_path: Path) -> None:
    """Shown to fail by asking after the training: a minute is lost."""
    with pytest.raises(SettingsError, match="An export requires"):
        CliRunner().invoke(app, ["fill", str(tmp_path / name), "--lake", str(tmp_path / "none")], catch_exceptions=False)
