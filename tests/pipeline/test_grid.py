"""Ticks are exact integers, and a grid is what a series' own stamps say."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import DataError
from pipeline.prepare.grid import NICE_INTERVALS, Grid, infer_grids, label_expr, tick_expr
from pipeline.schemas import EPOCH, MICROSECOND, UTC_US

START = datetime(2026, 1, 1, 0, 2, tzinfo=UTC)
MINUTE = timedelta(minutes=1)

instants = st.integers(-(2**49), 2**52).map(lambda us: EPOCH + us * MICROSECOND)  # the years 1952 to 2112
grids = st.sampled_from(NICE_INTERVALS).flatmap(
    lambda interval: st.integers(0, interval // MICROSECOND - 1).map(lambda offset_us: Grid(interval, offset_us * MICROSECOND))
)


def inferred(stamps, sample_interval=None):
    """The interval and offset found for one series with these stamps; None where its interval is open."""
    readings = pl.DataFrame({"series_id": "s", "ts": stamps}, schema={"series_id": pl.String, "ts": UTC_US})
    _, interval_us, offset_us = infer_grids(readings, sample_interval).row(0)
    return None if interval_us is None else (interval_us * MICROSECOND, offset_us * MICROSECOND)


@given(grid=grids, instant=instants)
def test_every_instant_is_in_exactly_one_tick(grid, instant):
    label = grid.label(grid.tick(instant))
    assert label - grid.interval < instant <= label


@given(grid=grids, instant=instants)
def test_the_expressions_are_the_integer_arithmetic_of_the_grid(grid, instant):
    frame = pl.DataFrame(
        {"ts": [instant], "sample_interval_us": [grid.interval // MICROSECOND], "grid_offset_us": [grid.offset // MICROSECOND]},
        schema_overrides={"ts": UTC_US},
    )
    tick, label = frame.with_columns(tick=tick_expr()).select("tick", label=label_expr()).row(0)
    assert tick == grid.tick(instant)
    assert label == grid.label(tick)


def test_a_stamp_on_a_label_belongs_to_it():
    assert Grid(MINUTE).label(Grid(MINUTE).tick(EPOCH + MINUTE)) == EPOCH + MINUTE


@pytest.mark.parametrize(("interval", "offset"), [(timedelta(0), timedelta(0)), (MINUTE, MINUTE), (MINUTE, -MICROSECOND)])
def test_an_impossible_grid_is_refused(interval, offset):
    with pytest.raises(DataError, match="A grid requires"):
        Grid(interval, offset)


@pytest.mark.parametrize("interval", NICE_INTERVALS)
def test_a_regular_series_keeps_its_stamps_as_labels(interval):
    stamps = [START + k * interval for k in range(10)]
    grid = Grid(*inferred(stamps))
    assert grid.interval == interval
    assert [grid.label(grid.tick(stamp)) for stamp in stamps] == stamps


@given(kept=st.sets(st.integers(0, 59), min_size=45), again=st.lists(st.integers(0, 44), max_size=40))
def test_gaps_and_duplicates_do_not_move_the_grid(kept, again):
    ticks = sorted(kept) + [sorted(kept)[index] for index in again]
    assert inferred([START + k * 5 * MINUTE for k in ticks]) == (5 * MINUTE, 2 * MINUTE)


@given(jitter_ms=st.lists(st.integers(-1_900, 1_900), min_size=30, max_size=30, unique=True))
def test_jitter_does_not_move_the_interval_and_leaves_no_offset(jitter_ms):
    stamps = [START + k * MINUTE + timedelta(milliseconds=late) for k, late in enumerate(jitter_ms)]
    assert inferred(stamps) == (MINUTE, timedelta(0))


def seconds(*after):
    return [START + timedelta(seconds=second) for second in after]


@pytest.mark.parametrize("odd", [(0, 1, 2), (0, 7, 300), (0, 0.2, 0.4, 0.6), (0, 300, 1100)])
def test_a_few_odd_stamps_do_not_make_a_grid(odd):
    """What a device sends when it starts, a stray stamp, a gap. Shown to fail by taking the median of the first three stamps."""
    stamps = seconds(*odd)
    assert inferred(stamps) is None
    found = [inferred(stamps + seconds(*range(1200, 1200 + 300 * more, 300))) for more in range(1, 9)]
    assert found[-1] is not None
    assert {grid[0] for grid in found if grid is not None} == {5 * MINUTE}


def test_stamps_without_a_common_spacing_have_their_median_after_twenty():
    irregular = seconds(*(300 * k + 120 * (k * k % 7) / 7 * (-1) ** k for k in range(20)))
    assert inferred(irregular[:19]) is None
    assert inferred(irregular) is not None


def test_one_stamp_in_ten_may_be_off_the_shared_residue():
    stamps = [START + k * 5 * MINUTE for k in range(20)]
    off = [stamps[5] + timedelta(seconds=7), stamps[9] + timedelta(seconds=9)]
    assert inferred(stamps + off) == (5 * MINUTE, 2 * MINUTE)
    assert inferred(stamps + off + [stamps[11] + timedelta(seconds=11)]) == (5 * MINUTE, timedelta(0))


@pytest.mark.parametrize(
    ("median", "interval"),
    [
        (timedelta(seconds=65.9), MINUTE),  # within a tenth of a round interval
        (timedelta(seconds=7.003), timedelta(seconds=7)),  # else whole seconds
        (timedelta(milliseconds=1_300.3), timedelta(milliseconds=1_300)),  # else whole milliseconds
        (timedelta(milliseconds=100), timedelta(seconds=1)),  # but a second at least
        (timedelta(microseconds=7), timedelta(seconds=1)),
        (timedelta(days=31), timedelta(days=31)),
    ],
)
def test_an_odd_spacing_is_rounded_by_less_than_a_tenth_and_up_to_a_second(median, interval):
    assert inferred([START + k * median for k in range(10)])[0] == interval


def test_a_series_with_fewer_than_three_stamps_waits():
    assert inferred([START]) is None
    assert inferred([START, START, START + MINUTE, START + MINUTE]) is None
    assert inferred([START, START + MINUTE, START + 2 * MINUTE]) == (MINUTE, timedelta(0))


def test_an_interval_in_the_settings_needs_no_waiting():
    assert inferred([START], 10 * MINUTE) == (10 * MINUTE, timedelta(0))
    assert inferred([START + k * 10 * MINUTE for k in range(3)], 10 * MINUTE) == (10 * MINUTE, 2 * MINUTE)


def test_each_series_has_its_own_grid():
    readings = pl.DataFrame(
        {"series_id": ["b"] * 3 + ["a"] * 3, "ts": [START + k * MINUTE for k in range(3)] + [START + k * 5 * MINUTE for k in range(3)]},
        schema={"series_id": pl.String, "ts": UTC_US},
    )
    assert infer_grids(readings).rows() == [("a", 300_000_000, 120_000_000), ("b", 60_000_000, 0)]
