"""When ticks close: the next one, which a live loop waits for, and the last. Called by `pipeline.forecast.follower` and `regularise.py`."""

from datetime import datetime, timedelta
from typing import NamedTuple

import polars as pl

from pipeline.prepare.grid import closed_tick_expr, label_expr, tick_expr
from pipeline.schemas import EPOCH, MICROSECOND


class Settled(NamedTuple):
    """How far the readings have what was acknowledged.

    Attributes:
        until: the instant up to which they have all of it.
        readings_version: that has it, and nothing that came later; None for the newest.
    """

    until: datetime
    readings_version: int | None = None


def next_close(fleet: pl.DataFrame, allowed_lateness: timedelta, now: datetime) -> datetime | None:
    """Return the first instant after `now` at which a tick closes that holds readings, or lies before one that does.

    >>> fleet = pl.DataFrame({"sample_interval_us": [60_000_000], "grid_offset_us": [0], "last_ts": [EPOCH + timedelta(minutes=7)]})
    >>> next_close(fleet, timedelta(seconds=10), EPOCH + timedelta(minutes=5)).isoformat()
    '1970-01-01T00:05:10+00:00'

    Args:
        fleet: sample_interval_us, grid_offset_us and last_ts of the catalog's series.
        allowed_lateness: how long after its label a tick closes.
        now: the present.

    Returns:
        None where every tick that has readings is closed: then only a new reading brings work.
    """
    closed = closed_tick_expr(now, allowed_lateness)
    following_us = (closed + 1) * pl.col("sample_interval_us") + pl.col("grid_offset_us")
    is_open = tick_expr("last_ts") > closed
    label_us = fleet.drop_nulls(["sample_interval_us", "last_ts"]).filter(is_open).select(following_us.min()).item()
    return None if label_us is None else EPOCH + label_us * MICROSECOND + allowed_lateness


def closed_through(fleet: pl.DataFrame, allowed_lateness: timedelta, now: datetime) -> datetime:
    """Return the instant at which the last tick that has readings closes, if that is past, else `now`.

    By then every tick is closed that is closed by now, and it says no more of the future than the readings do: a clock that was ahead
    has then closed the tick that was going on, and none of those that were still to come.

    >>> fleet = pl.DataFrame({"sample_interval_us": [60_000_000], "grid_offset_us": [0], "last_ts": [EPOCH + timedelta(minutes=7)]})
    >>> closed_through(fleet, timedelta(seconds=10), EPOCH + timedelta(days=1)).isoformat()
    '1970-01-01T00:07:10+00:00'

    Args:
        fleet: as for `next_close`.
        allowed_lateness: how long after its label a tick closes.
        now: the present.
    """
    known = fleet.drop_nulls(["sample_interval_us", "last_ts"])
    newest: datetime | None = known.with_columns(tick=tick_expr("last_ts")).select(label_expr().max()).item()
    return EPOCH if newest is None else min(now, newest + allowed_lateness)
