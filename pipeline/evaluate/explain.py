"""What moved a forecast of the champion: which readings, which other inputs, and by how much, in the metric's unit.

The readings are those that were known at the origin, and the forecast is the median that was issued there. What hedging moved it by is a
part of its own: the gradients are those of the network. Called by `flows.cli_explain`; the arithmetic is in `models.explain`.

Letters: T ticks of the window, the last of them the origin; U known-future covariates, S = T + horizon.
"""

import copy
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.config import ForecasterConfig
from models.explain import Attribution, Window, integrated_gradients
from models.forecaster import CausalForecaster
from pipeline.errors import DataError
from pipeline.forecast.engine import StreamEngine
from pipeline.prepare.covariates import CovariateNames, tensors
from pipeline.prepare.join_covariates import join_covariates
from pipeline.prepare.sequences import Panel, serving_series, to_panel
from pipeline.settings import Settings
from pipeline.store.catalog import Catalog
from pipeline.store.lake import Lake
from pipeline.store.observations import read_observations
from pipeline.tracking.registry import champion

Floats = NDArray[np.float64]

BEYOND_REACH = 32  # ticks more than a step reads directly: what older ones still say is in the state
TOP_LAGS = 8
NOISE = 1e-6  # of a forecast: what single precision leaves of a difference
LAST, REST, HEDGING = "the last reading", "calendar, attributes and older memory", "hedging (last value, recent mean)"


@dataclass(frozen=True)
class Contribution:
    """A part of a forecast, and what it adds, in the metric's unit."""

    part: str
    amount: float


@dataclass(frozen=True)
class LagContribution:
    """One reading, so many ticks before the origin, and what it adds; both in the metric's unit."""

    lag: int
    ts: datetime
    reading: float
    amount: float


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Why the median of one step is what it is; amounts in the metric's unit.

    Attributes:
        series_id, unit: of the metric.
        model_version: that forecast.
        origin, step, target: when it was issued, for which step, and for when.
        sample_interval: of a tick.
        forecast: the median.
        parts: from the level on, what adds up to the forecast.
        lags: the readings that moved it most, first the one that did so most.
        unexplained: what the parts lack to the forecast, an error of the numerical integral.
        readings_T: readings of the window, NaN where not observed.
        amounts_T: what each of them added.
    """

    series_id: str
    unit: str | None
    model_version: str
    origin: datetime
    step: int
    target: datetime
    sample_interval: timedelta
    forecast: float
    parts: tuple[Contribution, ...]
    lags: tuple[LagContribution, ...]
    unexplained: float
    readings_T: Floats
    amounts_T: Floats

    @property
    def level(self) -> float:
        """The running mean that the parts start from."""
        return self.parts[0].amount

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form, without the window."""
        names = ("series_id", "unit", "model_version", "origin", "step", "target", "forecast", "unexplained")
        parts, lags = [vars(part) for part in self.parts], [vars(lag) for lag in self.lags]
        return {name: getattr(self, name) for name in names} | {"parts": parts, "lags": lags}


