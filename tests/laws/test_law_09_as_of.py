"""Law 9: what was known at an earlier instant is never changed by late or revised readings, by later forecasts or by later models.

First where readings become observations, then in what a query says of a forecast, its inputs and what came true. A row with observed
False says no more than an absent one, so what was known is the observed rows.
"""

import shutil
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from pipeline.forecast.rolling import forecast
from pipeline.query.frames import query_forecasts
from pipeline.query.inputs import FORECAST, INPUT, query_inputs
from pipeline.schemas import Observations
from pipeline.settings import Settings
from pipeline.store.lake import Lake, read
from pipeline.store.maintenance import compact
from pipeline.store.observations import read_observations
from tests.arrivals import LATENESS, MINUTE, Arrival, arrive, new_lake, regularised, with_grid
from tests.lakes import HOUR, TestLake, hourly_readings, random_weights
from tests.lakes import START as FIRST

START = datetime(2026, 1, 1, tzinfo=UTC)
GRID = 5 * MINUTE
SERIES = ("a", "b")

arrivals = st.lists(
    st.builds(
        lambda series, minute, value, delay: (series, START + minute * MINUTE, value, START + (minute + delay) * MINUTE),
        st.sampled_from(SERIES),
        st.integers(0, 20),
        st.floats(-1e3, 1e3),
        st.sampled_from([0, 1, 2, 3, 8, 20]),
    ),
    min_size=12,
    max_size=25,
)


def lake_of(folder: pytest.TempPathFactory, aggregation: str, readings: list[Arrival], at: datetime) -> Settings:
    """A lake that took these readings in and was regularised at an instant."""
    lake = new_lake(folder.mktemp("lake"))
    with_grid(lake, GRID, aggregation, *SERIES)
    arrive(lake, readings)
    regularised(lake, at)
    return lake


def known(lake: Settings, **how: datetime | timedelta | None) -> pl.DataFrame:
    return read_observations(Lake(lake.lake), **how).filter("observed")


@pytest.mark.parametrize("aggregation", ["mean", "counter"])
@settings(max_examples=8, deadline=None)
@given(readings=arrivals, minute=st.integers(5, 30))
def test_what_was_known_then_is_what_a_lake_of_that_time_would_say(tmp_path_factory, aggregation, readings, minute):
    """Replay: reading as of an instant equals regularising, at that instant, only what had been received by then.

    Shown to fail by giving a first revision the label as its `available_at`; by counting a late reading of a tick that already has
    readings in its first revision; and by leaving out the revision that a counter's next tick gets.
    """
    now = START + minute * MINUTE
    later = lake_of(tmp_path_factory, aggregation, readings, START + 99 * MINUTE)
    then = lake_of(tmp_path_factory, aggregation, [reading for reading in readings if reading[3] <= now], now)
    assert_frame_equal(known(later, as_of=now), known(then), check_exact=True)


@settings(max_examples=8, deadline=None)
@given(readings=arrivals, minute=st.integers(10, 30), more=arrivals)
def test_readings_received_later_change_nothing_that_was_known(tmp_path_factory, readings, minute, more):
    """The same table, before and after late readings and corrections, in the as-of and in the on-time view.

    Shown to fail by overwriting the value of revision 1 instead of adding a revision.
    """
    now = START + minute * MINUTE
    lake = lake_of(tmp_path_factory, "mean", [reading for reading in readings if reading[3] <= now], START + 99 * MINUTE)
    closed = pl.col("ts") + LATENESS <= now
    before, on_time = known(lake, as_of=now), known(lake, on_time=LATENESS).filter(closed)
    arrive(lake, [(series, ts, value, max(received, now + MINUTE)) for series, ts, value, received in more])
    regularised(lake, START + 99 * MINUTE)
    assert_frame_equal(known(lake, as_of=now), before, check_exact=True)
    assert_frame_equal(known(lake, on_time=LATENESS).filter(closed), on_time, check_exact=True)


