"""Score forecasts of a task, whoever made them: sums by series and step are kept, so any number of forecasts takes bounded memory.

    mse, mae     mean (y − point)², mean |y − median|, over all points; of LTSF tasks in standard deviations of the training rows,
                 which is what the literature's standardised errors are (mean and population deviation, a series at a time)
    mase         mean over series of  mean |y − median| / a,  with a the in-sample error of the seasonal naive forecast (Hyndman &
                 Koehler 2006): on the training rows of LTSF tasks, else on all rows up to the origin, as M4 and GluonTS have it;
                 series without one, constant ones say, are left out and counted
    wql          mean over the levels 0.1 … 0.9 of  2 Σ pinball / Σ |y|, in the units of the file, pooled over all series
                 (GluonTS `mean_weighted_sum_quantile_loss`, GIFT-Eval)
    coverage80   share of q0.1 ≤ y ≤ q0.9

Points without a value are never scored. Called by `benchmarks.accuracy.run`, which has arrays, and by `benchmarks.peers`, which has frames.

Letters: B series, N forecasts (pairs of series and origin), H horizon, Q quantile levels, R rows of a frame, T rows of the panel.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.accuracy.task import Origins, Task
from pipeline.errors import DataError
from pipeline.evaluate.metrics import LOWER, MEDIAN, UPPER, ForecastScores, moments, seasonal_scale
from pipeline.query.frames import quantile_column

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
METRICS = ("mse", "mae", "mase", "wql", "coverage80")
WINDOW = timedelta(days=30)
SLICE_ROWS = 400_000


class TaskScores:
    """Accumulates forecasts of one period of a task and yields its scores."""

    def __init__(self, task: Task, origins: Origins) -> None:
        self.task, self.origins = task, origins
        num_rows, num_series = task.panel.values_TB.shape
        past_B = task.split.train_rows(task.panel) if task.is_standardised else origins.first_B + 1
        past = [task.panel.values_TB[:rows, b] for b, rows in enumerate(past_B)]
        self._deviation_B = np.array([moments(past_T)[1] for past_T in past]) if task.is_standardised else np.ones(num_series)
        self._scale_B = np.array([seasonal_scale(past_T, task.season).absolute for past_T in past], dtype=np.float64)
        self._probabilistic = ForecastScores(task.horizon, LEVELS)
        self._count_BH = np.zeros((num_series, task.horizon))
        self._absolute_BH = np.zeros((num_series, task.horizon))
        self._squared_BH = np.zeros((num_series, task.horizon))
        self._count_T, self._inside_T = np.zeros(num_rows), np.zeros(num_rows)

    def add(self, columns_N: Integers, origins_N: Integers, quantiles_NHQ: Floats, point_NH: Floats | None = None) -> None:
        """Score some forecasts.

        Args:
            columns_N: which series.
            origins_N: the row each was issued at.
            quantiles_NHQ: at `LEVELS`, in the unit of the file; NaN where a step is not part of this block.
            point_NH: what the squared error is of; by default the median.

        Raises:
            DataError: for a forecast that is infinite.
        """
        targets_NH = origins_N[:, None] + np.arange(1, self.task.horizon + 1)
        values_TB = self.task.panel.values_TB
        safe_NH = np.minimum(targets_NH, len(values_TB) - 1)
        is_there_NH = (targets_NH < len(values_TB)) & ~np.isnan(quantiles_NHQ[..., 0])
        actual_NH = np.where(is_there_NH, values_TB[safe_NH, columns_N[:, None]], np.nan)
        self._probabilistic.add(actual_NH, quantiles_NHQ)
        known_NH = ~np.isnan(actual_NH)
        median_NH = quantiles_NHQ[..., LEVELS.index(MEDIAN)]
        point_NH = median_NH if point_NH is None else point_NH
        lower_NH, upper_NH = (quantiles_NHQ[..., LEVELS.index(level)] for level in (LOWER, UPPER))
        _add_by_series(self._count_BH, columns_N, known_NH.astype(np.float64))
        _add_by_series(self._absolute_BH, columns_N, np.where(known_NH, np.abs(actual_NH - median_NH), 0.0))
        _add_by_series(self._squared_BH, columns_N, np.where(known_NH, (actual_NH - point_NH) ** 2, 0.0))
        rows_R, inside_R = safe_NH[known_NH], ((lower_NH <= actual_NH) & (actual_NH <= upper_NH))[known_NH]
        self._count_T += np.bincount(rows_R, minlength=len(values_TB))
        self._inside_T += np.bincount(rows_R, weights=inside_R, minlength=len(values_TB))

    def result(self) -> dict[str, Any]:
        """Return the scores, plain numbers, None where nothing was scored.

        `by_lead` has a list of one number for each step; `coverage80_by_window` the smallest and the largest coverage of any 30 days of
        target time (None where series do not share their time); `points` those scored, `missing` those that were not forecast.
        """
        overall, by_step = self._probabilistic.overall(), self._probabilistic.by_step()
        points = int(self._count_BH.sum())
        by_lead = self._errors(self._count_BH, self._absolute_BH, self._squared_BH)
        totals = self._errors(*(part.sum(axis=1, keepdims=True) for part in (self._count_BH, self._absolute_BH, self._squared_BH)))
        return {
            **{name: value[0] for name, value in totals.items()},
            "wql": overall["wql"].item(),
            "coverage80": overall["coverage_80"].item(),
            "by_lead": {**by_lead, "wql": by_step["wql"].to_list(), "coverage80": by_step["coverage_80"].to_list()},
            "coverage80_by_window": self._by_window(),
            "points": points,
            "missing": self._expected() - points,
            "series_without_scale": int(np.isnan(self._scale_B).sum()),
        }

    def _errors(self, count_BH: Floats, absolute_BH: Floats, squared_BH: Floats) -> dict[str, list[float | None]]:
        deviation_B1 = self._deviation_B[:, None]
        num_H = count_BH.sum(axis=0)
        mean_BH = _ratio(absolute_BH, count_BH) / self._scale_B[:, None]
        scaled_BH = np.isfinite(mean_BH)
        metrics = {
            "mse": _ratio((squared_BH / deviation_B1**2).sum(axis=0), num_H),
            "mae": _ratio((absolute_BH / deviation_B1).sum(axis=0), num_H),
            "mase": _ratio(np.where(scaled_BH, mean_BH, 0.0).sum(axis=0), scaled_BH.sum(axis=0)),
        }
        return {name: [float(v) if np.isfinite(v) else None for v in values] for name, values in metrics.items()}

    def _by_window(self) -> dict[str, float] | None:
        panel = self.task.panel
        if len(np.unique(panel.labels_us(0))) > 1 or len(np.unique(self.origins.first_B)) > 1 or not self._count_T.any():
            return None
        used = slice(int(self.origins.first_B.min()) + 1, int(self.origins.last_B.max()) + self.task.horizon + 1)
        count_T, inside_T = self._count_T[used], self._inside_T[used]
        width = min(WINDOW // panel.interval, len(count_T)) or 1
        count_W, inside_W = (np.convolve(part_T, np.ones(width), mode="valid") for part_T in (count_T, inside_T))
        coverage_W = inside_W[count_W > 0] / count_W[count_W > 0]
        return {"smallest": float(coverage_W.min()), "largest": float(coverage_W.max())}

    def _expected(self) -> int:
        """Return how many points a complete set of forecasts has: the known targets of every origin."""
        known_TB = np.pad(~np.isnan(self.task.panel.values_TB), ((1, self.task.horizon), (0, 0))).cumsum(axis=0)
        total = 0
        for b, (first, last) in enumerate(zip(*self.origins, strict=True)):
            rows = np.arange(first, last + 1)
            total += int((known_TB[rows + 1 + self.task.horizon, b] - known_TB[rows + 1, b]).sum())
        return total


def score_frames(task: Task, frames: Iterable[pl.DataFrame], origins: Origins | None = None) -> dict[str, Any]:
    """Score forecasts in long form.

    Args:
        task: that was forecast.
        frames: unique_id, cutoff, ds, q0.1 … q0.9 and, where the squared error is not to be of the median, point; any order and number,
            each point at most once.
        origins: of the period that was forecast; by default the test's.

    Returns:
        As `TaskScores.result`.

    Raises:
        DataError: for a row that no origin of the task has asked for, or a repeated point.
    """
    origins = origins or task.test
    scores = TaskScores(task, origins)
    targets, cutoffs = _row_tables(task, origins)
    for frame in frames:
        for part in frame.sort("unique_id", "cutoff").iter_slices(SLICE_ROWS):
            _add_rows(scores, part, targets, cutoffs)
    result = scores.result()
    if result["missing"] < 0:
        raise DataError(f"Scoring requires each point once; got {-result['missing']} more than there are. Remove the repetitions.")
    return result


def _row_tables(task: Task, origins: Origins) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return column and row of each `ds` that may be a target, and of each that is a cutoff."""
    tables = []
    for name, first_B, end_B in (
        ("ds", origins.first_B + 1, np.minimum(origins.last_B + 1 + task.horizon, task.panel.length_B)),
        ("cutoff", origins.first_B, origins.last_B + 1),
    ):
        count_B = np.maximum(end_B - first_B, 0)
        columns_R = np.repeat(np.arange(len(count_B)), count_B)
        rows_R = first_B[columns_R] + np.arange(len(columns_R)) - (np.cumsum(count_B) - count_B)[columns_R]
        ids = pl.Series("unique_id", task.panel.series_ids).gather(columns_R)
        tables.append(
            pl.DataFrame([ids, task.stamps(rows_R, columns_R).alias(name), pl.Series("column", columns_R), pl.Series("row", rows_R)])
        )
    return tables[0], tables[1]


