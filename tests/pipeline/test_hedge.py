"""Hedging follows the naive forecasters where they are better, leaves a good network alone, and knows only what has matured."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.forecast.hedge import Hedge

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
NORMAL = np.array([-1.2816, -0.8416, -0.5244, -0.2533, 0.0, 0.2533, 0.5244, 0.8416, 1.2816])  # its quantiles at LEVELS
HORIZON = 24


def around(median_OB: NDArray[np.float64], horizon: int = HORIZON) -> NDArray[np.float64]:
    """Return normal forecasts (O, B, H, Q) around one median for each origin."""
    return np.tile((median_OB[..., None] + NORMAL)[:, :, None], (1, 1, horizon, 1))


def noise(num_ticks: int, num_series: int = 1, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=(num_ticks, num_series))


def error(quantiles_OBHQ: NDArray[np.float64], actual_OB: NDArray[np.float64], step: int, ticks: slice) -> float:
    """Return the mean absolute error of the median of one step, at some origins."""
    return float(np.abs(quantiles_OBHQ[:-step, :, step - 1, 4] - actual_OB[step:])[ticks].mean())


@pytest.mark.parametrize("step", [1, 3, 12, 24])
def test_after_a_level_shift_the_recent_mean_takes_over(step: int) -> None:
    """The network stays at the old level for good. Shown to fail with a reluctance of 30, and with the mean of all history."""
    actual_OB = noise(1400, 8)
    actual_OB[500:] += 6.0
    stuck = around(np.zeros((1400, 8)))
    mixed = Hedge(HORIZON, LEVELS, 8).advance(stuck, actual_OB)
    assert error(stuck, actual_OB, step, slice(700, None)) > 5
    assert error(mixed, actual_OB, step, slice(700, None)) < 1.0  # 0.80 is the noise
    np.testing.assert_allclose(np.diff(mixed[1200:, :, step - 1].mean(axis=(0, 1))[[0, 8]]), 2 * 1.2816, rtol=0.25)


def test_a_random_walk_is_followed_at_its_last_value() -> None:
    """Shown to fail without the first naive forecaster: the mean of a day lags behind."""
    actual_OB = noise(1000, 8).cumsum(axis=0)
    mixed = Hedge(HORIZON, LEVELS, 8).advance(around(np.zeros((1000, 8))), actual_OB)
    assert error(mixed, actual_OB, 1, slice(300, None)) < 0.9  # 0.80 is the noise
    assert error(mixed, actual_OB, 24, slice(300, None)) < 1.1 * 0.80 * np.sqrt(24)


@pytest.mark.parametrize("step", [1, 6, 24])
def test_a_good_network_is_left_all_but_alone(step: int) -> None:
    """It knows the daily wave that the naive forecasters do not. Shown to fail by judging leads by each other's quantiles."""
    wave_O1 = 3 * np.sin(2 * np.pi * np.arange(600 + HORIZON) / 18)[:, None]
    actual_OB = wave_O1[:600] + noise(600, 8)
    medians_OH = np.stack([wave_O1[o + 1 : o + 1 + HORIZON, 0] for o in range(600)])
    known = np.tile(medians_OH[:, None, :, None] + NORMAL, (1, 8, 1, 1))
    mixed = Hedge(HORIZON, LEVELS, 8).advance(known, actual_OB)
    assert error(mixed, actual_OB, step, slice(200, None)) < 1.01 * error(known, actual_OB, step, slice(200, None))


def test_the_first_forecasts_are_the_networks() -> None:
    """Before an error of theirs is known, nobody knows how wide the naive forecasts must be. Shown to fail without `UNKNOWN`."""
    network = around(np.zeros((30, 1)))
    mixed = Hedge(HORIZON, LEVELS, 1).advance(network, noise(30))
    np.testing.assert_allclose(mixed[0], network[0], atol=1e-12)
    np.testing.assert_allclose(mixed[:16, :, 23], network[:16, :, 23], atol=1e-3)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_quantiles_never_cross(seed: int) -> None:
    """Shown to fail with a negative spread."""
    rng = np.random.default_rng(seed)
    network = np.sort(rng.standard_cauchy(size=(80, 2, 5, 9)), axis=-1)
    mixed = Hedge(5, LEVELS, 2).advance(network, np.where(rng.random((80, 2)) < 0.2, np.nan, rng.standard_cauchy(size=(80, 2))))
    assert (np.diff(mixed, axis=-1) >= 0).all()


def test_units_do_not_matter() -> None:
    """Shown to fail with advantages in the metric's unit."""
    actual_OB = noise(300).cumsum(axis=0)
    plain = Hedge(HORIZON, LEVELS, 1).advance(around(np.zeros((300, 1))), actual_OB)
    kelvin = Hedge(HORIZON, LEVELS, 1).advance(around(np.zeros((300, 1))) * 1000 + 273, actual_OB * 1000 + 273)
    np.testing.assert_allclose(kelvin, plain * 1000 + 273, rtol=1e-9)


def test_series_share_nothing() -> None:
    """Shown to fail with the mean loss of the fleet as the unit."""
    actual_OB = noise(200, 3).cumsum(axis=0) * [1.0, 5.0, 0.1]
    together = Hedge(HORIZON, LEVELS, 3).advance(around(np.zeros((200, 3))), actual_OB)
    alone = Hedge(HORIZON, LEVELS, 1).advance(around(np.zeros((200, 1))), actual_OB[:, [1]])
    np.testing.assert_allclose(together[:, [1]], alone)


def test_one_absurd_reading_does_not_decide() -> None:
    """Shown to fail without `MOST_RELATIVE`: the network, which missed it as everybody did, is dropped or held for a hundred ticks."""
    actual_OB = noise(600, 8)
    calm, wild = actual_OB.copy(), actual_OB.copy()
    wild[400] = 1e9
    network = around(np.zeros((600, 8)))
    weights = [Hedge(HORIZON, LEVELS, 8) for _ in range(2)]
    for hedge, values in zip(weights, (calm, wild), strict=True):
        hedge.advance(network[:440], values[:440])
    assert np.abs(weights[0].state.advantage_KSB[0] - weights[1].state.advantage_KSB[0]).max() < 30


def test_a_forecast_that_is_no_number_stays_so_and_teaches_nothing() -> None:
    """Shown to fail by judging without `isfinite`."""
    network, actual_OB = around(np.zeros((100, 1))), noise(100)
    network[50:60] = np.nan
    mixed = Hedge(HORIZON, LEVELS, 1).advance(network, actual_OB)
    assert np.isnan(mixed[50:60]).all()
    assert np.isfinite(mixed[60:]).all()
