"""A task: series on a grid, the borders of training, validation and test, and the origins at which both protocols ask for forecasts.

Called by `python -m benchmarks.accuracy` and by `benchmarks.peers`, which score what they forecast on the very same task.

Letters: T rows, B series, N rows in any order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.accuracy.files import numbers, read_table
from benchmarks.accuracy.long import FEWEST_TICKS, last_windows
from benchmarks.accuracy.long import lay_out as lay_out_long
from benchmarks.accuracy.stamps import INSTANT, Integers, default_season, read_stamps
from benchmarks.accuracy.wide import lay_out as lay_out_wide
from pipeline.errors import DataError
from pipeline.ingest.timestamps import compose_stamp
from pipeline.prepare.covariates import PanelCovariates
from pipeline.prepare.sequences import Panel
from pipeline.prepare.splits import Split, SplitByRows

Floats = NDArray[np.float64]

LTSF_BORDERS = (0.0, 8640.0, 11520.0, 14400.0)


class Origins(NamedTuple):
    """Every row from the first to the last issues a forecast; a series whose last is before its first issues none."""

    first_B: Integers
    last_B: Integers

    @property
    def count_B(self) -> Integers:
        """Forecasts of each series."""
        count_B: Integers = np.maximum(self.last_B - self.first_B + 1, 0)
        return count_B


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be forecast, and all that scoring needs to know.

    Attributes:
        name: of the file.
        panel: all rows, the test's included; NaN where missing.
        split: borders of training and validation.
        test: origins of the test period.
        validation: origins of the validation period.
        horizon: steps forecast from every origin.
        season: ticks, of MASE.
        has_calendar: whether the time of a tick means anything to a model.
        has_natural_seasons: whether a day and a week of the interval are seasons too.
        is_standardised: whether squared and absolute errors are in standard deviations of the training rows (LTSF).
        ids: the series' names as the file has them, one for each column of the panel.
        stamps_TB: `ds` of every row, as integers.
        stamp_type: what makes a `ds` of these integers.
    """

    name: str
    panel: Panel
    split: Split
    test: Origins
    validation: Origins
    horizon: int
    season: int
    has_calendar: bool
    has_natural_seasons: bool
    is_standardised: bool
    ids: pl.Series
    stamps_TB: Integers
    stamp_type: pl.DataType

    @property
    def origins(self) -> pl.DataFrame:
        """Every forecast of the test period: unique_id, cutoff (`ds` of the last row it may read)."""
        return self.cutoffs(self.test)

    @property
    def past_covariates(self) -> dict[str, Floats]:
        """What else may be read up to an origin, by name: one value for each row (T,), NaN where missing, the same for all series."""
        covariates = self.panel.covariates
        return {} if covariates is None else {name: covariates.past_TBP[:, 0, p] for p, name in enumerate(covariates.names.past)}

    def cutoffs(self, origins: Origins) -> pl.DataFrame:
        """Return unique_id and cutoff of every forecast of a period, series by series."""
        columns_N = np.repeat(np.arange(len(self.ids)), origins.count_B)
        within_N = np.arange(len(columns_N)) - np.repeat(np.cumsum(origins.count_B) - origins.count_B, origins.count_B)
        rows_N = origins.first_B[columns_N] + within_N
        return pl.DataFrame({"unique_id": self.ids.gather(columns_N), "cutoff": self.stamps(rows_N, columns_N)})

    def stamps(self, rows_N: Integers, columns_N: Integers) -> pl.Series:
        """Return `ds` of some rows."""
        return pl.Series("ds", self.stamps_TB[rows_N, columns_N]).cast(self.stamp_type)