def _add_rows(scores: TaskScores, frame: pl.DataFrame, targets: pl.DataFrame, cutoffs: pl.DataFrame) -> None:
    """Scatter the rows of a frame into blocks of whole forecasts and score them."""
    task = scores.task
    keys = frame.select(pl.col("unique_id").cast(pl.String), pl.col("cutoff", "ds").cast(task.stamp_type))
    indices = keys.join(targets, on=["unique_id", "ds"], how="left", maintain_order="left").join(
        cutoffs.select("unique_id", "cutoff", origin="row"), on=["unique_id", "cutoff"], how="left", maintain_order="left"
    )
    step = pl.col("row") - pl.col("origin")
    strange = indices.filter(step.is_null() | (step < 1) | (step > task.horizon))
    if strange.height:
        first = "; ".join(
            f"{name} from {cutoff} for {ds}" for name, cutoff, ds in strange.select("unique_id", "cutoff", "ds").head(3).iter_rows()
        )
        raise DataError(f"Scoring requires forecasts that the task asks for; got {strange.height} others: {first}. Leave them out.")
    column_R, row_R, origin_R = (indices[name].to_numpy() for name in ("column", "row", "origin"))
    key_N, number_R = np.unique(column_R * len(task.panel.values_TB) + origin_R, return_inverse=True)
    columns_N, origins_N = np.divmod(key_N, len(task.panel.values_TB))
    quantiles_NHQ = np.full((len(key_N), task.horizon, len(LEVELS)), np.nan)
    at = (number_R, row_R - origin_R - 1)
    quantiles_NHQ[at] = frame.select(quantile_column(level) for level in LEVELS).cast(pl.Float64).to_numpy()
    if "point" not in frame.columns:
        return scores.add(columns_N, origins_N, quantiles_NHQ)
    point_NH = np.full(quantiles_NHQ.shape[:2], np.nan)
    point_NH[at] = frame["point"].cast(pl.Float64).to_numpy()
    return scores.add(columns_N, origins_N, quantiles_NHQ, point_NH)


def _add_by_series(total_BH: Floats, columns_N: Integers, part_NH: Floats) -> None:
    """Add each forecast's row to that of its series; `np.add.at` would do the same ten times slower."""
    order_N = np.argsort(columns_N, kind="stable")
    present, begin = np.unique(columns_N[order_N], return_index=True)
    total_BH[present] += np.add.reduceat(part_NH[order_N], begin, axis=0)


def _ratio(numerator: Floats, denominator: Floats | Integers) -> Floats:
    ratio: Floats = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=ratio, where=denominator > 0)
    return ratio
