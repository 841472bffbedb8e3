"""One seed of the benchmark: fit, forecast every origin, score; and the means over seeds.

The configuration is the one of `tidecast train`: nothing but horizon, interval and seasons depends on the data.
Called by `python -m benchmarks.accuracy`.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.accuracy.forecasting import Forecasts, forecast
from benchmarks.accuracy.scores import METRICS, TaskScores
from benchmarks.accuracy.task import Origins, Task
from models.config import ForecasterConfig
from models.forecaster import CausalForecaster
from pipeline.settings import TrainSettings
from pipeline.train.fit import Progress, fit, forecaster_config


def settings_of(task: Task, seed: int, max_seconds: float) -> TrainSettings:
    """Return the settings of training: the defaults, with the task's horizon and seasons."""
    natural = forecaster_config(TrainSettings(horizon=task.horizon), task.panel.interval).seasons if task.has_natural_seasons else ()
    seasons = tuple(sorted({*natural, *([task.season] if task.season > 1 else [])}))
    return TrainSettings(horizon=task.horizon, seasons=seasons, seed=seed, max_seconds=max_seconds)


def config_of(task: Task, settings: TrainSettings) -> ForecasterConfig:
    """Return the forecaster's configuration for a task."""
    config = forecaster_config(settings, task.panel.interval, task.panel.covariates)
    return replace(config, calendar=task.has_calendar)


def run_seed(
    task: Task, seed: int, max_seconds: float, progress: Progress, keep: Callable[[Forecasts], None] | None = None
) -> dict[str, Any]:
    """Fit one forecaster and score it on validation and test.

    Args:
        task: with its borders; training reads nothing after the validation border.
        seed: of weights and batches.
        max_seconds: of training.
        progress: told of every epoch.
        keep: given every block of the test's forecasts.

    Returns:
        The test's scores, with `validation` (likewise), seconds, epochs and parameters.
    """
    settings = settings_of(task, seed, max_seconds)
    started = time.perf_counter()
    fitted = fit(task.panel, task.split, config_of(task, settings), settings, progress)
    train_seconds = time.perf_counter() - started
    validation, _ = score(fitted.forecaster, task, task.validation)
    test, forecast_seconds = score(fitted.forecaster, task, task.test, keep)
    return {
        "seed": seed,
        **test,
        "validation": validation,
        "train_seconds": train_seconds,
        "forecast_seconds": forecast_seconds,
        "epochs": len(fitted.curves),
        "best_epoch": fitted.best_epoch,
        "num_parameters": fitted.num_parameters,
    }


def score(
    forecaster: CausalForecaster, task: Task, origins: Origins, keep: Callable[[Forecasts], None] | None = None
) -> tuple[dict[str, Any], float]:
    """Return the scores of every origin of a period, with those before calibration, and the seconds of forecasting alone."""
    scores, uncalibrated, seconds = TaskScores(task, origins), TaskScores(task, origins), 0.0
    blocks = forecast(forecaster, task, origins)
    while True:
        started = time.perf_counter()
        block = next(blocks, None)
        seconds += time.perf_counter() - started
        if block is None:
            return {**scores.result(), "uncalibrated": uncalibrated.result()}, seconds
        scores.add(block.columns_N, block.origins_N, block.quantiles_NHQ)
        uncalibrated.add(block.columns_N, block.origins_N, block.uncalibrated_NHQ)
        if keep is not None:
            keep(block)


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return means over seeds, of the test and of the validation period, and what each seed had."""
    validation = [run["validation"] for run in runs]
    counts = ("points", "missing", "series_without_scale", "num_parameters")
    return {
        **_means(runs),
        "uncalibrated": _means([run["uncalibrated"] for run in runs]),
        "validation": {**_means(validation), "uncalibrated": _means([run["uncalibrated"] for run in validation])},
        **{name: runs[0][name] for name in counts},
        **{name: _mean([run[name] for run in runs]) for name in ("train_seconds", "forecast_seconds")},
        "seeds": [
            {name: run[name] for name in ("seed", "epochs", "best_epoch")}
            | {name: _mean([run[name]]) for name in (*METRICS, "train_seconds", "forecast_seconds")}
            | {"validation": {name: _mean([run["validation"][name]]) for name in METRICS}}
            for run in runs
        ],
    }


def _means(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the means of scores; of coverage by window the widest range any seed had."""
    windows = [run["coverage80_by_window"] for run in runs if run["coverage80_by_window"] is not None]
    by_lead = {name: [_mean(list(leads)) for leads in zip(*(run["by_lead"][name] for run in runs), strict=True)] for name in METRICS}
    return {
        **{name: _mean([run[name] for run in runs]) for name in METRICS},
        "by_lead": by_lead,
        "coverage80_by_window": {
            "smallest": min(window["smallest"] for window in windows),
            "largest": max(window["largest"] for window in windows),
        }
        if windows
        else None,
    }


def _mean(values: list[float | None]) -> float | None:
    """Return the mean to seven digits, None where a seed has no value."""
    known = [value for value in values if value is not None]
    return float(f"{np.mean(known):.7g}") if len(known) == len(values) else None