def load_ltsf(
    path: Path,
    horizon: int,
    *,
    borders: Sequence[float] = LTSF_BORDERS,
    columns: Sequence[str] | None = None,
    time_columns: Sequence[str] = ("date",),
    past_covariates: Sequence[str] = (),
    season: int | None = None,
) -> Task:
    """Read a wide table: every origin of the test rows forecasts, with stride 1, and nothing is dropped.

    Args:
        path: the table; a column is a series. Repeated stamps are averaged, missing ones are gaps that are never scored.
        horizon: steps.
        borders: rows at which the data, validation and test begin and the test ends; as fractions of the rows where none exceeds 1.
        columns: the series; by default every column that is neither time nor covariate.
        time_columns: the stamp, or its parts (year, month, day, hour).
        past_covariates: columns that are known up to the origin only.
        season: ticks, of MASE; by default the day, the week or the year.

    Raises:
        DataError: when the table does not hold what is asked for.
        SettingsError: for borders that are not in order.
    """
    frame = read_table(path, [*time_columns, *(columns or ()), *past_covariates])
    names = list(columns or [name for name in frame.columns if name not in {*time_columns, *past_covariates}])
    stamp_N, stamp_type = read_stamps(compose_stamp(frame, time_columns).alias(" ".join(time_columns)))
    if stamp_type != INSTANT or not names:
        raise DataError(f"The ltsf protocol requires a column of timestamps and one of values; got {frame.columns[:12]}. Name the columns.")
    grid = lay_out_wide(stamp_N, numbers(frame, [*names, *past_covariates]), borders, path.name)
    num_rows, num_series = len(grid.values_TC), len(names)
    panel = Panel(
        series_ids=tuple(names),
        interval=grid.interval,
        offset_us_B=np.full(num_series, grid.offset_us, np.int64),
        first_tick_B=np.full(num_series, grid.first_tick, np.int64),
        length_B=np.full(num_series, num_rows, np.int64),
        values_TB=np.ascontiguousarray(grid.values_TC[:, :num_series]),
        covariates=_shared(past_covariates, grid.values_TC[:, num_series:], num_series),
    )
    label_T = panel.labels_us(np.arange(num_rows), 0)
    return Task(
        name=path.stem,
        panel=panel,
        split=Split(panel.label(0, grid.train - 1), panel.label(0, grid.choose - 1)),
        test=_every_origin(grid.choose, num_rows, horizon, num_series, "test"),
        validation=_every_origin(grid.train, grid.choose, horizon, num_series, "validation"),
        horizon=horizon,
        season=season or default_season(panel.interval),
        has_calendar=True,
        has_natural_seasons=True,
        is_standardised=True,
        ids=pl.Series("unique_id", names),
        stamps_TB=np.broadcast_to(label_T[:, None], panel.values_TB.shape),
        stamp_type=stamp_type,
    )


def _shared(names: Sequence[str], values_TP: Floats, num_series: int) -> PanelCovariates | None:
    """Return covariates that every series reads; None where there is none."""
    if not names:
        return None
    return PanelCovariates.of_past(names, np.broadcast_to(values_TP[:, None], (len(values_TP), num_series, len(names))))


def _every_origin(begin: int, end: int, horizon: int, num_series: int, period: str) -> Origins:
    if horizon > end - begin:
        raise DataError(f"--horizon requires at most the {end - begin} rows of the {period} period; got {horizon}. Lower it.")
    return Origins(np.full(num_series, begin - 1, np.int64), np.full(num_series, end - horizon - 1, np.int64))


def load_last_window(path: Path, horizon: int, season: int | None = None) -> Task:
    """Read a long table of many series: the last `horizon` values of each are the test, those before them validation, where there is room.

    Args:
        path: the table, with `unique_id`, `ds` (timestamps, months or integers) and `y`.
        horizon: steps.
        season: ticks, of MASE; by default the day, the week or the year, and 1 where stamps say nothing of time.

    Raises:
        DataError: when the table does not hold what is asked for.
    """
    grid = lay_out_long(read_table(path, ["unique_id", "ds", "y"]), horizon, season)
    length_B = grid.panel.length_B
    if int(length_B.max()) <= horizon:
        raise DataError(f"--horizon requires series that are longer; got {horizon} and at most {length_B.max()} values. Lower it.")
    train_B, before_B = last_windows(length_B, horizon)
    if int(train_B.max()) < FEWEST_TICKS:
        raise DataError(
            f"--horizon requires a series with {FEWEST_TICKS + 1} values before its last {horizon}, to train and to choose by; "
            f"got {before_B.max()} at most. Lower it."
        )
    last_B = before_B - 1  # a series shorter than the horizon forecasts from its first value
    validation_B = length_B - 2 * horizon - 1
    validation_B = np.where(train_B > validation_B + 1, np.minimum(validation_B, -1), validation_B)  # none where no whole window fits
    return Task(
        name=path.stem,
        panel=grid.panel,
        split=_split(grid.panel, train_B, before_B),
        test=Origins(last_B, last_B),
        validation=Origins(np.maximum(validation_B, 0), validation_B),
        horizon=horizon,
        season=season or (default_season(grid.panel.interval) if grid.has_calendar else 1),
        has_calendar=grid.has_calendar,
        has_natural_seasons=not grid.is_closed_B.mean() > 0.5,
        is_standardised=False,
        ids=grid.ids,
        stamps_TB=grid.stamps_TB,
        stamp_type=grid.stamp_type,
    )


def _split(panel: Panel, train_B: Integers, choose_B: Integers) -> SplitByRows:
    borders = [max(panel.label(b, int(row) - 1) for b, row in enumerate(rows_B)) for rows_B in (train_B, choose_B)]
    rows = {name: (int(train), int(choose)) for name, train, choose in zip(panel.series_ids, train_B, choose_B, strict=True)}
    return SplitByRows(borders[0], borders[1], rows)
