"""What a peer is given and gives back: a folder of Parquet and JSON that knows nothing of tidecast.

    series.parquet     unique_id, ds, y, one column for each past covariate: every tick up to the last origin, y missing in gaps
    borders.parquet    unique_id, num_train, num_validation: rows up to the end of training, and of validation (training included)
    origins.parquet    unique_id, cutoff: the forecasts asked for, each of which may read `cutoff` and what is before it
    task.json          horizon, season, interval, frequency, levels, covariates, seconds, seed, threads
    NAME/forecasts.parquet    unique_id, cutoff, ds, q0.1 … q0.9
    NAME/peer.json            library, version, settings, times, how training ended

Series are on a regular grid of UTC instants, whatever the file calls its time; series of the LTSF protocol are standardised by
the mean and standard deviation of their training rows, as that protocol has it, and so are covariates. Forecasts go back to the
file's own units and stamps. Called by `python -m benchmarks.peers`; `benchmarks.peers.peer_task` is the other side.

Letters: B series, O origins, R rows of a long table, Q quantile levels.
"""

import hashlib
import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.accuracy.scores import LEVELS
from benchmarks.accuracy.stamps import MONTH
from benchmarks.accuracy.task import Task
from pipeline.errors import DataError, SettingsError
from pipeline.evaluate.metrics import moments
from pipeline.query.frames import quantile_column
from pipeline.schemas import EPOCH

COLUMNS = tuple(quantile_column(level) for level in LEVELS)
THREADS = 1

Words = dict[str, object]


@dataclass(frozen=True)
class Budget:
    """What a peer may spend, and what it is asked.

    Attributes:
        seconds: CPU seconds of training, on one thread.
        stride: every how many origins of a series one is forecast, by everybody.
        seed: of the peer's random numbers.
    """

    seconds: float = 600.0
    stride: int = 1
    seed: int = 1


@dataclass(frozen=True)
class Exchange:
    """A task in the words of the exchange folder, with the way back.

    Attributes:
        task: where it came from.
        frames: the tables by name.
        words: what goes into task.json.
        rows: row and column of the panel of each origin, in the order of `frames["origins"]`: (O,) each.
        centre_B: subtracted from each series.
        scale_B: then divided by.
    """

    task: Task
    frames: dict[str, pl.DataFrame]
    words: Words
    rows: tuple[NDArray[np.int64], NDArray[np.int64]]
    centre_B: NDArray[np.float64]
    scale_B: NDArray[np.float64]

    @property
    def origins(self) -> pl.DataFrame:
        """The origins asked for, in the file's words: unique_id, cutoff."""
        rows_O, columns_O = self.rows
        return pl.DataFrame({"unique_id": self.task.ids.gather(columns_O), "cutoff": self.task.stamps(rows_O, columns_O)})

    @property
    def fingerprint(self) -> str:
        """The same for the same task and budget: what makes a stored result one of this task."""
        text = hashlib.sha256(json.dumps(self.words, sort_keys=True).encode())
        for name in sorted(self.frames):
            text.update(self.frames[name].write_csv().encode())
        return text.hexdigest()[:16]

    def write(self, folder: Path) -> None:
        """Write the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, frame in self.frames.items():
            frame.write_parquet(folder / f"{name}.parquet")
        (folder / "task.json").write_text(json.dumps({**self.words, "fingerprint": self.fingerprint}, indent=2) + "\n")

    def read_forecasts(self, path: Path) -> pl.DataFrame:
        """Return a peer's forecasts in the file's own units and stamps: unique_id, cutoff, ds, q0.1 … q0.9.

        Raises:
            DataError: when an origin or a step is missing or there twice, or a quantile is not finite.
        """
        asked, horizon = self.frames["origins"].with_row_index("origin"), self.task.horizon
        found = pl.read_parquet(path).join(asked, on=["unique_id", "cutoff"]).sort("origin", "ds")
        steps = found.group_by("origin").agg(pl.len(), different=pl.col("ds").n_unique())
        values_RQ = found.select(COLUMNS).to_numpy()
        if steps.height != asked.height or not (steps["len"] == horizon).all() or not (steps["different"] == horizon).all():
            raise DataError(
                f"A peer requires {horizon} steps from each of {asked.height} origins; got {found.height} rows from {steps.height} in "
                f"{path}. Remove the file and run the peer again."
            )
        if not np.isfinite(values_RQ).all():
            raise DataError(f"A peer requires finite quantiles; got others in {path}. Remove the file and run the peer again.")
        rows_R, columns_R = (np.repeat(part_O, horizon) for part_O in self.rows)
        targets_R = rows_R + np.tile(np.arange(1, horizon + 1), asked.height)
        there_R = targets_R < self.task.panel.length_B[columns_R]  # a series shorter than the horizon has no stamps for all steps
        rows_R, columns_R, targets_R = rows_R[there_R], columns_R[there_R], targets_R[there_R]
        in_units_RQ = values_RQ[there_R] * self.scale_B[columns_R, None] + self.centre_B[columns_R, None]
        stamps = {
            "unique_id": self.task.ids.gather(columns_R),
            "cutoff": self.task.stamps(rows_R, columns_R),
            "ds": self.task.stamps(targets_R, columns_R),
        }
        return pl.DataFrame(stamps).hstack(pl.from_numpy(in_units_RQ, list(COLUMNS)))


def exchange_of(task: Task, budget: Budget) -> Exchange:
    """Say a task in neutral words.

    Args:
        task: with past covariates where the peers are to have them.
        budget: what a peer may spend; its stride thins out the origins of each series.

    Raises:
        SettingsError: for a stride that shares a factor with the season, which would leave hours of the day out.
    """
    if budget.stride < 1 or (budget.stride > 1 and math.gcd(budget.stride, task.season) > 1):
        raise SettingsError(
            f"--stride requires a number coprime to the season of {task.season} ticks, so that every phase occurs; got {budget.stride}. "
            "Take a prime that does not divide it."
        )
    rows_O, columns_O = _origins(task, budget.stride)
    centre_B, scale_B = _scales(task)
    last_B = np.full(len(task.ids), -1)
    np.maximum.at(last_B, columns_O, rows_O)
    grids = {b: _grid(task, b, int(last_B[b]) + 1) for b in np.unique(columns_O)}
    frames = {
        "series": pl.concat(_series(task, b, grid, centre_B[b], scale_B[b]) for b, grid in grids.items()),
        "borders": _borders(task, list(grids)),
        "origins": pl.concat(
            pl.DataFrame({"unique_id": task.panel.series_ids[b], "cutoff": grid.gather(rows_O[columns_O == b])})
            for b, grid in grids.items()
        ),
    }
    words: Words = {
        "horizon": task.horizon,
        "season": task.season,
        "interval_s": task.panel.interval.total_seconds(),
        "frequency": _frequency(task.panel.interval),
        "has_calendar": task.has_calendar,
        "levels": list(LEVELS),
        "covariates": list(task.past_covariates),
        "seconds": budget.seconds,
        "seed": budget.seed,
        "threads": THREADS,
    }
    return Exchange(task, frames, words, (rows_O, columns_O), centre_B, scale_B)


def _origins(task: Task, stride: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return row and column of every `stride`-th test origin of each series."""
    rows = [np.arange(first, last + 1, stride) for first, last in zip(task.test.first_B, task.test.last_B, strict=True)]
    return np.concatenate(rows), np.repeat(np.arange(len(rows)), [len(part) for part in rows])


