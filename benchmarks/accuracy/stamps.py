"""What a file calls its time becomes integer ticks: instants of any regular frequency, calendar months, or plain integers.

A month is a tick of 30.4375 days, so that a year is exactly twelve of them and tick m after 1970 is m · 2,629,800 s.
Called by the other modules of `benchmarks.accuracy` that read files.

Letters: N rows, sorted by series and stamp, B series.
"""

from datetime import timedelta
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.ingest.timestamps import StampRules, parse_stamps
from pipeline.prepare.grid import infer_grids, tick_expr
from pipeline.schemas import MICROSECOND, UTC_US

Integers = NDArray[np.int64]

INSTANT: pl.DataType = pl.Datetime("us")
INTEGER: pl.DataType = pl.Int64()
HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(weeks=1)
MONTH = timedelta(days=30.4375)
YEAR = 12 * MONTH
SHORTEST_MONTH = timedelta(days=26)  # business month ends may be closer than 28 days
LONGEST_SEASON = 2016  # ticks: a week of five minutes
NOMINAL = {24: HOUR, 7: DAY, 52: WEEK, 12: MONTH, 4: 3 * MONTH, 1: YEAR}  # what integers with such a season tend to be
LONGEST_SPAN = 5_000 * YEAR  # a datetime ends with the year 9999
SPACING_TOLERANCE = 0.1


class Ticks(NamedTuple):
    """Where the rows of a long table lie on one grid spacing.

    Attributes:
        interval: of one tick.
        has_calendar: whether hour, weekday or time of year mean anything.
        tick_N: of each row.
        offset_us_B: of each series' grid, microseconds.
    """

    interval: timedelta
    has_calendar: bool
    tick_N: Integers
    offset_us_B: Integers


def read_stamps(column: pl.Series) -> tuple[Integers, pl.DataType]:
    """Return stamps as integers, and the type that gives them back: microseconds of a datetime, or the integers they were.

    Raises:
        DataError: naming the first that cannot be read.
    """
    if column.dtype.is_numeric():
        stamps, stamp_type = column.cast(pl.Int64, strict=False), INTEGER
        wrong = column.filter(stamps.is_null() | (stamps != column))
    else:
        text = column.cast(pl.String).str.strip_chars() if column.dtype == pl.String else column
        read = parse_stamps(_whole_dates(text) if text.dtype == pl.String else text, StampRules(time_zone="UTC"))
        wrong = column.filter(read["stamp_error"].is_not_null())
        stamps, stamp_type = read["stamp"].dt.timestamp("us"), INSTANT
    if len(wrong):
        texts = ", ".join(repr(text) for text in wrong.head(3).to_list())
        raise DataError(f"Column {column.name} requires timestamps or integers; got {texts} in {len(wrong)} rows. Correct them.")
    return stamps.to_numpy().astype(np.int64), stamp_type


def _whole_dates(text: pl.Series) -> pl.Series:
    """Write 1996-03 and 1996Q1 as the first day of the month or quarter."""
    quarter = text.str.extract(r"^\d{4}-?[Qq]([1-4])$").cast(pl.Int64) * 3 - 2
    first_month = text.str.slice(0, 4) + "-" + quarter.cast(pl.String).str.zfill(2) + "-01"
    month = text.str.replace(r"^(\d{4})[-/](\d{1,2})$", "$1-$2-01")
    return first_month.zip_with(quarter.is_not_null(), month)


