"""Anchors are values that were known at the origin, each at its place in the season."""

import math

import pytest
import torch

from models.anchors import anchors, num_anchors
from models.config import ForecasterConfig
from models.forecaster import CausalForecaster

CONFIG = ForecasterConfig(sample_interval_s=3600, horizon=7, context_length=12, seasons=(5,), half_lives=(20.0, 4.0))
LAST, SEASONAL, SEASONAL_MEAN, FAST_MEAN, LIFETIME_MEAN = range(5)


def anchors_after(values_T: torch.Tensor) -> list[torch.Tensor]:
    """Return the anchors (H,) or (1,) at the last tick of one series."""
    forecaster = CausalForecaster(CONFIG)
    values_TB = values_T.double().unsqueeze(1)
    time_TB = torch.arange(len(values_T)).unsqueeze(1) * 3600
    sequence, _ = forecaster.observe(forecaster.initial_state(1), values_TB, ~values_TB.isnan(), time_TB)
    origins_O = torch.tensor([len(values_T) - 1])
    context_LOB = sequence.history_RTB[-CONFIG.context_length :].unsqueeze(1)
    return [anchor[0, 0] for anchor in anchors(sequence, context_LOB, origins_O, CONFIG)]


def test_there_are_as_many_anchors_as_gates() -> None:
    assert len(anchors_after(torch.arange(30.0))) == num_anchors(CONFIG) == 5


def test_seasonal_anchors_are_at_the_place_of_their_target() -> None:
    known = anchors_after(torch.arange(30.0))
    assert known[LAST].tolist() == [29]
    assert known[SEASONAL].tolist() == [25, 26, 27, 28, 29, 25, 26]
    assert known[SEASONAL_MEAN].tolist() == [22.5, 23.5, 24.5, 25.5, 26.5, 22.5, 23.5]


def test_what_was_before_the_first_reading_is_no_part_of_a_mean() -> None:
    known = anchors_after(torch.tensor([3.0, 5.0, 7.0]))
    assert known[SEASONAL_MEAN].tolist() == [7, 7, 3, 5, 7, 7, 7]
    assert known[LIFETIME_MEAN].tolist() == [5]


@pytest.mark.parametrize("num_values", [1, 2, 5, 6, 9, 10, 11, 12, 13, 30])
def test_seasonal_means_are_those_of_the_values_there_are(num_values: int) -> None:
    """Shown to fail by an age that is one tick less or more, by counting every season of the context, and by its oldest ticks."""
    values = [math.sin(tick) for tick in range(num_values)]
    first = max(0, num_values - 10)  # two whole seasons
    means = []
    for target in range(num_values, num_values + CONFIG.horizon):
        like_it = [values[tick] for tick in range(first, num_values) if (target - tick) % 5 == 0]
        means.append(sum(like_it) / len(like_it) if like_it else values[-1])
    torch.testing.assert_close(anchors_after(torch.tensor(values).double())[SEASONAL_MEAN], torch.tensor(means).double())


def test_a_recurring_season_is_its_own_mean() -> None:
    season = torch.tensor([1.0, 8.0, 2.0, 9.0, 4.0])
    known = anchors_after(season.repeat(6))
    torch.testing.assert_close(known[SEASONAL_MEAN], season.repeat(2)[:7].double())
