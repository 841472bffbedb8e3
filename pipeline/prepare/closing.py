"""When ticks close: the next one, which a live loop waits for, and the last. Called by `pipeline.forecast.follower` and `regularise.py`."""

from datetime import datetime, timedelta
from typing import NamedTuple

import polars as pl

from pipeline.prepare.grid import closed_tick_expr, label_expr, tick_expr
from pipeline.schemas import EPOCH, MICROSECOND


class Settled(NamedTuple):
    """Up to when, and in which version of the table, all acknowledged messages are in `readings`.

    Attributes:
        until: the instant up to which all of them are there.
        readings_version: the version that holds these and no later ones; None for the newest.
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

    By that instant every tick that has closed by now is closed. It never exceeds what the readings reach, so a clock that runs ahead
    closes the current tick too early and no later ones.

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
