"""Law 9, where readings become observations: late and revised readings never change what was known at an earlier instant.

A row with observed False says no more than an absent one, so what was known is the observed rows.
"""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from pipeline.settings import Settings
from pipeline.store.lake import Lake
from pipeline.store.observations import read_observations
from tests.arrivals import LATENESS, MINUTE, Arrival, arrive, new_lake, regularised, with_grid

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
