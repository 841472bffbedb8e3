"""The causal normaliser equals its formula, forgets as its half-life says, and survives what sensors do."""

import math

import torch
from torch import Tensor

from models.normaliser import Statistics, Tracked, track


def tracked(values: list[float], observed: list[bool] | None = None, half_lives: tuple[float, ...] = (4.0,)) -> Tracked:
    """Track one series from nothing."""
    values_T1 = torch.tensor(values, dtype=torch.float64).unsqueeze(1)
    observed_T1 = torch.ones_like(values_T1, dtype=torch.bool) if observed is None else torch.tensor(observed).unsqueeze(1)
    zeros_K1 = torch.zeros(len(half_lives) + 1, 1, dtype=torch.float64)
    count = torch.zeros(1, dtype=torch.int64)
    last = torch.zeros(1, dtype=torch.float64)
    return track(values_T1, observed_T1, half_lives, Statistics(count, zeros_K1, zeros_K1.clone(), last, count, count - 1))


def flat(tensor: Tensor) -> list[float]:
    return tensor.flatten().tolist()


def test_lifetime_normaliser_is_the_population_mean_and_deviation() -> None:
    values = [3.0, 8.0, -1.0, 4.0, 4.5, 30.0]
    result = tracked(values)
    assert math.isclose(float(result.after.mean_KB[-1]), sum(values) / 6)
    assert math.isclose(float(result.after.variance_KB[-1].sqrt()), float(torch.tensor(values, dtype=torch.float64).std(correction=0)))


def test_old_readings_weigh_half_after_one_half_life() -> None:
    long_ago, recent = tracked([0.0] * 40 + [1.0] * 4), float(tracked([0.0] * 40 + [1.0] * 8).after.mean_KB[0])
    assert math.isclose(1 - float(long_ago.after.mean_KB[0]), 0.5, abs_tol=1e-3)
    assert math.isclose(1 - recent, 0.25, abs_tol=1e-3)


def test_missing_ticks_change_nothing_but_the_time_since() -> None:
    result = tracked([1.0, 2.0, float("nan"), float("nan"), 3.0], [True, True, False, False, True])
    assert flat(result.filled_TB) == [1.0, 2.0, 2.0, 2.0, 3.0]
    assert flat(result.since_TB) == [0, 0, 1, 2, 0]
    assert flat(result.mean_KTB[0, 1:4]) == [1.5, 1.5, 1.5]


def test_a_gap_makes_the_next_reading_weigh_more() -> None:
    long, short = [0.0] * 30 + [9.0] * 6 + [1.0], [0.0] * 30 + [1.0]
    after_gap = tracked(long, [True] * 30 + [False] * 6 + [True])
    assert float(after_gap.after.mean_KB[0]) > float(tracked(short).after.mean_KB[0])


def test_age_counts_from_the_first_observation() -> None:
    assert flat(tracked([0.0, 0.0, 5.0, 6.0], [False, False, True, True]).age_TB) == [-1, -1, 0, 1]


def test_scale_of_a_constant_series_is_positive_and_of_a_new_one_a_tenth_of_its_level() -> None:
    result = tracked([50.0] * 100)
    assert math.isclose(float(result.scale_KTB[0, 0]), 5.0, rel_tol=1e-3)
    assert 0 < float(result.scale_KTB[0, -1]) < 0.01


def test_long_flat_stretch_keeps_a_share_of_the_lifetime_scale() -> None:
    result = tracked([0.0, 10.0] * 20 + [5.0] * 500)
    assert float(result.scale_KTB[0, -1]) >= 0.02 * float(result.scale_KTB[1, -1])
