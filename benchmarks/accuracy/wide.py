"""The columns of a wide table, laid on the grid that its stamps are on: repeated stamps are averaged, missing ones are gaps.

Called by `benchmarks.accuracy.task.load_ltsf`.

Letters: N rows of the table, C columns, T ticks.
"""

import math
from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.accuracy.stamps import INSTANT, Integers
from pipeline.errors import DataError, SettingsError
from pipeline.prepare.grid import infer_grids, tick_expr
from pipeline.prepare.sequences import MAX_ROWS
from pipeline.schemas import MICROSECOND, UTC_US

Floats = NDArray[np.float64]


class WideGrid(NamedTuple):
    """Columns on one grid.

    Attributes:
        interval: of one tick.
        offset_us: label of tick 0, microseconds.
        first_tick: of row 0.
        train, choose: rows before which training and validation end.
        values_TC: mean of what each tick holds, NaN where it holds nothing.
    """

    interval: timedelta
    offset_us: int
    first_tick: int
    train: int
    choose: int
    values_TC: Floats


def lay_out(stamp_N: Integers, values_NC: Floats, borders: Sequence[float], name: str) -> WideGrid:
    """Lay a table's rows on their grid, from the first border to the last.

    Args:
        stamp_N: microseconds, any order.
        values_NC: of each row.
        borders: four rows of the table in the order of time, or fractions of their number where none exceeds 1.
        name: of the table, for errors.

    Raises:
        DataError: when stamps say no spacing, or lie too far apart, or borders are beyond the table.
        SettingsError: for borders that are not in order.
    """
    rows = pl.DataFrame({"series_id": "all", "ts": pl.Series(stamp_N).cast(INSTANT).cast(UTC_US)})
    grid = infer_grids(rows)
    if grid["sample_interval_us"].null_count():
        raise DataError(f"{name} requires at least 3 different timestamps; got {rows['ts'].n_unique()}. Give more rows.")
    tick_N = rows.join(grid, on="series_id").select(tick_expr()).to_series().to_numpy()
    order_N = np.argsort(tick_N, kind="stable")
    tick_N = tick_N[order_N]
    start, train, choose, end = _border_ticks(tick_N, borders, name)
    return WideGrid(
        interval=int(grid["sample_interval_us"][0]) * MICROSECOND,
        offset_us=int(grid["grid_offset_us"][0]),
        first_tick=start,
        train=train - start,
        choose=choose - start,
        values_TC=_by_tick(values_NC[order_N], tick_N, start, end),
    )


def _border_ticks(tick_N: Integers, borders: Sequence[float], name: str) -> list[int]:
    """Return the tick of each border; the last is the one after the end."""
    num_rows = len(tick_N)
    rows = [int(border * num_rows) if max(borders) <= 1 else int(border) for border in borders if math.isfinite(border)]
    if len(rows) != 4 or rows != sorted(set(rows)) or rows[0] < 0:
        raise SettingsError(f"--borders requires four ascending rows or fractions, as 0,0.6,0.8,1; got {list(borders)}. Correct them.")
    if rows[3] > num_rows:
        raise DataError(f"--borders requires rows of the file; got {rows[3]} of {num_rows} in {name}. Give fractions, as 0,0.6,0.8,1.")
    ticks = [int(tick_N[row]) for row in rows[:3]] + [int(tick_N[rows[3] - 1]) + 1]
    if ticks[3] - ticks[0] > MAX_ROWS or ticks != sorted(set(ticks)):
        raise DataError(f"{name} requires stamps that lie close together; got {ticks[3] - ticks[0]} ticks in {num_rows} rows. Mend them.")
    return ticks


def _by_tick(values_NC: Floats, tick_N: Integers, start: int, end: int) -> Floats:
    inside_N = (tick_N >= start) & (tick_N < end)
    row_N, values_NC = tick_N[inside_N] - start, values_NC[inside_N]
    columns = []
    for value_N in values_NC.T:
        known_N = ~np.isnan(value_N)
        count_T = np.bincount(row_N[known_N], minlength=end - start)
        total_T = np.bincount(row_N[known_N], weights=value_N[known_N], minlength=end - start)
        columns.append(np.divide(total_T, count_T, out=np.full(end - start, np.nan), where=count_T > 0))
    return np.stack(columns, axis=1)
