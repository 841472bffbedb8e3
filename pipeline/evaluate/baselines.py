"""What a forecaster has to beat: seasonal naive, last value and one fitted statistical model, each with quantiles.

Called by the backtest, which scores them on the very origins and actuals of the model. Like a forecaster they may read nothing
after an origin; their spread comes from the errors that had matured by the first origin, so wQL and coverage are comparable.
Gaps are filled forward.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.clock import Clock
from pipeline.errors import DataError, SettingsError

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

MEDIAN = 0.5
MIN_HISTORY = 12  # ticks; exponential smoothing cannot be fitted to fewer
MIN_RESIDUALS = 8  # fewer errors say nothing about a 0.1 quantile
MAX_RESIDUALS = 2_000  # evenly spaced; the standard error of a 0.1 quantile is then 1.3 % of a density, and sorting stays cheap


def last_value(values: ArrayLike, origins: Sequence[int], *, horizon: int, quantile_levels: Sequence[float]) -> Floats:
    """Forecast that the last known value stays; as `seasonal_naive` with a season of one tick."""
    return seasonal_naive(values, origins, horizon=horizon, season=1, quantile_levels=quantile_levels)


def seasonal_naive(values: ArrayLike, origins: Sequence[int], *, horizon: int, season: int, quantile_levels: Sequence[float]) -> Floats:
    """Forecast the value of one season ago (of k seasons ago beyond the first), with the spread of its own past errors.

    The median is the textbook point forecast. The spread at level p is the p quantile of ± the errors that forecasts of the same
    lag made up to the first origin; where there are too few of them, of the next shorter lag, and else none.

    Args:
        values: one series on its grid, `(time,)`, NaN in gaps.
        origins: indices into `values` of the last tick each forecast may read.
        horizon: steps.
        season: ticks; where less than a season precedes an origin, the last value stands in.
        quantile_levels: ascending.

    Returns:
        Quantiles `(origins, horizon, levels)`, float64, in the unit of `values`.

    Raises:
        DataError: when an origin lies outside the series or before its first value.
        SettingsError: for a horizon or season below 1.

    >>> seasonal_naive([1.0, 5.0, 1.0, 5.0], [2, 3], horizon=2, season=2, quantile_levels=[0.5])[..., 0]
    array([[5., 1.],
           [1., 5.]])
    """
    if horizon < 1 or season < 1:
        raise SettingsError(f"A baseline requires horizon >= 1 and season >= 1; got {horizon} and {season}. Correct them.")
    history = np.asarray(values, dtype=np.float64)
    filled, at = _fill_forward(history), _checked(history, origins)
    steps = np.arange(1, horizon + 1)
    lags = season * -(-steps // season)
    source = at[:, None] + (steps - lags)
    point = np.where(source >= 0, filled[np.maximum(source, 0)], np.nan)
    point = np.where(np.isnan(point), filled[at][:, None], point)  # before the first season there is only the last value
    first = int(at.min())
    spread = _spread(history[: first + 1], filled[: first + 1], lags, np.asarray(quantile_levels, dtype=np.float64))
    return point[..., None] + spread


def _fill_forward(history: Floats) -> Floats:
    """Replace each NaN by the last value before it; NaN remain before the first value."""
    last_known = np.maximum.accumulate(np.where(np.isnan(history), 0, np.arange(history.size)))
    return history[last_known]


def _checked(history: Floats, origins: Sequence[int]) -> Indices:
    """Return the origins as an array, after checking that each has a value to start from."""
    at = np.asarray(origins, dtype=np.int64)
    known = np.flatnonzero(~np.isnan(history))
    if not at.size or not known.size or at.min() < known[0] or at.max() >= history.size:
        first = known[0] if known.size else "none"
        span = f"{at.min()}..{at.max()}" if at.size else "none"
        raise DataError(
            f"A baseline requires origins from the first known value (index {first}) to the last tick ({history.size - 1}); got {span}. "
            "Start the backtest later or leave this series out."
        )
    return at


def _spread(history: Floats, filled: Floats, lags: Indices, levels: Floats) -> Floats:
    """Return quantiles `(horizon, levels)` of ± the errors of forecasts `lag` ticks back, ascending lags, none from after `history`."""
    by_lag: dict[int, Floats] = {}
    current = np.zeros(levels.size)
    for lag in np.unique(lags):
        errors = history[lag:] - filled[: max(history.size - lag, 0)]
        errors = errors[np.isfinite(errors)]
        if errors.size >= MIN_RESIDUALS:
            errors = errors[:: -(-errors.size // MAX_RESIDUALS)]
            current = np.quantile(np.concatenate([errors, -errors]), levels)
        by_lag[int(lag)] = current
    return np.stack([by_lag[int(lag)] for lag in lags])


@dataclass(frozen=True)
class StatisticalForecasts:
    """Forecasts of the statistical baseline, at the origins that were reached in the time given."""

    quantiles: Floats  # (origins, horizon, levels)
    origins: Indices  # (origins,), ascending: those that were forecast
    num_requested: int
    model: str  # MSTL, or AutoETS where no season was given


def statistical(
    values: ArrayLike,
    origins: Sequence[int],
    *,
    horizon: int,
    seasons: Sequence[int],
    quantile_levels: Sequence[float],
    budget: timedelta,
    clock: Clock,
    context_length: int = 1_008,
) -> StatisticalForecasts:
    """Refit MSTL (Loess seasonality of each season, exponential smoothing of the rest; Bandara et al. 2021) at each origin.

    Origins are visited coarse to fine, so that those reached within the budget are spread over the whole period.

    Args:
        values: one series on its grid, `(time,)`, NaN in gaps.
        origins: indices of the last tick each forecast may read, as sampled by the caller.
        horizon: steps.
        seasons: ticks; those of which less than two fit into the history are left out, and without any it is AutoETS alone.
        quantile_levels: each a bound of an interval of whole percents (0.1 is the lower one of 80 %).
        budget: no further fit starts after this long; the first origin is always forecast.
        clock: measures the budget.
        context_length: most ticks of history in a fit (six weeks of hours).

    Raises:
        DataError: when an origin lies outside the series, or has less than `MIN_HISTORY` ticks before it.
        SettingsError: when statsforecast is not installed, or a level bounds no such interval.
    """
    columns = [_column(level) for level in quantile_levels]
    history = np.asarray(values, dtype=np.float64)
    at = np.unique(_checked(history, origins))
    first_known = int(np.flatnonzero(~np.isnan(history))[0])
    if at[0] + 1 - first_known < MIN_HISTORY:
        raise DataError(
            f"The statistical baseline requires {MIN_HISTORY} ticks up to the first origin; got {at[0] + 1 - first_known}. "
            "Start the backtest later or leave this series out."
        )
    filled, start = _fill_forward(history), clock.now()
    done: dict[int, Floats] = {}
    for position in _coarse_to_fine(at.size):
        if done and clock.now() - start >= budget:
            break
        origin = int(at[position])
        context = filled[max(first_known, origin + 1 - context_length) : origin + 1]
        done[origin] = _fit(context, horizon, seasons, columns)
    reached = np.array(sorted(done), dtype=np.int64)
    return StatisticalForecasts(np.stack([done[int(origin)] for origin in reached]), reached, at.size, "MSTL" if seasons else "AutoETS")


def _column(level: float) -> tuple[str, int]:
    """Return where statsforecast puts a quantile: the side of an interval and its coverage in percent."""
    percent = round(100 * abs(2 * level - 1))
    if not 0 < level < 1 or abs(percent - 100 * abs(2 * level - 1)) > 1e-3:
        raise SettingsError(
            f"The statistical baseline requires quantile levels that bound intervals of whole percents; got {level}. "
            "Use levels such as 0.1, 0.25, 0.5."
        )
    return ("mean" if percent == 0 else "lo" if level < MEDIAN else "hi", percent)


def _coarse_to_fine(count: int) -> Iterator[int]:
    """Yield 0..count−1 at strides that halve, so that any beginning is spread evenly.

    >>> list(_coarse_to_fine(6))
    [0, 4, 2, 1, 3, 5]
    """
    yield 0
    stride = 1 << (count - 1).bit_length()
    while stride := stride // 2:
        yield from range(stride, count, 2 * stride)


def _fit(history: Floats, horizon: int, seasons: Sequence[int], columns: Sequence[tuple[str, int]]) -> Floats:
    """Fit one history without NaN and return quantiles `(horizon, levels)`."""
    try:
        from statsforecast.models import MSTL, AutoETS
    except ModuleNotFoundError as error:
        raise SettingsError(
            "The statistical baseline requires statsforecast; got an installation without it. Run: pip install 'tidecast[stats]'."
        ) from error

    rest = AutoETS(model="ZZN")
    usable = [season for season in seasons if 2 <= season <= history.size // 2]
    model = MSTL(usable, trend_forecaster=rest) if usable else rest
    percents = sorted({percent for _, percent in columns if percent})
    forecast = model.forecast(y=history, h=horizon, level=percents or None)
    return np.stack([forecast["mean" if side == "mean" else f"{side}-{percent}"] for side, percent in columns], axis=-1)