def _scales(task: Task) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what each series is centred and scaled by: nothing, but in the LTSF protocol."""
    num_series = len(task.ids)
    if not task.is_standardised:
        return np.zeros(num_series), np.ones(num_series)
    parts = [task.panel.values_TB[:rows, b] for b, rows in enumerate(task.split.train_rows(task.panel))]
    means_and_deviations = np.array([moments(part) for part in parts])
    return means_and_deviations[:, 0], means_and_deviations[:, 1]


def _grid(task: Task, column: int, length: int) -> pl.Series:
    """Return the regular UTC instants of a series' first rows; months where its ticks are months."""
    start, interval = task.panel.label(column, 0), task.panel.interval
    if interval % MONTH == timedelta(0):
        month = round((start - EPOCH) / MONTH)
        start = datetime(1970 + month // 12, month % 12 + 1, 1, tzinfo=UTC)
        end = start.replace(year=start.year + length * (interval // MONTH) // 12 + 1)
        return pl.datetime_range(start, end, f"{interval // MONTH}mo", time_unit="us", eager=True).head(length)
    return pl.datetime_range(start, start + (length - 1) * interval, interval, time_unit="us", eager=True)


def _series(task: Task, column: int, grid: pl.Series, centre: float, scale: float) -> pl.DataFrame:
    """Return the rows of one series, its covariates standardised by their training part."""
    num_train = int(task.split.train_rows(task.panel)[column])
    values = (task.panel.values_TB[: len(grid), column] - centre) / scale
    columns = {"y": values}
    for name, covariate_T in task.past_covariates.items():
        mean, deviation = moments(covariate_T[:num_train])
        columns[name] = (covariate_T[: len(grid)] - mean) / deviation
    stamps = pl.DataFrame({"unique_id": [task.panel.series_ids[column]] * len(grid), "ds": grid})
    return stamps.hstack(pl.DataFrame(columns, nan_to_null=True))


def _borders(task: Task, columns: list[int]) -> pl.DataFrame:
    train_B, validation_B = task.split.train_rows(task.panel), task.split.validation_rows(task.panel)
    return pl.DataFrame(
        {
            "unique_id": [task.panel.series_ids[b] for b in columns],
            "num_train": train_B[columns].astype(np.int64),
            "num_validation": validation_B[columns].astype(np.int64),
        }
    )


def _frequency(interval: timedelta) -> str:
    """Return a spacing in pandas' words, which all the libraries understand: `h`, `5min`, `D`, `W`, `MS`."""
    if interval % MONTH == timedelta(0):
        return _times(interval // MONTH, "MS")
    for unit, name in ((timedelta(days=1), "D"), (timedelta(hours=1), "h"), (timedelta(minutes=1), "min"), (timedelta(seconds=1), "s")):
        if interval % unit == timedelta(0):
            return _times(interval // unit, name)
    return _times(interval // timedelta(milliseconds=1), "ms")


def _times(count: int, unit: str) -> str:
    return unit if count == 1 else f"{count}{unit}"
