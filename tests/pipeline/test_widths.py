"""Online widths bring the coverage back, whatever the forecaster does wrong, and touches nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.forecast.maturing import MOST_REMEMBERED, representative_leads
from pipeline.forecast.widths import OnlineWidths, WidthState

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
NORMAL = np.array([-1.2816, -0.8416, -0.5244, -0.2533, 0.0, 0.2533, 0.5244, 0.8416, 1.2816])  # its quantiles at LEVELS
HORIZON = 24


def forecasts(num_ticks: int, num_series: int = 1, *, scale: float = 1.0, horizon: int = HORIZON) -> NDArray[np.float64]:
    """Return the same normal forecast at every origin and step (O, B, H, Q)."""
    return np.tile(scale * NORMAL, (num_ticks, num_series, horizon, 1))


def noise(num_ticks: int, num_series: int = 1, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=(num_ticks, num_series))


def coverage(quantiles_OBHQ: NDArray[np.float64], actual_OB: NDArray[np.float64], step: int) -> float:
    """Return the share of targets of one step between the outermost quantiles, in percent."""
    issued_OBQ, came_OB = quantiles_OBHQ[:-step, :, step - 1], actual_OB[step:]
    return 100 * float(((issued_OBQ[..., 0] <= came_OB) & (came_OB <= issued_OBQ[..., -1])).mean())


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_coverage_comes_right_whatever_the_width_of_the_forecasts(scale: float) -> None:
    """Shown to fail by judging every lead with the bounds of lead 1, and by limits that are too tight."""
    actual_OB = noise(2000, 16)
    calibrated = OnlineWidths(HORIZON, LEVELS, 16).advance(forecasts(2000, 16, scale=scale), actual_OB)
    for step in (1, 3, 12, 24):
        assert coverage(calibrated[1000:], actual_OB[1000:], step) == pytest.approx(80, abs=3)


def test_each_tail_is_brought_right_in_a_skewed_world() -> None:
    """Shown to fail without the skew: the upper tail is missed more often than one time in six then."""
    actual_OB = np.random.default_rng(0).exponential(size=(1500, 16)) - np.log(2)  # the median is 0, as forecast
    calibrated = OnlineWidths(1, LEVELS, 16).advance(forecasts(1500, 16, horizon=1), actual_OB)[750:-1, :, 0]
    assert 100 * (actual_OB[751:] < calibrated[..., 0]).mean() == pytest.approx(10, abs=3)
    assert 100 * (actual_OB[751:] > calibrated[..., -1]).mean() == pytest.approx(10, abs=3)


def test_the_thirty_days_after_the_noise_has_doubled() -> None:
    """Hourly, under a forecaster that never notices: short leads are right at once, a day ahead most of the loss is made good.

    Shown to fail at a third of the speed.
    """
    actual_OB = noise(1440, 16)
    actual_OB[720:] *= 2
    calibrated = OnlineWidths(HORIZON, LEVELS, 16).advance(forecasts(1440, 16), actual_OB)
    assert coverage(forecasts(720, 16), actual_OB[720:], 24) < 50
    assert coverage(calibrated[719:], actual_OB[719:], 1) == pytest.approx(80, abs=3)
    assert coverage(calibrated[716:], actual_OB[716:], 4) == pytest.approx(80, abs=5)
    assert coverage(calibrated[696:], actual_OB[696:], 24) > 65


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
def test_the_median_stays_and_quantiles_never_cross(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    raw = np.sort(rng.standard_cauchy(size=(60, 2, 5, 9)), axis=-1)
    calibrated = OnlineWidths(5, LEVELS, 2).advance(raw, scale * rng.standard_cauchy(size=(60, 2)))
    np.testing.assert_array_equal(calibrated[..., 4], raw[..., 4])
    assert (np.diff(calibrated, axis=-1) >= 0).all()


def test_nothing_is_changed_before_the_first_forecast_has_come_true() -> None:
    raw, actual_OB = forecasts(2), noise(2) + 9
    calibrated = OnlineWidths(HORIZON, LEVELS, 1).advance(raw, actual_OB)
    np.testing.assert_array_equal(calibrated[0], raw[0])
    assert (calibrated[1, 0, 0, -1] > raw[1, 0, 0, -1]).all()


def test_units_make_no_difference() -> None:
    actual_OB = noise(300)
    plain = OnlineWidths(HORIZON, LEVELS, 1).advance(forecasts(300, scale=0.5), actual_OB)
    kelvin = OnlineWidths(HORIZON, LEVELS, 1).advance(forecasts(300, scale=0.5) * 1000 + 273, actual_OB * 1000 + 273)
    np.testing.assert_allclose((kelvin - 273) / 1000, plain, rtol=0, atol=1e-9)


def test_series_learn_nothing_from_each_other() -> None:
    """Shown to fail by moving the widths of all series towards their mean."""
    actual_OB = noise(200, 3) * [1, 5, 0.1]
    together = OnlineWidths(HORIZON, LEVELS, 3).advance(forecasts(200, 3), actual_OB)
    alone = OnlineWidths(HORIZON, LEVELS, 1).advance(forecasts(200), actual_OB[:, [1]])
    np.testing.assert_allclose(together[:, [1]], alone, rtol=1e-12)


def test_what_was_not_observed_teaches_nothing() -> None:
    """Shown to fail by counting a gap as a value inside the interval."""
    widths = OnlineWidths(HORIZON, LEVELS, 1)
    widths.advance(forecasts(300), noise(300))
    before = widths.state.select(np.array([0]))
    widths.advance(forecasts(100), np.full((100, 1), np.nan))
    np.testing.assert_array_equal(widths.state.width_SB, before.width_SB)
    np.testing.assert_array_equal(widths.state.skew_SB, before.skew_SB)


def test_a_forecast_that_is_no_number_stays_so_and_teaches_nothing() -> None:
    raw, actual_OB = forecasts(200), noise(200)
    raw[50:60] = np.nan
    widths = OnlineWidths(HORIZON, LEVELS, 1)
    calibrated = widths.advance(raw, actual_OB)
    assert np.isnan(calibrated[50:60]).all()
    assert np.isfinite(calibrated[60:]).all()
    assert np.isfinite(widths.state.width_SB).all()


def test_a_sensor_that_was_stuck_for_three_months_is_covered_again_a_month_later() -> None:
    """Shown to fail without limits of the factors."""
    actual_OB = np.concatenate([np.zeros((2190, 16)), noise(1440, 16)])
    calibrated = OnlineWidths(HORIZON, LEVELS, 16).advance(forecasts(3630, 16), actual_OB)
    for step in (1, 24):
        assert coverage(calibrated[2910:], actual_OB[2910:], step) == pytest.approx(80, abs=5)


def test_only_the_forecasts_asked_for_come_back() -> None:
    raw, actual_OB, rows = forecasts(50), noise(50), np.array([7, 30, 49])
    everything = OnlineWidths(HORIZON, LEVELS, 1).advance(raw, actual_OB)
    np.testing.assert_array_equal(OnlineWidths(HORIZON, LEVELS, 1).advance(raw, actual_OB, rows), everything[rows])


@pytest.mark.parametrize(
    ("horizon", "leads"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (24, [1, 2, 4, 8, 16, 24]), (32, [1, 2, 4, 8, 16, 32])]
)
def test_representative_leads_double_up_to_the_horizon(horizon: int, leads: list[int]) -> None:
    assert representative_leads(horizon).tolist() == leads


def test_what_is_remembered_grows_with_the_logarithm_of_the_horizon() -> None:
    assert len(WidthState.fresh(720, 1).lower_RB) <= MOST_REMEMBERED * len(representative_leads(720))
