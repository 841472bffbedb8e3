"""The rows of a long table, laid on one grid: each series from its own first tick, its last rows without a hole.

The last H values of a series are its test, the H before them its validation, the others train; a series that is too short for that is
only tested. Where no series is long enough, the last half of what comes before the test, H values at most, is validation, so that very
short series are forecast too. So short a validation chooses the epoch and is not scored: no forecast of H steps fits into it.

Called by `benchmarks.accuracy.task.load_last_window`.

Letters: N rows sorted by series and stamp, T rows of the panel, B series.
"""

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.accuracy.files import numbers
from benchmarks.accuracy.stamps import Integers, read_stamps, ticks_of
from pipeline.errors import DataError
from pipeline.prepare.sequences import Panel

FEWEST_TICKS = 2  # that a training takes: an origin and a target
MOST_MISSING = 0.1  # of a series' ticks: with more, weekends say, its rows are its ticks


class LongGrid(NamedTuple):
    """Series on one grid.

    Attributes:
        panel: all rows.
        ids: names as the table has them.
        stamps_TB: `ds` of each row, as integers.
        stamp_type: what makes a `ds` of these.
        has_calendar: whether the time of a tick means anything.
        is_closed_B: whether a series' rows are its ticks, whatever its stamps say.
    """

    panel: Panel
    ids: pl.Series
    stamps_TB: Integers
    stamp_type: pl.DataType
    has_calendar: bool
    is_closed_B: NDArray[np.bool_]


def lay_out(frame: pl.DataFrame, horizon: int, season: int | None) -> LongGrid:
    """Lay a table's series on their grid.

    A series with a hole in its last two windows, or with more than a tenth of its ticks missing, takes its rows for its ticks, so that
    every one of its last rows is a step of the forecast; its time is right at the test's origin.

    Args:
        frame: unique_id, ds, y, any order.
        horizon: rows of a window.
        season: ticks, where the user said so.

    Raises:
        DataError: for names, stamps or values that cannot be used.
    """
    ids = frame["unique_id"].unique(maintain_order=True)
    if ids.null_count():
        raise DataError(f"Column unique_id requires a name in every row; got {frame['unique_id'].null_count()} without. Name them.")
    key_N, stamp_type = read_stamps(frame["ds"])
    column_N = frame["unique_id"].replace_strict(ids, np.arange(len(ids)), return_dtype=pl.Int64).to_numpy()
    order_N = np.lexsort((key_N, column_N))
    key_N, column_N = key_N[order_N], column_N[order_N]
    names = ids.cast(pl.String).to_list()
    count_B = _checked_counts(key_N, column_N, names, frame["ds"].gather(order_N))
    ticks = ticks_of(key_N, column_N, names, stamp_type, season)
    row_N, first_tick_B, is_closed_B = _rows(ticks.tick_N, column_N, count_B, horizon)
    length_B = row_N[np.cumsum(count_B) - 1] + 1
    values_TB = np.full((int(length_B.max()), len(names)), np.nan)
    values_TB[row_N, column_N] = numbers(frame, ["y"])[order_N, 0]
    panel = Panel(
        series_ids=tuple(names),
        interval=ticks.interval,
        offset_us_B=ticks.offset_us_B,
        first_tick_B=first_tick_B,
        length_B=length_B,
        values_TB=values_TB,
    )
    stamps_TB = np.zeros(values_TB.shape, np.int64)  # of gaps, which are never forecast, nothing is known
    stamps_TB[row_N, column_N] = key_N
    has_calendar = ticks.has_calendar and not is_closed_B.mean() > 0.5
    return LongGrid(panel, ids, stamps_TB, stamp_type, has_calendar, is_closed_B)


def last_windows(length_B: Integers, horizon: int) -> tuple[Integers, Integers]:
    """Return for each series how many of its rows train, and how many come before its test, of which a series has one at least.

    Args:
        length_B: rows of each series.
        horizon: rows of a window.
    """
    before_B = np.maximum(length_B - horizon, 1)
    train_B = np.maximum(length_B - 2 * horizon, 0)
    if int(train_B.max()) < FEWEST_TICKS:
        train_B = before_B - np.minimum(before_B // 2, horizon)
    return train_B, before_B


def _checked_counts(key_N: Integers, column_N: Integers, names: list[str], ds_N: pl.Series) -> Integers:
    """Return the rows of each series, after checking that each has two and no stamp twice."""
    twice = np.flatnonzero((np.diff(key_N) == 0) & (np.diff(column_N) == 0))
    if len(twice):
        first = ", ".join(f"{names[column_N[row]]} at {ds_N[int(row)]}" for row in twice[:3])
        raise DataError(f"A long table requires each ds once in a series; got {len(twice)} repeated: {first}. Remove the repetitions.")
    count_B = np.bincount(column_N, minlength=len(names))
    lone = np.flatnonzero(count_B < 2)
    if len(lone):
        first = ", ".join(names[b] for b in lone[:5])
        raise DataError(f"A forecast requires series of at least 2 values; got 1 in {len(lone)} series: {first}. Leave them out.")
    return count_B


def _rows(tick_N: Integers, column_N: Integers, count_B: Integers, horizon: int) -> tuple[Integers, Integers, NDArray[np.bool_]]:
    """Return the panel's row of each row, the tick of row 0 of each series, and whether a series' rows are its ticks."""
    end_B = np.cumsum(count_B)
    begin_B = end_B - count_B
    tail_B = np.minimum(count_B, 2 * horizon + 1)  # two windows and the origin before them
    tail_span_B = tick_N[end_B - 1] - tick_N[end_B - tail_B] + 1
    span_B = tick_N[end_B - 1] - tick_N[begin_B] + 1
    shared_N = np.append(False, (np.diff(tick_N) == 0) & (np.diff(column_N) == 0))  # jitter puts two stamps into one tick
    num_shared_B = np.bincount(column_N[shared_N], minlength=len(count_B))
    is_closed_B = (tail_span_B != tail_B) | (count_B < (1 - MOST_MISSING) * span_B) | (num_shared_B > 0)
    number_N = np.arange(len(tick_N)) - begin_B[column_N]
    row_N = np.where(is_closed_B[column_N], number_N, tick_N - tick_N[begin_B][column_N])
    origin_B = np.maximum(count_B - horizon - 1, 0)
    first_tick_B = np.where(is_closed_B, tick_N[begin_B + origin_B] - origin_B, tick_N[begin_B])
    return row_N, first_tick_B, is_closed_B
