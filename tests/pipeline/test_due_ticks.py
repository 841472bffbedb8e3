"""Which ticks a run computes: none twice, none forgotten, and no rows for what is no gap."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from pipeline.schemas import MICROSECOND
from pipeline.store.catalog import Catalog
from tests.arrivals import MINUTE, START, arrive, minutes, new_lake, regularised, stored, with_grid

SECOND = timedelta(seconds=1)


@pytest.fixture
def settings(tmp_path):
    return new_lake(tmp_path)


def test_a_gap_before_an_open_tick_is_written_once_it_has_closed(settings):
    arrive(settings, [*minutes(0, 5), *minutes(7, 8)])
    regularised(settings, START + 6 * MINUTE)
    regularised(settings, START + 8 * MINUTE)
    assert stored(settings)["value"].to_list() == [1.0, 2.0, 3.0, 4.0, 5.0, None, None]


def test_history_before_the_first_tick_is_taken_in_with_its_gaps(settings):
    arrive(settings, minutes(100, 110))
    regularised(settings)
    arrive(settings, minutes(90, 95))
    assert regularised(settings).observations_written == 10
    assert stored(settings)["ts"].to_list() == [START + m * MINUTE for m in range(90, 110)]


def test_a_series_that_returns_after_days_has_its_gap_filled_with_rows(settings):
    arrive(settings, [*minutes(0, 5), *minutes(0, 9_000, "other", step=10)])
    regularised(settings, START + 6_000 * MINUTE)
    arrive(settings, minutes(8_000, 8_001))
    regularised(settings, START + 9_000 * MINUTE)
    assert stored(settings).filter(pl.col("series_id") == "s")["observed"].to_list() == [True] * 5 + [False] * 7_995 + [True]


def test_an_open_tick_is_written_once_it_has_closed_without_new_readings(settings):
    arrive(settings, minutes(0, 11))
    assert regularised(settings, START + 10 * MINUTE).observations_written == 9
    assert regularised(settings, START + 11 * MINUTE).observations_written == 1
    assert regularised(settings, START + 12 * MINUTE).observations_written == 1
    assert regularised(settings, START + 99 * MINUTE).observations_written == 0


def test_a_counter_is_the_same_tick_by_tick_as_at_once(tmp_path):
    once, stepwise = new_lake(tmp_path / "once"), new_lake(tmp_path / "stepwise")
    batches = [minutes(0, 7, value=100.0), minutes(7, 9, value=0.0), minutes(20, 23), [("s", START + 8 * MINUTE, 3.0, START + 30 * MINUTE)]]
    for settings in (once, stepwise):
        with_grid(settings, 2 * MINUTE, "counter", "s")
    for batch in batches:
        arrive(stepwise, batch)
        regularised(stepwise)
    arrive(once, [reading for batch in batches for reading in batch])
    regularised(once)
    assert_frame_equal(stored(stepwise), stored(once), check_exact=True)


def test_stray_stamps_cost_no_rows(settings):
    burst = [("s", START + us * MICROSECOND, 1.0, START) for us in range(3)]
    long_ago = datetime(2001, 1, 2, tzinfo=UTC)
    lost_clock = [("t", long_ago, 1.0, long_ago), *(("t", START + s * SECOND, 1.0, START) for s in range(1, 10))]
    arrive(settings, [*burst, ("s", START + 300 * MINUTE, 1.0, START), *lost_clock])
    regularised(settings)
    assert stored(settings).filter(pl.col("series_id") == "t")["observed"].to_list() == [True] * 10
    assert Catalog(settings.state_dir).series()["sample_interval_us"].to_list() == [1_000_000] * 2


@pytest.mark.parametrize("aggregation", ["mean", "counter"])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (0, 3, 1, 2), (2, 0, 3, 1)])
def test_a_long_hole_is_the_same_in_any_order(tmp_path, monkeypatch, aggregation, order):
    """Shown to fail by giving the tick after a counter's reading a row in a hole, and by not looking for neighbours in a hole."""
    monkeypatch.setattr("pipeline.prepare.due_ticks.MAX_GAP", 10)
    batches = [minutes(0, 3), minutes(30, 33), minutes(9, 10), minutes(22, 24)]
    once, stepwise = new_lake(tmp_path / "once"), new_lake(tmp_path / "stepwise")
    for settings in (once, stepwise):
        with_grid(settings, MINUTE, aggregation, "s")
    for step, batch in enumerate(order):
        arrive(stepwise, batches[batch])
        regularised(stepwise, START + 8 * (step + 1) * MINUTE)
    arrive(once, [reading for batch in order for reading in batches[batch]])
    for settings in (stepwise, once):
        regularised(settings)
    assert_frame_equal(stored(stepwise), stored(once), check_exact=True)
    assert stored(once)["ts"].to_list() == [START + m * MINUTE for m in (*range(10), *range(22, 33))]
