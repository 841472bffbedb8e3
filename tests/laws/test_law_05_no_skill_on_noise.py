"""Law 5: no skill on random walks and shuffled targets; a positive skill there is a leak."""

from datetime import timedelta

import numpy as np
import pytest

from models.config import NetworkConfig
from pipeline.settings import TrainSettings
from pipeline.train.fit import forecaster_config
from pipeline.verify.made_up import made_up_panel
from pipeline.verify.skill import Trial
from pipeline.verify.training import SHAPE, TRAIN_TICKS, VALIDATION_TICKS, Floats, daily_cycles, random_walks, trial

HOUR = timedelta(hours=1)
SETTINGS = TrainSettings(
    horizon=6,
    context_length=24,
    max_epochs=10,
    highway_first=False,
    learning_rate=1e-2,
    network=NetworkConfig(hidden_size=16, num_layers=1),
)  # enough training to come within 5 % of the last value on a random walk, where one tick of leak gains 8 %


def trained_on(values_TB: Floats, naive_TB: Floats) -> Trial:
    """Train on the first part of the series and compare with a naive forecast on the last, with its interval over series."""
    return trial("series", made_up_panel(values_TB, HOUR), naive_TB, forecaster_config(SETTINGS, HOUR), SETTINGS)


@pytest.mark.parametrize("seed", [0, 1])
def test_no_skill_over_the_last_value_on_random_walks(seed: int) -> None:
    """Shown to fail by giving the forecaster every reading one tick early."""
    walks_TB = random_walks(seed)
    assert trained_on(walks_TB, walks_TB).lower <= 0


def test_no_skill_over_the_median_on_shuffled_readings() -> None:
    """Shown to fail by the same early tick."""
    shuffled_TB = np.random.default_rng(2).permuted(daily_cycles(HOUR), axis=0)
    medians_B = np.median(shuffled_TB[: TRAIN_TICKS + VALIDATION_TICKS], axis=0)
    assert trained_on(shuffled_TB, np.broadcast_to(medians_B, SHAPE)).lower <= 0


def test_there_is_skill_where_there_is_something_to_learn() -> None:
    """Shown to fail by an untrained network: without this, the two above could pass on a forecaster that does nothing."""
    cycles_TB = daily_cycles(HOUR)
    found = trained_on(cycles_TB, cycles_TB)
    assert found.gain > 0.4
    assert found.lower > 0
