"""The floor at zero: only where zero is met often and never left downwards, and the same however the ticks are cut."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.forecast.floor import LEAST_SHARE, Floor, FloorState


def lowest(actual: list[float], issued: list[int] | None = None) -> list[float]:
    """Return the lowest quantile issued at each tick of one series whose network always says -1."""
    rows = len(actual) if issued is None else len(issued)
    quantiles = np.tile([-1.0, 0.5, 2.0], (rows, 1, 4, 1))
    issued_rows = None if issued is None else np.array(issued)
    return Floor(FloorState.fresh(1)).advance(quantiles, np.array(actual)[:, None], issued_rows)[:, 0, 0, 0].tolist()


def test_a_series_that_rests_on_zero_is_not_forecast_below_it():
    assert lowest([3.0, 0.0, 0.0, 5.0]) == [-1.0, 0.0, 0.0, 0.0]


def test_one_value_below_zero_takes_the_floor_away_for_good():
    assert lowest([0.0, -0.1, 0.0, 0.0]) == [0.0, -1.0, -1.0, -1.0]


def test_zero_passed_by_now_and_then_is_no_floor():
    rarely = [0.0] + [1.0] * round(1 / LEAST_SHARE)
    assert lowest(rarely)[-2:] == [0.0, -1.0]


def test_what_was_not_observed_says_nothing():
    assert lowest([np.nan, 0.0, np.nan]) == [-1.0, 0.0, 0.0]


def test_quantiles_above_zero_stay_as_they_are():
    quantiles = np.array([-2.0, -0.5, 0.25]).reshape(1, 1, 1, 3)
    assert Floor(FloorState.fresh(1)).advance(quantiles, np.zeros((1, 1))).ravel().tolist() == [0.0, 0.0, 0.25]


@pytest.mark.parametrize("issued", [[0], [1, 3], [0, 1, 2, 3]])
def test_a_forecast_is_the_same_whichever_others_are_issued(issued):
    actual = [3.0, 0.0, np.nan, -2.0]
    assert lowest(actual, issued) == [lowest(actual)[row] for row in issued]


@given(
    values=st.lists(st.sampled_from([0.0, 1.0, -1.0, np.nan]), min_size=2, max_size=12),
    cut=st.integers(1, 11),
)
def test_all_ticks_at_once_and_in_parts_are_the_same(values, cut):
    actual, cut = np.array(values)[:, None], min(cut, len(values) - 1)
    quantiles = np.full((len(values), 1, 1, 1), -1.0)
    whole, parts = Floor(FloorState.fresh(1)), Floor(FloorState.fresh(1))
    first, second = parts.advance(quantiles[:cut].copy(), actual[:cut]), parts.advance(quantiles[cut:].copy(), actual[cut:])
    assert np.array_equal(whole.advance(quantiles.copy(), actual), np.concatenate([first, second]))
