"""What a report on scores promises: means over the last period's targets, never of two metrics together."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from pipeline.errors import SettingsError
from pipeline.query.scores import query_scores
from pipeline.schemas import Scores
from pipeline.store.lake import Lake
from pipeline.store.scores import append_scores

END = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def score(series: str, ts: datetime, error: float, *, step: int = 1, inside: bool = True, version: str = "1") -> dict[str, object]:
    """Return a row of `Scores` with an hourly grid."""
    origin = ts - step * HOUR
    row = {"series_id": series, "origin": origin, "step": step, "ts": ts, "model_version": version, "actual": 1.0, "error": error}
    return {**row, "pinball": abs(error) / 2, "in_80": inside, "scored_at": ts, "origin_date": origin.date()}


@pytest.fixture
def lake(tmp_path: Path) -> str:
    """Two series of two metrics; one score is a day and an hour older than the newest."""
    made = Lake(str(tmp_path / "lake"))
    made.create_all()
    rows = [
        score("pump-1/flow", END, -3.0, inside=False, version="2"),
        score("pump-1/flow", END, 1.0, step=2),
        score("pump-1/heat", END - 23 * HOUR, 100.0),
        score("pump-1/flow", END - 24 * HOUR, 50.0),
    ]
    append_scores(made, Scores.conform(pl.DataFrame(rows)))
    return made.uri


def test_a_row_for_each_series_holds_the_means_of_the_last_day(lake: str) -> None:
    """Shown to fail by counting a target that is exactly a day older than the newest."""
    report = query_scores(lake)
    assert (report.start, report.end) == (END - 24 * HOUR, END)
    assert report.rows.columns == ["series_id", "scored", "mae", "bias", "pinball", "coverage"]
    assert report.rows.rows() == [("pump-1/flow", 2, 2.0, -1.0, 1.0, 0.5), ("pump-1/heat", 1, 100.0, 100.0, 50.0, 1.0)]


def test_leads_and_models_keep_metrics_apart(lake: str) -> None:
    """Shown to fail by grouping by the lead alone: kilowatts and degrees were averaged."""
    leads = query_scores(lake, by="lead").rows.select("metric", "lead", "mae").rows()
    assert leads == [("flow", HOUR, 3.0), ("flow", 2 * HOUR, 1.0), ("heat", HOUR, 100.0)]
    models = query_scores(lake, by="model", last=timedelta(days=9)).rows.select("metric", "model_version", "scored").rows()
    assert models == [("flow", "1", 2), ("flow", "2", 1), ("heat", "1", 1)]


def test_patterns_narrow_the_report_but_not_the_period(lake: str) -> None:
    report = query_scores(lake, series=["*/heat"], last=2 * HOUR)
    assert (report.rows.height, report.end) == (0, END)
    assert query_scores(lake, series=["*/heat"]).rows["series_id"].to_list() == ["pump-1/heat"]


def test_a_lake_without_scores_has_an_empty_report(tmp_path: Path) -> None:
    Lake(str(tmp_path)).create_all()
    assert query_scores(str(tmp_path)).to_dict() == {"start": None, "end": None, "rows": []}


def test_an_impossible_period_is_refused(lake: str) -> None:
    with pytest.raises(SettingsError, match="last > 0"):
        query_scores(lake, last=timedelta(0))
