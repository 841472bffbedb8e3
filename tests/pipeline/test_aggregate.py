"""The frame computation against a plain reading of its definition, one tick and one instant at a time."""

import itertools
import math
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from pipeline.prepare.aggregate import observe
from pipeline.prepare.grid import Grid
from pipeline.schemas import UTC_US

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
GRID = Grid(10 * MINUTE, 3 * MINUTE)
FAR = NOON + timedelta(days=365)
READINGS = {"series_id": pl.String, "ts": UTC_US, "value": pl.Float64, "received_at": UTC_US, "source_seq": pl.Int64}

minutes = st.integers(0, 60)
values = st.sampled_from([0.0, 0.125, 0.5, 7.0, 1024.0, -3.0, math.nan, math.inf, None])  # their sums are exact in any order
arrivals = st.tuples(minutes, values, st.integers(0, 150), st.one_of(st.none(), st.integers(0, 2)))
rows = st.lists(arrivals, min_size=1, max_size=14)
rough = st.lists(st.tuples(minutes, st.floats(), st.integers(0, 150), st.none()), min_size=1, max_size=14)


def readings(rows):
    return pl.DataFrame(
        [("s", NOON + ts * MINUTE, value, NOON + received * MINUTE, seq) for ts, value, received, seq in rows],
        schema=READINGS,
        orient="row",
    )


def fleet(aggregation):
    return pl.DataFrame(
        {"series_id": ["s"], "sample_interval_us": [600_000_000], "grid_offset_us": [180_000_000], "aggregation": [aggregation]}
    )


def all_ticks():
    first, last = GRID.tick(NOON), GRID.tick(NOON + 60 * MINUTE)
    return pl.DataFrame({"series_id": "s", "tick": range(first, last + 1)}, schema={"series_id": pl.String, "tick": pl.Int64})


def observed(rows, aggregation="mean", lateness=2 * MINUTE, closed_until=FAR):
    return observe(readings(rows), fleet(aggregation), all_ticks(), allowed_lateness=lateness, closed_until=closed_until)


def levels_known(rows, tick, at):
    """The value of each stamp of a tick as known at an instant, in the order of the stamps."""
    order = sorted(rows, key=lambda row: (row[2], -1 if row[3] is None else row[3], row[1] or 0.0))
    finite = [row for row in order if row[1] is not None and math.isfinite(row[1])]
    latest = {NOON + ts * MINUTE: value for ts, value, received, _ in finite if NOON + received * MINUTE <= at}
    return [latest[ts] for ts in sorted(latest) if GRID.tick(ts) == tick]


def increment(before, levels):
    """The growth of a counter over a tick; None where the tick before it is empty."""
    pairs = list(zip([*before[-1:], *levels], levels, strict=False))
    grown = sum(new - old if new >= old else new for old, new in pairs)
    return grown if before and levels else None


AGGREGATIONS = {
    "mean": lambda before, levels: sum(levels) / len(levels) if levels else None,
    "sum": lambda before, levels: sum(levels) if levels else None,
    "last": lambda before, levels: levels[-1] if levels else None,
    "counter": increment,
}


def revisions_by_definition(rows, aggregation, tick, lateness):
    """Every (value, available_at) of a tick, from its close on, where the value changed."""
    close = GRID.label(tick) + lateness
    arrivals = sorted({NOON + received * MINUTE for _, _, received, _ in rows if NOON + received * MINUTE > close})
    known = [(AGGREGATIONS[aggregation](levels_known(rows, tick - 1, at), levels_known(rows, tick, at)), at) for at in [close, *arrivals]]
    return [known[0], *(new for old, new in itertools.pairwise(known) if new[0] != old[0])]


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@settings(max_examples=150, deadline=None)
@given(rows=rows)
def test_revisions_follow_their_definition(aggregation, rows):
    frame = observed(rows, aggregation)
    expected = [
        (GRID.label(tick), number, value, at)
        for tick in all_ticks()["tick"]
        for number, (value, at) in enumerate(revisions_by_definition(rows, aggregation, tick, 2 * MINUTE), start=1)
    ]
    assert frame.select("ts", "revision", "value", "available_at").rows() == expected


@settings(max_examples=50, deadline=None)
@given(rows=rough, others=rough)
def test_a_series_has_the_same_bits_whatever_else_is_in_the_frame(rows, others):
    both = pl.concat([readings(rows), readings(others).with_columns(series_id=pl.lit("other"))])
    fleets = pl.concat([fleet("sum"), fleet("counter").with_columns(series_id=pl.lit("other"))])
    ticks = pl.concat([all_ticks(), all_ticks().with_columns(series_id=pl.lit("other"))])
    together = observe(both, fleets, ticks, allowed_lateness=MINUTE, closed_until=FAR)
    assert_frame_equal(together.filter(pl.col("series_id") == "s"), observed(rows, "sum", MINUTE), check_exact=True)


def test_the_first_increment_of_a_counter_is_unknown():
    frame = observed([(1, 100.0, 1, 0), (8, 130.0, 8, 0)], "counter")
    assert frame["value"].to_list()[:2] == [None, 30.0]
    assert frame["observed"].to_list()[:2] == [False, True]


def test_a_counter_that_drops_was_reset_to_zero():
    frame = observed([(1, 100.0, 1, 0), (8, 5.0, 8, 0)], "counter")
    assert frame["value"].to_list()[1] == 5.0


def test_a_reset_inside_a_tick_loses_no_count():
    frame = observed([(1, 100.0, 1, 0), (5, 110.0, 5, 0), (6, 20.0, 6, 0), (9, 150.0, 9, 0)], "counter")
    assert frame["value"].to_list()[1] == 10.0 + 20.0 + 130.0


def test_an_increment_over_a_gap_is_unknown():
    frame = observed([(1, 100.0, 1, 0), (18, 130.0, 18, 0), (28, 135.0, 28, 0)], "counter")
    assert frame["value"].to_list()[:4] == [None, None, None, 5.0]


def test_a_late_level_revises_the_increment_of_the_next_tick():
    frame = observed([(1, 100.0, 1, 0), (2, 110.0, 50, 0), (8, 130.0, 8, 0)], "counter")
    assert frame.filter(pl.col("ts") == GRID.label(GRID.tick(NOON + 8 * MINUTE)))["value"].to_list() == [30.0, 20.0]


def test_no_row_is_made_of_a_tick_that_has_not_closed():
    frame = observed([(1, 1.0, 1, 0), (8, 2.0, 8, 0)], closed_until=NOON + 15 * MINUTE)
    assert frame["ts"].to_list() == [NOON + 3 * MINUTE, NOON + 13 * MINUTE]