def explain(settings: Settings, series: str, *, origin: datetime | None = None, step: int = 1) -> Explanation:
    """Explain a forecast of the champion.

    Args:
        settings: where lake and registry are.
        series: a series id, or a pattern that one matches.
        origin: the last tick that was known; None for the newest. Between two ticks, the earlier; not beyond the newest.
        step: 1 … horizon.

    Raises:
        DataError: when it is not one series, or nothing was known of it at the origin.
        ModelError: when there is no champion.
    """
    model = champion(settings)
    config, forecaster = model.model.config, copy.deepcopy(model.model).double().requires_grad_(requires_grad=False)
    if not 1 <= step <= config.horizon:
        raise DataError(f"An explanation requires a step of 1 to {config.horizon}, the champion's horizon; got {step}. Choose one of them.")
    panel, unit = _panel(settings, series, config)
    panel = panel if origin is None else _known_at(panel, origin)
    if not panel.series_ids or not panel.observed_TB.any():
        raise DataError(f"An explanation requires readings known at its origin; got none of {series!r}. Choose a later --origin.")
    num_ticks = int(panel.length_B[0])
    window = _window(forecaster, panel, num_ticks)
    found = integrated_gradients(forecaster, window, step)
    amounts_T, readings_T = found.target_T.numpy(), window.values_T.numpy()
    parts, forecast = _parts(found, readings_T, config, panel.interval, step), found.forecast
    if settings.forecast.calibrate:
        hedged = _hedging(model.model, panel, num_ticks, step)
        parts, forecast = (*parts, Contribution(HEDGING, hedged)), forecast + hedged
    return Explanation(
        series_id=panel.series_ids[0],
        unit=unit,
        model_version=model.version,
        origin=panel.label(0, num_ticks - 1),
        step=step,
        target=panel.label(0, num_ticks - 1 + step),
        sample_interval=panel.interval,
        forecast=forecast,
        parts=parts,
        lags=_top_lags(readings_T, amounts_T, panel, num_ticks),
        unexplained=found.unexplained,
        readings_T=readings_T,
        amounts_T=amounts_T,
    )


def _known_at(panel: Panel, origin: datetime) -> Panel:
    """Return the panel as it was at an origin."""
    if panel.series_ids and origin >= panel.end + panel.interval:
        raise DataError(
            f"An explanation requires an origin that has been, up to {panel.end:%Y-%m-%dT%H:%MZ}; got {origin:%Y-%m-%dT%H:%MZ}. "
            "Choose an earlier --origin, or none for the newest."
        )
    return panel.truncated(origin)


def _panel(settings: Settings, series: str, config: ForecasterConfig) -> tuple[Panel, str | None]:
    """Return what was known of one series, and its unit."""
    lake, catalog = Lake(settings.lake), Catalog(settings.state_dir)
    names, lateness = CovariateNames(*config.covariate_names), settings.ingest.allowed_lateness
    fleet = serving_series(catalog.series(), [series], config.sample_interval_s, names.metrics)
    if fleet.height > 1:
        few = ", ".join(fleet["series_id"].head(5).to_list())
        raise DataError(f"An explanation requires one series; got {fleet.height} that match {series!r} ({few}). Name one of them.")
    panel = to_panel(read_observations(lake, series=fleet["series_id"].to_list(), on_time=lateness), fleet)
    panel = join_covariates(panel, names, lake, catalog, horizon=config.horizon, allowed_lateness=lateness)
    return panel, fleet["unit"].item()


def _window(forecaster: CausalForecaster, panel: Panel, num_ticks: int) -> Window:
    """Return the last ticks of a series, with the state carried to them from its first tick."""
    first = max(0, num_ticks - forecaster.config.history_length - BEYOND_REACH)
    values_TB, time_TB = torch.from_numpy(panel.values_TB), torch.from_numpy(panel.time_TB)
    state = forecaster.initial_state(1)
    if first > 0:
        before = slice(0, first)
        with torch.no_grad():
            known = tensors(panel.covariates, 0, first, forecaster.config.horizon)
            observed_TB = ~values_TB[before].isnan()
            _, state = forecaster.advance(state, values_TB[before], observed_TB, time_TB[before], covariates=known)
    covariates = tensors(panel.covariates, first, num_ticks, forecaster.config.horizon)
    return Window(state, values_TB[first:num_ticks, 0], time_TB[first:num_ticks, 0], covariates)


def _hedging(forecaster: CausalForecaster, panel: Panel, num_ticks: int, step: int) -> float:
    """Return what calibration moved the median by, which is what hedging did."""
    engine, median = StreamEngine.fresh(forecaster, 1, calibrate=True), forecaster.config.quantile_levels.index(0.5)
    (block,) = engine.advance(panel.values_TB[:num_ticks], panel.time_TB[:num_ticks], covariates=panel.covariates)
    return float((block.quantiles_OBHQ - block.uncalibrated_OBHQ)[0, 0, step - 1, median])


