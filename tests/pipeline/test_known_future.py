"""What becomes of plans in files: stamps may lie ahead, and each value counts from when it was announced."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from pipeline.clock import ReplayClock
from pipeline.ingest.ingest import IngestOptions
from pipeline.ingest.known_future import ingest_plans
from pipeline.schemas import Quarantine
from pipeline.settings import Settings
from pipeline.store.lake import Lake, read
from pipeline.store.plans import read_plans

NOW = datetime(2026, 1, 2, tzinfo=UTC)
DAY = timedelta(days=1)
TARIFFS = "series_id,ts,value\nsite/tariff,2026-01-01T00:00Z,0.3\nsite/tariff,2026-02-01T00:00Z,0.4\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(lake=str(tmp_path / "lake"))


def ingest(settings: Settings, text: str, now: datetime = NOW, **options: timedelta) -> tuple[dict[str, object], pl.DataFrame]:
    """Ingest a plan of this text; return the report and the table."""
    path = Path(settings.lake).parent / "plan.csv"
    path.write_text(text)
    report = ingest_plans(settings, [path], IngestOptions(is_plan=True, **options), ReplayClock(now))
    return report.to_dict(), read_plans(Lake(settings.lake)).sort("ts", "available_at")


def test_a_plan_without_instants_is_known_from_now_on(settings: Settings) -> None:
    report, plans = ingest(settings, TARIFFS)
    assert (report["read"], report["accepted"], report["quarantined"]) == (2, 2, 0)
    assert plans["available_at"].to_list() == [NOW, NOW]
    assert "1 values count as known only once their instant had passed" in str(report["notes"])


def test_a_plan_run_again_changes_nothing(settings: Settings) -> None:
    ingest(settings, TARIFFS)
    report, plans = ingest(settings, TARIFFS)
    assert (report["accepted"], report["duplicate"], len(plans)) == (0, 2, 2)


def test_what_was_known_ahead_was_known_then_and_never_after_now(settings: Settings) -> None:
    """Shown to fail by leaving out the bound at now: the value of February would be announced in the future."""
    _, plans = ingest(settings, TARIFFS, known_ahead=7 * DAY)
    assert plans["available_at"].to_list() == [datetime(2026, 1, 1, tzinfo=UTC) - 7 * DAY, NOW]


def test_a_column_of_announcements_counts(settings: Settings) -> None:
    text = "series_id,ts,value,available_at\nsite/tariff,2026-01-01T00:00Z,0.3,2025-12-01T00:00Z\n"
    report, plans = ingest(settings, text, known_ahead=DAY)
    assert plans["available_at"].to_list() == [datetime(2025, 12, 1, tzinfo=UTC)]
    assert report["notes"] == ()


def test_what_cannot_be_used_goes_to_quarantine_once(settings: Settings) -> None:
    """Shown to fail by looking for the same payloads in the partition of the day alone."""
    broken = TARIFFS + "site/tariff,2026-02-02T00:00Z,free\nsite/tariff,2300-01-01T00:00Z,1\n"
    for now in (NOW, NOW, NOW + DAY):
        report, _ = ingest(settings, broken, now)
    assert report["reasons"] == {"not_a_number": 1, "future_timestamp": 1}
    assert len(read(Lake(settings.lake).scan(Quarantine))) == 2
