"""What the plans table promises: announcements are kept as they were made, each once."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from pipeline.schemas import Plans
from pipeline.store.lake import Lake
from pipeline.store.plans import append_plans, read_plans

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def announced(value: float, available_at: datetime, ts: datetime = NOON) -> pl.DataFrame:
    row = {"series_id": "site/tariff", "ts": ts, "value": value, "available_at": available_at, "ingested_at": available_at}
    return Plans.conform(pl.DataFrame([row | {"event_date": ts.date()}]))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(str(tmp_path))
    made.create_all()
    return made


@pytest.mark.parametrize("is_assumed", [True, False])
def test_the_same_announcement_twice_is_stored_once(lake: Lake, is_assumed: bool) -> None:
    assert [append_plans(lake, announced(0.3, NOON - HOUR), is_assumed=is_assumed) for _ in range(2)] == [1, 0]


def test_a_revision_is_a_further_row(lake: Lake) -> None:
    counts = [
        append_plans(lake, announced(value, NOON - hours * HOUR), is_assumed=False) for value, hours in ((0.3, 9), (0.4, 5), (0.3, 2))
    ]
    assert counts == [1, 1, 1]
    assert read_plans(lake).sort("available_at")["value"].to_list() == [0.3, 0.4, 0.3]


def test_a_file_read_again_later_announces_nothing(lake: Lake) -> None:
    """Shown to fail by taking an assumed instant for the file's own."""
    append_plans(lake, announced(0.3, NOON - 9 * HOUR), is_assumed=True)
    append_plans(lake, announced(0.4, NOON - 8 * HOUR), is_assumed=True)
    assert append_plans(lake, announced(0.3, NOON - 7 * HOUR), is_assumed=True) == 0


def test_a_file_read_again_as_known_earlier_is_stored(lake: Lake) -> None:
    """Shown to fail by looking at the value alone: a plan first read too late could never be said to have been known."""
    append_plans(lake, announced(0.3, NOON + HOUR), is_assumed=True)
    assert append_plans(lake, announced(0.3, NOON - 24 * HOUR), is_assumed=True) == 1


def test_plans_are_read_by_series_and_instant(lake: Lake) -> None:
    for ts in (NOON, NOON + HOUR, NOON + 48 * HOUR):
        append_plans(lake, announced(0.3, NOON - HOUR, ts), is_assumed=False)
    assert read_plans(lake, series=["site/tariff"], start=NOON + HOUR, end=NOON + 2 * HOUR)["ts"].to_list() == [NOON + HOUR]
    assert read_plans(lake, series=["site/wind"]).is_empty()
