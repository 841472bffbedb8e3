"""What carrying the state saves: one new tick with it, against re-encoding a window per origin, in one run on one machine.

    python -m benchmarks.stream_speed [--series 10000] [--window 336] [--threads 1]

Prints one JSON line. Random weights and random walks: the time does not depend on either.
"""

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from models.config import ForecasterConfig, NetworkConfig
from models.forecaster import CausalForecaster
from pipeline.forecast.calibrate import CalibrationState
from pipeline.forecast.engine import StreamEngine

HORIZON, REPEATS = 24, 5


def main() -> None:
    """Time all ways and print their medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=10_000)
    parser.add_argument("--window", type=int, default=336)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = ForecasterConfig(
        sample_interval_s=3600, horizon=HORIZON, context_length=672, seasons=(24, 168), network=NetworkConfig(num_layers=2, hidden_size=64)
    )
    forecaster = CausalForecaster(config).eval()
    values_TB, time_TB = _walks(arguments.window, arguments.series)
    engine = StreamEngine.fresh(forecaster, arguments.series, calibrate=False)
    list(engine.advance(values_TB, time_TB))

    calibrated_engine = StreamEngine(forecaster, engine.carried, CalibrationState.fresh(HORIZON, arguments.series))

    def carried() -> None:
        list(engine.advance(values_TB[-1:], time_TB[-1:]))

    def calibrated() -> None:
        list(calibrated_engine.advance(values_TB[-1:], time_TB[-1:]))

    def encoded_anew() -> None:
        fresh = StreamEngine.fresh(forecaster, arguments.series, calibrate=False)
        list(fresh.advance(values_TB, time_TB))

    step_s, calibrated_s, window_s = _median_seconds(carried), _median_seconds(calibrated), _median_seconds(encoded_anew)
    history_TB, history_time_TB = _walks(2880 + 336, 7)
    origins_O = np.arange(335, 335 + 2785)

    def one_pass() -> None:
        past = StreamEngine.fresh(forecaster, 7, calibrate=False)
        list(past.advance(history_TB, history_time_TB, origins_O))

    pass_s = _median_seconds(one_pass)
    result = {
        "series": arguments.series,
        "window": arguments.window,
        "threads": arguments.threads,
        "carried_step_s": round(step_s, 4),
        "calibrated_step_s": round(calibrated_s, 4),
        "reencoded_window_s": round(window_s, 3),
        "ratio": round(window_s / step_s, 1),
        "backtest_origins": 2785 * 7,
        "backtest_model_s": round(pass_s, 3),
    }
    print(json.dumps(result))


def _walks(num_ticks: int, num_series: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    values_TB = np.random.default_rng(0).normal(size=(num_ticks, num_series)).cumsum(0)
    time_TB = np.repeat(1_700_000_000 + 3600 * np.arange(num_ticks, dtype=np.int64)[:, None], num_series, axis=1)
    return values_TB, time_TB


def _median_seconds(action: Callable[[], None]) -> float:
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))


if __name__ == "__main__":
    main()
