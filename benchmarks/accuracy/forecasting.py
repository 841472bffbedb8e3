"""Forecasts of a task by the live engine, block by block, and their rows.

The carried state is advanced through the history once; a long period or a wide table comes in slices, so memory stays bounded.
Called by `benchmarks.accuracy.run`.

Letters: T rows, B series, O origins, N forecasts (pairs of series and origin), H horizon, Q quantile levels.
"""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
import polars as pl
import pyarrow.parquet
from numpy.typing import NDArray

from benchmarks.accuracy.scores import LEVELS
from benchmarks.accuracy.task import Origins, Task
from models.forecaster import CausalForecaster
from pipeline.errors import SettingsError
from pipeline.forecast.engine import StreamEngine
from pipeline.prepare.covariates import PanelCovariates
from pipeline.query.frames import quantile_column

CELLS = 6_000_000  # quantiles of one block: 48 MB
EXTRA_ORIGINS = 4_096  # forecasts that nobody asked for, so that series of different lengths can be advanced side by side
MOST_SERIES = 1_024  # advanced side by side


class Forecasts(NamedTuple):
    """Some forecasts of a task.

    Attributes:
        columns_N: which series.
        origins_N: the row each was issued at.
        quantiles_NHQ: float64, in the unit of the file; calibrated online, as live forecasts are.
        uncalibrated_NHQ: as the network has them.
    """

    columns_N: NDArray[np.int64]
    origins_N: NDArray[np.int64]
    quantiles_NHQ: NDArray[np.float64]
    uncalibrated_NHQ: NDArray[np.float64]


def forecast(forecaster: CausalForecaster, task: Task, origins: Origins) -> Iterator[Forecasts]:
    """Yield the forecasts of every origin of a period; those of a series come in the order of time."""
    config = forecaster.config
    for columns_B in _side_by_side(origins):
        first_B, last_B = origins.first_B[columns_B], origins.last_B[columns_B]
        rows_O = np.unique(np.concatenate([np.arange(first, last + 1) for first, last in zip(first_B, last_B, strict=True)]))
        part = task.panel.columns(columns_B).first_rows(last_B + 1)  # nothing after a series' last origin is even handed over
        values_TB, time_TB, covariates = part.values_TB, part.time_TB, part.covariates
        engine, start = StreamEngine.fresh(forecaster, len(columns_B), calibrate=True), 0
        per_origin = len(columns_B) * config.horizon * len(config.quantile_levels)
        for slice_O in np.split(rows_O, np.arange(0, len(rows_O), max(1, CELLS // per_origin))[1:]):
            end = int(slice_O[-1]) + 1
            here = covariates and PanelCovariates(covariates.names, *covariates.window(start, end, config.horizon))
            for block in engine.advance(values_TB[start:end], time_TB[start:end], slice_O - start, here):
                row_O = block.origins_O + start
                o_N, b_N = np.nonzero((row_O[:, None] >= first_B[block.columns_B]) & (row_O[:, None] <= last_B[block.columns_B]))
                if len(o_N):
                    calibrated_NHQ, uncalibrated_NHQ = block.quantiles_OBHQ[o_N, b_N], block.uncalibrated_OBHQ[o_N, b_N]
                    yield Forecasts(columns_B[block.columns_B[b_N]], row_O[o_N], calibrated_NHQ, uncalibrated_NHQ)
            start = end


def _side_by_side(origins: Origins) -> Iterator[NDArray[np.int64]]:
    """Yield columns whose origins are the same or few enough to forecast at all of them."""
    batch: list[int] = []
    rows: set[int] = set()
    for column in np.lexsort((origins.first_B, origins.last_B)).tolist():
        new = range(int(origins.first_B[column]), int(origins.last_B[column]) + 1)
        if not new:
            continue
        more = rows.union(new)
        if batch and (len(batch) == MOST_SERIES or (len(more) > len(rows) and (len(batch) + 1) * len(more) > EXTRA_ORIGINS)):
            yield np.array(batch)
            batch, more = [], set(new)
        batch.append(column)
        rows = more
    if batch:
        yield np.array(batch)


def to_frame(task: Task, forecasts: Forecasts) -> pl.DataFrame:
    """Return forecasts in long form, one row for each step that has a row in the file: unique_id, cutoff, ds, q0.1 … q0.9."""
    num_forecasts, horizon, _ = forecasts.quantiles_NHQ.shape
    columns_R = np.repeat(forecasts.columns_N, horizon)
    origins_R = np.repeat(forecasts.origins_N, horizon)
    targets_R = origins_R + np.tile(np.arange(1, horizon + 1), num_forecasts)
    there_R = targets_R < task.panel.length_B[columns_R]
    columns_R, quantiles_RQ = columns_R[there_R], forecasts.quantiles_NHQ.reshape(-1, len(LEVELS))[there_R]
    return pl.DataFrame(
        {
            "unique_id": task.ids.gather(columns_R),
            "cutoff": task.stamps(origins_R[there_R], columns_R),
            "ds": task.stamps(targets_R[there_R], columns_R),
            **{quantile_column(level): quantiles_RQ[:, q] for q, level in enumerate(LEVELS)},
        }
    )


class ForecastWriter:
    """Writes forecasts to a Parquet file, a row group for each block; used as a context."""

    def __init__(self, path: Path, task: Task) -> None:
        self.path, self.task = path, task
        self._writer: pyarrow.parquet.ParquetWriter | None = None

    def __enter__(self) -> Self:
        """Make sure, before hours of training, that the file can be written.

        Raises:
            SettingsError: when its folder is not there or it cannot be opened.
        """
        try:
            self.path.open("ab").close()
        except OSError as error:
            raise SettingsError(f"--out requires a file that can be written; got {self.path}: {error.strerror}. Name another.") from error
        return self

    def write(self, forecasts: Forecasts, seed: int | None) -> None:
        """Append a block, with a column `seed` where there are several; every block alike."""
        frame = to_frame(self.task, forecasts)
        if seed is not None:
            frame = frame.insert_column(0, pl.lit(seed, pl.Int64).alias("seed"))
        table = frame.to_arrow()
        if self._writer is None:
            self._writer = pyarrow.parquet.ParquetWriter(self.path, table.schema, compression="zstd")
        self._writer.write_table(table)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Finish the file; leave none behind that holds nothing."""
        if self._writer is not None:
            self._writer.close()
        elif not self.path.stat().st_size:
            self.path.unlink()