def ticks_of(key_N: Integers, column_N: Integers, names: list[str], stamp_type: pl.DataType, season: int | None) -> Ticks:
    """Find the grid that rows of many series lie on.

    Args:
        key_N: stamps as `read_stamps` gives them, ascending within each series, no two alike.
        column_N: number of the series, ascending.
        names: of the series, for errors.
        stamp_type: of the stamps.
        season: what the user says of it; decides the nominal interval of integers.

    Raises:
        DataError: naming series of another frequency than most.
    """
    if stamp_type == INTEGER:
        step = _common_step(_spacings(key_N, column_N), names, "steps")
        tick_N = (key_N - key_N.min()) // step
        interval = NOMINAL.get(season or 1, HOUR)
        if int(tick_N.max()) > LONGEST_SPAN // interval:
            interval = HOUR
        return Ticks(interval, False, tick_N, np.zeros(len(names), np.int64))
    month_N = _months(key_N, column_N)
    if month_N is None:
        return _instants(key_N, column_N, names)
    step = _common_step(_spacings(month_N, column_N), names, "months")
    first_B = month_N[np.searchsorted(column_N, np.arange(len(names)))]
    phase_B = first_B % step
    return Ticks(step * MONTH, True, (month_N - phase_B[column_N]) // step, phase_B * (MONTH // MICROSECOND))


def default_season(interval: timedelta) -> int:
    """Return the usual season of a spacing in ticks: the day, the week or the year, whichever is the first to hold two; else 1."""
    for period in (DAY, WEEK, YEAR):
        ticks = round(period / interval)
        if 2 <= ticks <= LONGEST_SEASON:
            return ticks
    return 1


def _spacings(key_N: Integers, column_N: Integers) -> pl.DataFrame:
    """Return column and step of every pair of neighbours within a series."""
    same_N = column_N[1:] == column_N[:-1]
    return pl.DataFrame({"column": column_N[1:][same_N], "step": np.diff(key_N)[same_N]})


def _common_step(spacings: pl.DataFrame, names: list[str], unit: str) -> int:
    """Return the spacing that most series have; a series may have gaps, but must know that spacing."""
    usual = spacings.group_by("column").agg(pl.col("step").mode().min())
    step = int(usual["step"].mode().min())  # type: ignore[arg-type]
    least = spacings.group_by("column").agg(pl.col("step").min()).sort("column")
    _refuse_others(least.filter((pl.col("step") != step) & (pl.col("step") % step != 0)), names, f"{step} {unit}")
    rare = usual.filter(pl.col("step") != step).join(least.filter(pl.col("step") != step), on="column", how="semi").sort("column")
    _refuse_others(rare, names, f"{step} {unit}")
    return step


def _refuse_others(others: pl.DataFrame, names: list[str], usual: str) -> None:
    if others.height:
        first = ", ".join(f"{names[column]} ({step})" for column, step in others.select("column", "step").head(5).iter_rows())
        raise DataError(
            f"One model requires series of one frequency; got {usual} for most and another for {others.height}: {first}. "
            "Give each frequency a file of its own."
        )


def _months(key_N: Integers, column_N: Integers) -> Integers | None:
    """Return months since 1970 where stamps are calendar months (quarters, years), each once for a series; else None."""
    step_N = _spacings(key_N, column_N)["step"].to_numpy()
    if not len(step_N) or step_N.min() < SHORTEST_MONTH // MICROSECOND:
        return None
    date = pl.Series(key_N).cast(INSTANT)
    month_N = ((date.dt.year().cast(pl.Int64) - 1970) * 12 + date.dt.month() - 1).to_numpy()
    fixed = bool((step_N % (WEEK // MICROSECOND) == 0).all())  # every four weeks is a spacing of its own
    distinct = bool((_spacings(month_N, column_N)["step"] > 0).all())
    return month_N if distinct and not fixed else None


def _instants(key_N: Integers, column_N: Integers, names: list[str]) -> Ticks:
    rows = pl.DataFrame({"series_id": column_N, "ts": pl.Series(key_N).cast(INSTANT).cast(UTC_US)})
    own = infer_grids(rows).drop_nulls().rename({"series_id": "column"})
    spacings = _spacings(key_N, column_N)
    interval_us = int((spacings["step"] if own.is_empty() else own["sample_interval_us"]).mode().min())  # type: ignore[arg-type]
    least = spacings.group_by("column").agg(pl.col("step").min()).sort("column")
    far = (pl.col("step") - interval_us).abs() > SPACING_TOLERANCE * interval_us
    others = own.filter(pl.col("sample_interval_us") != interval_us)
    strange = least.filter(far).join(others, on="column", how="semi").with_columns(pl.col("step").cast(pl.Duration("us")))
    _refuse_others(strange, names, str(interval_us * MICROSECOND))
    grids = infer_grids(rows, interval_us * MICROSECOND).sort("series_id")
    first_B = key_N[np.searchsorted(column_N, np.arange(len(names)))]
    few_B = np.bincount(column_N, minlength=len(names)) < 3  # too few stamps to share a residue
    offset_us_B = np.where(few_B, first_B % interval_us, grids["grid_offset_us"].to_numpy())
    on_grid = rows.with_columns(grid_offset_us=offset_us_B[column_N], sample_interval_us=pl.lit(interval_us))
    return Ticks(interval_us * MICROSECOND, True, on_grid.select(tick_expr()).to_series().to_numpy(), offset_us_B)