NORTH = "north/temperature"
TARGET = FIRST + 64 * HOUR


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> dict[datetime, str]:
    """A lake as it was at five instants: each a copy, so with other times on its files; the last one has seen all and was compacted.

    Hour by hour a fleet is read in and forecast. At 62 h corrections of 57 h come; at 64 h another model serves, and catches up from 62 h.
    """
    folder = tmp_path_factory.mktemp("past")
    lake, copies, readings = TestLake.at(folder), {}, hourly_readings(70)
    late = readings.filter(pl.col("ts") == FIRST + 57 * HOUR).with_columns(
        pl.col("value") + 5, pl.col("seq") + 1000, received_at=FIRST + 61.5 * HOUR
    )
    lake.register(random_weights(0))
    for hour in (60, 61, 62, 63, 64):
        lake.clock.instant = FIRST + hour * HOUR + 2 * MINUTE
        due = pl.col("ts").is_between(FIRST + (hour - 1) * HOUR, FIRST + hour * HOUR, closed="right")
        lake.ingest(readings.filter(due if hour > 60 else pl.col("ts") <= FIRST + 60 * HOUR))
        if hour == 62:
            lake.ingest(late)
        if hour == 64:
            lake.register(random_weights(1))
        forecast(lake.settings, lake.clock, origins=3 if hour == 64 else 1)
        copies[lake.clock.now()] = str(shutil.copytree(lake.settings.lake, folder / f"at-{hour}"))
    compact(Lake(copies[lake.clock.now()]))  # rows of one file were made at different instants
    return copies


@pytest.mark.parametrize("latest", [True, False])
def test_what_was_said_of_an_instant_is_what_a_lake_of_that_time_says(past: dict[datetime, str], latest: bool) -> None:
    """Shown to fail by taking `as_of` for a bound of the origin, by asking the newest model only, and by reading the last actuals."""
    *_, now = past.values()
    for at in (TARGET, FIRST + 62 * HOUR, FIRST + 57 * HOUR):
        for instant, then in past.items():
            said = query_forecasts(now, at=at, as_of=instant, latest=latest, with_actuals=True)
            assert_frame_equal(said, query_forecasts(then, at=at, latest=latest, with_actuals=True), check_exact=True)
    assert query_forecasts(now, series=[NORTH], at=TARGET, latest=False)["step"].to_list() == [4, 3, 2, 2, 1, 1]
    last = query_forecasts(now, series=[NORTH], at=TARGET + HOUR, latest=False)
    assert last["model_version"].n_unique() == 2


def test_the_inputs_of_a_forecast_are_those_that_its_version_of_the_table_held(past: dict[datetime, str]) -> None:
    """Shown to fail by asking for the knowledge of the origin's own instant: the correction came before the forecast was made."""
    *_, now = past.values()
    forecasts = query_forecasts(now, latest=False, step=1)
    seen = query_inputs(now, forecasts)
    for series, origin, model, version, created_at in forecasts.select(FORECAST).iter_rows():
        table = read(Lake(now).scan(Observations, version)).filter(series_id=series).filter(pl.col("ts") <= origin)
        held = table.sort("ts", "revision").group_by("ts", maintain_order=True).last().select(INPUT)
        assert_frame_equal(seen.filter(series_id=series, origin=origin, model_version=model, created_at=created_at).select(INPUT), held)
    revised = seen.filter(series_id=NORTH, ts=FIRST + 57 * HOUR)
    assert revised["revision"].to_list() == [1, 1, 2, 2, 2, 2, 2]


def test_the_inputs_of_a_forecast_stay_what_they_were(past: dict[datetime, str]) -> None:
    """Shown to fail by reading the latest revisions."""
    *_, now = past.values()
    for then in past.values():
        forecasts = query_forecasts(then)
        assert_frame_equal(query_inputs(now, forecasts), query_inputs(then, forecasts), check_exact=True)
