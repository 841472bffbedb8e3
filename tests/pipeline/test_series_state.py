"""The state of a series follows from its row in the catalog and the clock, and from nothing that is stored beside."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from pipeline.clock import ReplayClock
from pipeline.errors import DataError
from pipeline.settings import ForecastSettings, IngestSettings, Settings, TrainSettings
from pipeline.store.catalog import SERIES_COLUMNS, Catalog
from pipeline.store.series import LISTED, list_series, retire_series
from pipeline.store.series_state import StateRules, is_retired, with_state

NOW = datetime(2026, 6, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
RULES = StateRules(idle_timeout=2 * HOUR, retire_after=90 * DAY, context_length=48)


def series(name="pump/heat", *, heard=NOW, span=10 * DAY, interval=HOUR, **columns):
    """One hourly series whose newest reading was measured and received at `heard`."""
    device_id, metric = name.split("/")
    row = {"series_id": name, "device_id": device_id, "metric": metric, "first_ts": heard - span, "last_ts": heard, "last_received": heard}
    row["sample_interval_us"] = None if interval is None else interval // timedelta(microseconds=1)
    return pl.DataFrame([row | columns], schema=SERIES_COLUMNS)


OTHER = series("fan/heat")


def state(row, rules=RULES, now=NOW):
    return with_state(pl.concat([row, OTHER]), now, rules)["state"][0]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (series(interval=None, span=timedelta(0)), "new"),
        (series(span=46 * HOUR), "warming"),
        (series(span=47 * HOUR), "active"),  # 48 readings
        (series(heard=NOW - 3 * HOUR), "active"),
        (series(heard=NOW - 3 * HOUR - HOUR / 60), "silent"),
        (series(heard=NOW - 3 * HOUR, interval=None), "silent"),
        (series(heard=NOW - 90 * DAY), "silent"),
        (series(heard=NOW - 91 * DAY), "retired"),
        (series(retired_at=NOW), "retired"),
        (series(heard=NOW - DAY, last_received=NOW), "active"),  # what counts is when it came
        (series(heard=NOW - DAY, last_received=None), "silent"),
    ],
)
def test_a_state_is_the_first_that_applies(row, expected):
    """Shown to fail by each of the rules left out in turn."""
    assert state(row) == expected


def test_without_a_declared_context_a_series_is_warming_for_four_weeks_or_672_ticks():
    rules = StateRules(2 * HOUR, None)
    assert [state(series(span=27 * DAY), rules), state(series(span=28 * DAY), rules)] == ["warming", "active"]
    assert state(series(span=3 * DAY, interval=HOUR / 12), rules) == "active"


def test_a_new_reading_brings_a_series_back_unless_somebody_had_retired_it():
    gone, back = series(heard=NOW - 100 * DAY), series(heard=NOW)
    assert [state(gone), state(back)] == ["retired", "active"]
    assert state(back.with_columns(retired_at=pl.lit(NOW - DAY).cast(SERIES_COLUMNS["retired_at"]))) == "retired"


def test_where_nothing_comes_any_more_no_series_retires_by_itself():
    """Shown to fail by counting silence up to now: a lake of imported history would be forecast no more."""
    both = pl.concat([series(), OTHER])
    assert both.select(is_retired(NOW + 1000 * DAY, 90 * DAY)).to_series().to_list() == [False, False]


def test_no_instant_after_now_says_anything():
    """Shown to fail by letting an arrival that a wrong clock noted retire all the others."""
    rows = pl.concat([series(), series("fan/heat", heard=NOW + 365 * DAY)])
    assert rows.select(is_retired(NOW, 90 * DAY)).to_series().to_list() == [False, False]
    assert state(series(retired_at=NOW + HOUR)) == "active"


@pytest.fixture
def settings(tmp_path):
    settings = Settings(
        lake=str(tmp_path),
        ingest=IngestSettings(idle_timeout=2 * HOUR),
        forecast=ForecastSettings(retire_after=90 * DAY),
        train=TrainSettings(context_length=48),
    )
    Catalog(settings.state_dir).upsert_series(pl.concat([series(), series("pump/flow", heard=NOW - 91 * DAY), OTHER]))
    return settings


def test_series_are_listed_by_pattern_and_state(settings):
    found = list_series(settings, ReplayClock(NOW))
    assert found.columns == list(LISTED)
    assert found.select("series_id", "state").rows() == [("fan/heat", "active"), ("pump/flow", "retired"), ("pump/heat", "active")]
    assert found["sample_interval"].to_list() == [HOUR] * 3
    assert list_series(settings, ReplayClock(NOW), patterns=["pump/*"], states=["active"])["series_id"].to_list() == ["pump/heat"]


def test_retired_series_are_those_that_are_listed_so(settings):
    assert retire_series(settings, ReplayClock(NOW), ["fan/*", "pump/heat"]) == ["fan/heat", "pump/heat"]
    retired = set(list_series(settings, ReplayClock(NOW), states=["retired"])["series_id"])
    assert Catalog(settings.state_dir).retired(NOW, 90 * DAY) == retired == {"fan/heat", "pump/flow", "pump/heat"}
    assert retire_series(settings, ReplayClock(NOW), ["pump/heat"], undo=True) == ["pump/heat"]
    assert Catalog(settings.state_dir).retired(NOW, 90 * DAY) == {"fan/heat", "pump/flow"}


def test_a_pattern_that_matches_nothing_retires_nothing(settings):
    with pytest.raises(DataError, match=r"requires series that match 'pomp/\*'; got none"):
        retire_series(settings, ReplayClock(NOW), ["fan/heat", "pomp/*"])
    assert Catalog(settings.state_dir).retired(NOW, None) == set()


def test_there_is_no_list_before_anything_was_ingested(tmp_path):
    with pytest.raises(DataError, match="requires a catalog"):
        list_series(Settings(lake=str(tmp_path / "none")), ReplayClock(NOW))
    assert not (tmp_path / "none").exists()
