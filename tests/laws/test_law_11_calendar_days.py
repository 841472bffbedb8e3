"""Law 11: on the days when the clocks change, on leap days and at the edges of ticks, a tick is an hour like any other."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from pipeline.ingest.timestamps import StampRules, parse_stamps
from pipeline.store.lake import Lake
from pipeline.store.observations import read_observations
from tests.arrivals import MINUTE, arrive, new_lake, regularised, stored, with_grid

HOUR = timedelta(hours=1)
QUARTER = 15 * MINUTE
DAYS = [
    ("Europe/Berlin", date(2026, 3, 29), 23),
    ("Europe/Berlin", date(2026, 10, 25), 25),
    ("America/New_York", date(2026, 3, 8), 23),
    ("America/New_York", date(2026, 11, 1), 25),
    ("Europe/Berlin", date(2028, 2, 29), 24),
]


def midnight(zone: str, day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)).astimezone(UTC)


def quarters(zone: str, day: date) -> list[datetime]:
    """Every quarter of an hour that the local day has, as instants, its midnight left out and the next one in."""
    first, last = midnight(zone, day), midnight(zone, day + timedelta(days=1))
    return [first + k * QUARTER for k in range(1, (last - first) // QUARTER + 1)]


@pytest.mark.parametrize(("zone", "day", "hours"), DAYS)
def test_each_hour_of_a_local_day_is_one_full_tick(tmp_path, zone, day, hours):
    """No hour is missing, doubled or half full, whatever the local clock did.

    Shown to fail by computing ticks from the wall clock (`replace_time_zone` in place of the instant): 25-hour days lose an hour.
    """
    lake = new_lake(tmp_path)
    with_grid(lake, HOUR, "sum", "s")
    arrive(lake, [("s", instant, 1.0, instant) for instant in quarters(zone, day)])
    regularised(lake)
    table = stored(lake)
    assert table["ts"].to_list() == [midnight(zone, day) + (k + 1) * HOUR for k in range(hours)]
    assert table["value"].to_list() == [4.0] * hours


@pytest.mark.parametrize(("zone", "day"), [("Europe/Berlin", date(2026, 3, 29)), ("America/New_York", date(2026, 3, 8))])
def test_naive_local_stamps_of_a_short_day_leave_no_gap(tmp_path, zone, day):
    """Naive stamps as a logger on local time writes them, converted as ingest does; the hour that does not exist is no gap.

    Shown to fail by reading the stamps as UTC: the skipped local hour becomes a tick without readings.
    """
    texts = [instant.astimezone(ZoneInfo(zone)).replace(tzinfo=None).isoformat(sep=" ") for instant in quarters(zone, day)]
    instants = parse_stamps(pl.Series("ts", texts), StampRules(zone, None))["stamp"].to_list()
    lake = new_lake(tmp_path)
    arrive(lake, [("s", instant, 1.0, instant) for instant in instants])
    regularised(lake)
    assert stored(lake)["ts"].to_list() == quarters(zone, day)
    assert stored(lake)["observed"].all()


def test_a_daily_series_at_local_midnight_has_one_observation_a_day_all_year(tmp_path):
    """Local midnight is 22:00 or 23:00 UTC: each label of the daily grid still holds exactly one reading.

    Shown to fail by giving the grid the offset of its first stamp: the day of the change holds two readings, or none.
    """
    lake = new_lake(tmp_path)
    stamps = [midnight("Europe/Berlin", date(2028, 1, 1) + timedelta(days=k)) for k in range(366)]
    arrive(lake, [("s", stamp, float(k), stamp) for k, stamp in enumerate(stamps)])
    regularised(lake)
    assert stored(lake).select("value", "n_obs").rows() == [(float(k), 1) for k in range(366)]


def test_a_reading_does_not_influence_what_was_known_before_it(tmp_path_factory):
    """A reading at 00:59 is in the tick labelled 01:00, and nothing of that tick is known at 00:30, nor at 00:59 itself.

    Shown to fail by labelling ticks with their left edge: the tick labelled 00:00, available soon after it, holds the reading of 00:59.
    """
    day = datetime(2026, 1, 1, tzinfo=UTC)
    earlier = [("s", day - k * QUARTER, 1.0, day - k * QUARTER) for k in range(12)] + [("s", day + QUARTER, 1.0, day + QUARTER)]
    views = []
    for readings in (earlier, [*earlier, ("s", day + 59 * MINUTE, 99.0, day + 59 * MINUTE)]):
        lake = new_lake(tmp_path_factory.mktemp("lake"))
        with_grid(lake, HOUR, "mean", "s")
        arrive(lake, readings)
        regularised(lake)
        views.append([read_observations(Lake(lake.lake), as_of=day + m * MINUTE).rows() for m in (30, 59, 61)])
    assert views[0] == views[1]
    assert stored(lake)["ts"].max() == day + HOUR
