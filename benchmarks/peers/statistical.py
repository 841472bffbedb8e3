"""statsforecast's SeasonalNaive and AutoETS: one model for each series, with the normal intervals of the libraries.

Parameters are estimated once, on training data; at each origin the fitted model is filtered through what had come by then
(`forward`). AutoETS holds no season longer than 24 ticks; a longer one is taken off by MSTL, as the library advises, and AutoETS
forecasts the rest. Runs in the peers' environment, called by `benchmarks.peers.run_peer`.

Letters: O origins, H horizon, Q quantile levels.
"""

import time

import numpy as np
from statsforecast.models import MSTL, AutoETS, SeasonalNaive

from benchmarks.peers.peer_task import Floats, PeerResult, PeerSeries, PeerTask

LONGEST_ETS_SEASON = 24
FIT_TICKS = 2_016  # of the end of training: twelve weeks of hours; smoothing forgets what is before, and fitting takes its time
LEAST_SEASONS = 3
FEWEST_TICKS = 12  # the library fits nothing to fewer
MISSING = "filled forward"

Model = AutoETS | MSTL | SeasonalNaive


def seasonal_naive(task: PeerTask) -> PeerResult:
    """Repeat the last season; there is nothing to fit."""
    started = time.process_time()
    quantiles = {one.name: _forecast(task, SeasonalNaive(_usable_season(task, one)), one, _begin(task, one)) for one in task.series}
    return PeerResult(
        quantiles=quantiles,
        library="statsforecast",
        settings={"season_length": task.season},
        missing=MISSING,
        covariates="the model takes none",
        training_s=0.0,
        forecasting_s=time.process_time() - started,
        cut_off=False,
        how="nothing to fit",
    )


def auto_ets(task: PeerTask) -> PeerResult:
    """Fit a model for each series until the time is up; those left over get the seasonal naive forecast, and the record says so."""
    training_s, forecasting_s, num_fitted, quantiles = 0.0, 0.0, 0, {}
    for one in task.series:
        begin, model = _begin(task, one), _model(task, one)
        started = time.process_time()
        history = one.filled["y"].to_numpy(np.float64)[begin : one.num_train]
        if training_s < task.seconds and len(history) >= FEWEST_TICKS:
            model.fit(history)
            num_fitted += 1
        else:
            model = SeasonalNaive(_usable_season(task, one))
        fitted = time.process_time()
        quantiles[one.name] = _forecast(task, model, one, begin)
        training_s, forecasting_s = training_s + fitted - started, forecasting_s + time.process_time() - fitted
    cut_off = training_s >= task.seconds and num_fitted < len(task.series)
    is_long = task.season > LONGEST_ETS_SEASON
    return PeerResult(
        quantiles=quantiles,
        library="statsforecast",
        settings={"model": f"MSTL({task.season}) with AutoETS" if is_long else f"AutoETS({task.season})", "fit_ticks": FIT_TICKS},
        missing=MISSING,
        covariates="the model takes none",
        training_s=training_s,
        forecasting_s=forecasting_s,
        cut_off=cut_off,
        how=_how(task, num_fitted, cut_off=cut_off),
    )


def _how(task: PeerTask, num_fitted: int, *, cut_off: bool) -> str:
    """Say how fitting ended."""
    fitted = f"fitted {num_fitted} of {len(task.series)} series"
    if num_fitted == len(task.series):
        return fitted
    if cut_off:
        return f"stopped at {task.seconds:g} s after it {fitted}; the others are seasonal naive"
    return f"{fitted}; the others, shorter than {FEWEST_TICKS} ticks, are seasonal naive"


def _begin(task: PeerTask, one: PeerSeries) -> int:
    """Return the first row that fits and filters read: the state of a fitted model starts there."""
    return max(one.num_train - max(FIT_TICKS, LEAST_SEASONS * task.season), int(np.argmax(one.observed)), 0)


def _usable_season(task: PeerTask, one: PeerSeries) -> int:
    """Return the season if the first origin has seen one whole, else a tick."""
    return task.season if one.origins[0] + 1 - _begin(task, one) > task.season else 1


def _model(task: PeerTask, one: PeerSeries) -> Model:
    length = one.num_train - _begin(task, one)
    if task.season <= 1 or length < 2 * task.season:
        return AutoETS(1)
    return AutoETS(task.season) if task.season <= LONGEST_ETS_SEASON else MSTL(task.season, trend_forecaster=AutoETS(model="ZZN"))


def _forecast(task: PeerTask, model: Model, one: PeerSeries, begin: int) -> Floats:
    """Return the quantiles `(O, H, Q)` of one series."""
    history = one.filled["y"].to_numpy(np.float64)[begin:]
    columns = [_column(level) for level in task.levels]
    percents = sorted({percent for _, percent in columns if percent})
    quantiles = []
    for origin in one.origins - begin:
        told = model.forward(history[: origin + 1], h=task.horizon, level=percents)
        quantiles.append(np.stack([told["mean" if not percent else f"{side}-{percent}"] for side, percent in columns], axis=-1))
    return np.stack(quantiles).astype(np.float64)


def _column(level: float) -> tuple[str, int]:
    """Return the side of an interval and its coverage in percent, which is where the library puts a quantile."""
    return ("lo" if level < 0.5 else "hi", round(100 * abs(2 * level - 1)))