def _parts(found: Attribution, readings_T: Floats, config: ForecasterConfig, interval: timedelta, step: int) -> tuple[Contribution, ...]:
    """Return what adds up to the forecast: the level, what is not a reading, readings by age, covariates by name."""
    amounts: dict[str, float] = defaultdict(float)
    for lag, amount in _by_lag(readings_T, found.target_T.numpy()):
        amounts[_age_of(lag, readings_T, config, interval, step)] += amount
    for name, column in zip(config.past_covariates, found.past_TP.T, strict=True):
        amounts[f"{name} (past)"] = float(column.sum())
    for name, column in zip(config.future_covariates, found.future_SU.T, strict=True):
        amounts[f"{name} (known ahead)"] = float(column.sum())
    rest = found.baseline_forecast - found.level
    is_noise = abs(rest) < NOISE * abs(found.baseline_forecast)
    fixed = (Contribution("level (running mean)", found.level), Contribution(REST, 0.0 if is_noise else rest))
    return (*fixed, *(Contribution(part, amount) for part, amount in amounts.items()))


def _by_lag(readings_T: Floats, amounts_T: Floats) -> list[tuple[int, float]]:
    """Return lag and amount of every reading, the newest first."""
    lags = len(readings_T) - 1 - np.flatnonzero(~np.isnan(readings_T))[::-1]
    return [(int(lag), float(amounts_T[len(readings_T) - 1 - lag])) for lag in lags]


def _age_of(lag: int, readings_T: Floats, config: ForecasterConfig, interval: timedelta, step: int) -> str:
    """Return the group that a reading is in: the last one, the one a season before target or origin, or its age."""
    if lag == _filled(0, readings_T):
        return LAST
    for season in config.seasons:
        back = season * -(-step // season)  # whole seasons before the target, the newest not after the origin
        if lag == _filled(back - step, readings_T):
            return f"{_said(back * interval)} before the target"
        if lag == _filled(season, readings_T):
            return f"{_said(season * interval)} before the origin"
    multiple = next((season for season in config.seasons if (lag + step) % season == 0), None)
    if multiple is not None:  # what an anchor that averages seasons reads
        return f"further multiples of {_said(multiple * interval)} before the target"
    bounds = config.seasons or (config.context_length,)
    within = next((bound for bound in bounds if lag < bound), None)
    return f"others, up to {_said(within * interval)} old" if within is not None else "older readings"


def _filled(lag: int, readings_T: Floats) -> int | None:
    """Return the lag of the reading that stands for a tick: its own, or where it was missed the newest before it."""
    known = np.flatnonzero(~np.isnan(readings_T[: max(0, len(readings_T) - lag)]))
    return int(len(readings_T) - 1 - known[-1]) if len(known) else None


def _said(length: timedelta) -> str:
    """Say a duration in its largest whole unit.

    >>> [_said(timedelta(hours=hours)) for hours in (1, 24, 48, 168)]
    ['1 hour', '1 day', '2 days', '1 week']
    """
    units = {"week": timedelta(weeks=1), "day": timedelta(days=1), "hour": timedelta(hours=1), "minute": timedelta(minutes=1)}
    for name, unit in units.items():
        if length >= unit and length % unit == timedelta(0):
            return f"1 {name}" if length == unit else f"{length // unit} {name}s"
    return f"{length.total_seconds():g} seconds"


def _top_lags(readings_T: Floats, amounts_T: Floats, panel: Panel, num_ticks: int) -> tuple[LagContribution, ...]:
    ranked = sorted(_by_lag(readings_T, amounts_T), key=lambda pair: -abs(pair[1]))[:TOP_LAGS]
    return tuple(
        LagContribution(lag, panel.label(0, num_ticks - 1 - lag), float(readings_T[len(readings_T) - 1 - lag]), amount)
        for lag, amount in ranked
    )
