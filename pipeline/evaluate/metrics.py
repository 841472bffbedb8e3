"""Score forecasts block by block: sums by step are kept, so any batch size, order or sharding gives the same metrics.

Called by `pipeline.evaluate.scoring` and by benchmarks; NumPy in, Polars out. Every metric of the table below comes from sums over
the scored points, those with a finite actual; nothing else is ever left out.

    y actual · q_p quantile at level p · m median · a, r scales of the series (`seasonal_scale`) · means over scored points

    mse, mae       mean (y − m)², mean |y − m|                     (the median serves both; MSE would favour a mean)
    mase           mean |y − m| / a                                Hyndman & Koehler 2006, seasonal, scale from training data only
    rmsse          √ mean (y − m)² / r²                            M5 competition, with the seasonal instead of the lag-1 naive
    wql            mean over p of  2 Σ ρ_p(y − q_p) / Σ |y|        GluonTS `MeanWeightedSumQuantileLoss`; GIFT-Eval's "CRPS"
    crps           mean over p of  mean 2 ρ_p(y − q_p)             Riemann sum of the CRPS; unit of y (Gneiting & Raftery 2007)
    coverage_80    share of q_0.1 ≤ y ≤ q_0.9                      0.8 is right; `width_80` is the mean of q_0.9 − q_0.1

with the pinball loss ρ_p(e) = max(p·e, (p − 1)·e). One `ForecastScores` over many series weighs every point alike: for the M5's
mean over series of RMSSE keep one accumulator for each series and average. A constant series has no scale: its points are absent
from mase and rmsse, and `num_scaled` says how many points those rest on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from pipeline.errors import DataError, SettingsError

Floats = NDArray[np.float64]
MEDIAN, LOWER, UPPER = 0.5, 0.1, 0.9


class SeasonalScale(NamedTuple):
    """The in-sample error of the seasonal naive forecast, NaN where it is undefined or zero; arrays hold one for each series."""

    absolute: float | Floats  # mean |y_t − y_{t−season}|, the denominator of MASE
    squared: float | Floats  # √ mean (y_t − y_{t−season})², the denominator of RMSSE


UNSCALED = SeasonalScale(float("nan"), float("nan"))


def seasonal_scale(values: ArrayLike, season: int) -> SeasonalScale:
    """Return the scales of one or many series from their training part alone.

    Args:
        values: history up to the end of training, `(…, time)`, NaN in gaps (pairs with a gap are left out).
        season: ticks in a season; 1 is the last-value forecast.

    Raises:
        SettingsError: for a season below 1.

    >>> seasonal_scale([1.0, 2.0, 4.0, 4.0], season=2)
    SeasonalScale(absolute=2.5, squared=2.5495097567963922)
    """
    if season < 1:
        raise SettingsError(f"A seasonal scale requires season >= 1; got {season}. Give the number of ticks in a season.")
    history = np.asarray(values, dtype=np.float64)
    difference = history[..., season:] - history[..., :-season]
    known = np.isfinite(difference)
    count = known.sum(axis=-1)
    scales = []
    for errors in (np.abs(difference), difference**2):
        total = np.where(known, errors, 0.0).sum(axis=-1)
        scales.append(np.divide(total, count, out=np.full(np.shape(total), np.nan), where=(count > 0) & (total > 0)))
    absolute, squared = scales[0], np.sqrt(scales[1])
    return SeasonalScale(absolute, squared) if history.ndim > 1 else SeasonalScale(float(absolute), float(squared))


def moments(values: ArrayLike) -> tuple[float, float]:
    """Return mean and standard deviation of the known values, 0 and 1 where they cannot standardise anything: none, or all alike."""
    history = np.asarray(values, dtype=np.float64)
    known = history[np.isfinite(history)]
    return (float(known.mean()), float(known.std()) or 1.0) if known.size else (0.0, 1.0)


@dataclass
class _Sums:
    """Sums over the scored points, by step; the whole state of a `ForecastScores`."""

    num_points: Floats  # (horizon,)
    squared: Floats
    absolute: Floats
    actual: Floats  # of |y|
    inside: Floats
    width: Floats
    num_scaled: Floats
    scaled_absolute: Floats
    scaled_squared: Floats
    pinball: Floats  # (horizon, levels)

    @classmethod
    def zeros(cls, horizon: int, num_levels: int) -> "_Sums":
        """Return empty sums."""
        return cls(**{f.name: np.zeros((horizon, num_levels) if f.name == "pinball" else horizon) for f in fields(cls)})

    def add(self, other: "_Sums") -> None:
        """Add another set of sums in place."""
        for f in fields(self):
            setattr(self, f.name, getattr(self, f.name) + getattr(other, f.name))

    def total(self) -> "_Sums":
        """Return the sums over all steps, as one step."""
        return _Sums(**{f.name: getattr(self, f.name).sum(axis=0, keepdims=True) for f in fields(self)})


class ForecastScores:
    """Accumulates blocks of forecasts with what came true and yields the metrics of this module by step and overall.

    >>> scores = ForecastScores(horizon=2, quantile_levels=(0.1, 0.5, 0.9))
    >>> scores.add(actual=[[1.0, 2.0]], quantiles=[[[0.0, 1.0, 2.0], [0.0, 1.0, 1.5]]])
    >>> scores.overall().select("num_points", "mae", "coverage_80").row(0)
    (2, 0.5, 0.5)
    """

    def __init__(self, horizon: int, quantile_levels: Sequence[float]) -> None:
        levels = [round(float(level), 6) for level in quantile_levels]  # stored levels are float32
        missing = [level for level in (LOWER, MEDIAN, UPPER) if level not in levels]
        if horizon < 1 or missing:
            raise SettingsError(
                f"Forecast scores require horizon >= 1 and the quantile levels 0.1, 0.5 and 0.9; got {horizon} and {levels}. "
                "Forecast these levels too."
            )
        self.horizon = horizon
        self.quantile_levels = tuple(levels)
        self._sums = _Sums.zeros(horizon, len(levels))

    def add(self, actual: ArrayLike, quantiles: ArrayLike, scale: SeasonalScale = UNSCALED) -> None:
        """Score a block of forecasts.

        Args:
            actual: what came true, `(…, horizon)`; NaN where unknown, which leaves the point out.
            quantiles: the forecasts, `(…, horizon, levels)`.
            scale: of the block's series, each a number or an array that broadcasts to `actual`'s leading axes
                (`(series, 1)` for a block of `(series, origins, horizon)`).

        Raises:
            DataError: for shapes that do not fit, or a forecast that is not finite where the actual is known.
        """
        y = np.asarray(actual, dtype=np.float64)
        q = np.asarray(quantiles, dtype=np.float64)
        shape = (self.horizon, len(self.quantile_levels))
        if y.ndim < 1 or q.shape != (*y.shape, shape[1]) or y.shape[-1] != self.horizon:
            raise DataError(
                f"Forecast scores require actual (…, {shape[0]}) and quantiles (…, {shape[0]}, {shape[1]}); got {y.shape} and {q.shape}. "
                "Give both for the same points."
            )
        scales = [np.broadcast_to(np.asarray(part)[..., None], y.shape).reshape(-1, self.horizon) for part in scale]
        y, q = y.reshape(-1, self.horizon), q.reshape(-1, *shape)
        known = np.isfinite(y)
        broken = int((~np.isfinite(q).all(axis=-1) & known).sum())
        if broken:
            raise DataError(
                f"Forecast scores require finite quantiles wherever the actual is known; got {broken} others. Mend the forecast."
            )
        self._sums.add(self._block(np.where(known, y, 0.0), q, known, SeasonalScale(*scales)))

    def merge(self, other: "ForecastScores") -> None:
        """Add what another accumulator has scored (a shard, another series).

        Raises:
            SettingsError: when it has another horizon or other quantile levels.
        """
        if (other.horizon, other.quantile_levels) != (self.horizon, self.quantile_levels):
            raise SettingsError(
                f"Merging scores requires the same horizon and levels; got {self.horizon}, {self.quantile_levels} and "
                f"{other.horizon}, {other.quantile_levels}. Score both alike."
            )
        self._sums.add(other._sums)

    def by_step(self) -> pl.DataFrame:
        """Return one row for each step: `step, num_points, mse … width_80, num_scaled`; null where nothing was scored."""
        return _metrics(self._sums).insert_column(0, pl.int_range(1, self.horizon + 1, dtype=pl.Int32, eager=True).alias("step"))

    def overall(self) -> pl.DataFrame:
        """Return one row over all steps, with the columns of `by_step` but `step`; every scored point weighs the same."""
        return _metrics(self._sums.total())

    def _block(self, y: Floats, q: Floats, known: NDArray[np.bool_], scale: SeasonalScale) -> _Sums:
        """Sum one block: `y` and `known` (points, horizon), `q` (points, horizon, levels); `y` is 0 where unknown."""
        by_level = [np.where(known, q[..., number], 0.0) for number in range(len(self.quantile_levels))]
        lower, median, upper = (by_level[self.quantile_levels.index(level)] for level in (LOWER, MEDIAN, UPPER))
        error = y - median
        scaled = known & np.isfinite(scale.absolute) & np.isfinite(scale.squared)
        pinball = [
            np.maximum(level * (y - quantile), (level - 1.0) * (y - quantile)).sum(axis=0)
            for level, quantile in zip(self.quantile_levels, by_level, strict=True)
        ]
        return _Sums(
            num_points=known.sum(axis=0, dtype=np.float64),
            squared=(error**2).sum(axis=0),
            absolute=np.abs(error).sum(axis=0),
            actual=np.abs(y).sum(axis=0),
            inside=((lower <= y) & (y <= upper) & known).sum(axis=0, dtype=np.float64),
            width=(upper - lower).sum(axis=0),
            num_scaled=scaled.sum(axis=0, dtype=np.float64),
            scaled_absolute=np.divide(np.abs(error), scale.absolute, out=np.zeros_like(y), where=scaled).sum(axis=0),
            scaled_squared=(np.divide(error, scale.squared, out=np.zeros_like(y), where=scaled) ** 2).sum(axis=0),
            pinball=np.stack(pinball, axis=-1),
        )


def _metrics(sums: _Sums) -> pl.DataFrame:
    """Turn sums into metrics, one row for each step in them."""

    def ratio(numerator: Floats, denominator: Floats) -> Floats:
        out: Floats = np.full(numerator.shape, np.nan)
        np.divide(numerator, denominator, out=out, where=denominator > 0)
        return out

    columns = {
        "mse": ratio(sums.squared, sums.num_points),
        "mae": ratio(sums.absolute, sums.num_points),
        "mase": ratio(sums.scaled_absolute, sums.num_scaled),
        "rmsse": np.sqrt(ratio(sums.scaled_squared, sums.num_scaled)),
        "wql": ratio(2.0 * sums.pinball.mean(axis=-1), sums.actual),
        "crps": ratio(2.0 * sums.pinball.mean(axis=-1), sums.num_points),
        "coverage_80": ratio(sums.inside, sums.num_points),
        "width_80": ratio(sums.width, sums.num_points),
    }
    counts = pl.DataFrame({"num_points": sums.num_points.astype(np.int64)})
    scaled = pl.DataFrame({"num_scaled": sums.num_scaled.astype(np.int64)})
    return pl.concat([counts, pl.DataFrame(columns).fill_nan(None), scaled], how="horizontal")
