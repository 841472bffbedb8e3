"""In what state a series is: new, warming, active, silent or retired; a pure function of its row in the catalog and the clock.

Only the request to retire a series is stored, so a state is never out of date. Called by the catalog (which series are not
forecast) and by `tidecast series`.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, get_args

import polars as pl

from pipeline.schemas import UTC_US

State = Literal["new", "warming", "active", "silent", "retired"]
STATES: tuple[State, ...] = get_args(State)
# What a model reads before it forecasts as well as it can, where the settings do not say: four seasons of a week, at most 672 ticks.
LONGEST_WARMING = timedelta(weeks=4)
WARMING_TICKS = 672


@dataclass(frozen=True)
class StateRules:
    """What states depend on beside the catalog.

    Attributes:
        idle_timeout: how far overdue the next reading of a series may be before it counts as silent.
        retire_after: how long a series may be silent before it counts as retired; None: for ever.
        context_length: ticks that a model reads; None: 672, and at most four weeks.
    """

    idle_timeout: timedelta
    retire_after: timedelta | None
    context_length: int | None = None


def with_state(series: pl.DataFrame, now: datetime, rules: StateRules) -> pl.DataFrame:
    """Add `state` to rows of the catalog: the first of this list that applies.

    `retired`: see `is_retired` · `silent`: the next reading is overdue by more than the idle timeout · `new`: its sample interval is not
    known yet · `warming`: its readings span less than a model reads · `active`: all else.

    Args:
        series: all rows of the catalog: when a series retires by itself follows from the others.
        now: the present, UTC.
        rules: durations and the context length.
    """
    interval = pl.duration(microseconds="sample_interval_us")
    overdue = pl.lit(now, UTC_US) - _arrived() - pl.coalesce(interval, pl.lit(timedelta(0)))
    span = pl.col("last_ts") - pl.col("first_ts")
    context = pl.min_horizontal(interval * WARMING_TICKS, pl.lit(LONGEST_WARMING))
    if rules.context_length is not None:
        context = interval * rules.context_length
    state = (
        pl.when(is_retired(now, rules.retire_after))
        .then(pl.lit("retired"))
        .when(overdue > rules.idle_timeout)
        .then(pl.lit("silent"))
        .when(pl.col("sample_interval_us").is_null())
        .then(pl.lit("new"))
        .when((span + interval < context).fill_null(value=True))
        .then(pl.lit("warming"))
        .otherwise(pl.lit("active"))
    )
    return series.with_columns(state.alias("state"))


def is_retired(now: datetime, retire_after: timedelta | None) -> pl.Expr:
    """Whether a series is not forecast: somebody has retired it, or it has been silent for longer than `retire_after`.

    Silence is measured up to the newest arrival of any series (or now, if that is earlier): if nothing arrives at all, as after an import
    of history, the source has stopped, not the series. A new reading brings a series back, unless somebody has retired it.

    Args:
        now: the present, UTC.
        retire_after: None retires no series by itself.
    """
    by_hand = (pl.col("retired_at") <= now).fill_null(value=False)
    if retire_after is None:
        return by_hand
    heard = pl.min_horizontal(_arrived().max(), pl.lit(now, UTC_US))
    return by_hand | (heard - _arrived() > retire_after).fill_null(value=False)


def _arrived() -> pl.Expr:
    """When the newest reading came; for series of an older tidecast, which did not note it, when it was measured."""
    return pl.coalesce("last_received", "last_ts")
