"""Law 5: no skill on random walks and shuffled targets; a positive skill there is a leak."""

from datetime import timedelta

import numpy as np
import pytest
from numpy.typing import NDArray

from models.config import NetworkConfig
from pipeline.forecast.engine import StreamEngine
from pipeline.prepare.splits import Split
from pipeline.settings import TrainSettings
from pipeline.train.fit import fit, forecaster_config
from tests.laws.panels import HOUR, START, daily_cycle, hourly_panel

NUM_TICKS, HORIZON, TEST_START = 900, 6, 700
SETTINGS = TrainSettings(
    horizon=HORIZON, context_length=24, max_epochs=10, learning_rate=1e-2, network=NetworkConfig(hidden_size=16, num_layers=1)
)  # enough training to come within 5 % of the last value on a random walk, where one tick of leak gains 8 %


def skill(values_TB: NDArray[np.float64], naive_OBH: NDArray[np.float64]) -> tuple[float, float]:
    """Train before TEST_START and return 1 - MAE / MAE of a naive forecast after it, with its standard error over series."""
    panel = hourly_panel(values_TB)
    split = Split(START + 600 * HOUR, START + timedelta(hours=TEST_START))
    forecaster = fit(panel, split, forecaster_config(SETTINGS, HOUR), SETTINGS).forecaster
    origins_O = np.arange(TEST_START, NUM_TICKS - HORIZON)
    engine = StreamEngine(forecaster, forecaster.initial_state(values_TB.shape[1]))
    median_OBH = np.concatenate([block.quantiles_OBHQ[..., 4] for block in engine.advance(values_TB, panel.time_TB, origins_O)])
    actual_OBH = values_TB[origins_O[:, None] + np.arange(1, HORIZON + 1)].transpose(0, 2, 1)
    gains_B = 1 - np.abs(actual_OBH - median_OBH).mean((0, 2)) / np.abs(actual_OBH - naive_OBH).mean((0, 2))
    return float(gains_B.mean()), float(gains_B.std() / np.sqrt(len(gains_B)))


def last_values(values_TB: NDArray[np.float64]) -> NDArray[np.float64]:
    return values_TB[TEST_START : NUM_TICKS - HORIZON, :, None]


def medians(values_TB: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.median(values_TB[:TEST_START], axis=0)[None, :, None]


@pytest.mark.parametrize("seed", [0, 1])
def test_no_skill_over_the_last_value_on_random_walks(seed: int) -> None:
    """Shown to fail by giving the forecaster every reading one tick early."""
    walks_TB = np.random.default_rng(seed).normal(size=(NUM_TICKS, 24)).cumsum(0)
    gain, error = skill(walks_TB, last_values(walks_TB))
    assert gain < 3 * error


def test_no_skill_over_the_median_on_shuffled_readings() -> None:
    """Shown to fail by the same early tick."""
    shuffled_TB = np.random.default_rng(2).permuted(daily_cycle(NUM_TICKS, 24), axis=0)
    gain, error = skill(shuffled_TB, medians(shuffled_TB))
    assert gain < 3 * error


def test_there_is_skill_where_there_is_something_to_learn() -> None:
    """Shown to fail by an untrained network: without this, the two above could pass on a forecaster that does nothing."""
    cycle_TB = daily_cycle(NUM_TICKS, 24)
    gain, error = skill(cycle_TB, last_values(cycle_TB))
    assert gain > 0.4 > 3 * error
