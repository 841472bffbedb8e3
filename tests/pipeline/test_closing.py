"""When the next tick closes: the smallest of the fleet, of ticks that have readings."""

from datetime import UTC, datetime, timedelta

import polars as pl

from pipeline.prepare.closing import next_close

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def fleet(*series: tuple[int, int, datetime]) -> pl.DataFrame:
    """Return grids: interval and offset in minutes, newest reading."""
    rows = [(interval * 60_000_000, offset * 60_000_000, last) for interval, offset, last in series]
    return pl.DataFrame(rows, schema=["sample_interval_us", "grid_offset_us", "last_ts"], orient="row")


def test_the_first_tick_of_any_grid_is_waited_for() -> None:
    grids = fleet((60, 0, NOON + 30 * MINUTE), (15, 2, NOON + 10 * MINUTE))
    assert next_close(grids, MINUTE, NOON + 5 * MINUTE) == NOON + 18 * MINUTE


def test_a_tick_that_is_over_but_not_closed_is_waited_for() -> None:
    assert next_close(fleet((60, 0, NOON)), 2 * MINUTE, NOON + MINUTE) == NOON + 2 * MINUTE


def test_nothing_is_waited_for_when_every_tick_with_readings_is_closed() -> None:
    assert next_close(fleet((60, 0, NOON)), 2 * MINUTE, NOON + 2 * MINUTE) is None
