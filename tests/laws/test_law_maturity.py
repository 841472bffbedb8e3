"""Maturity: a score that calibration uses at a tick belongs to a forecast whose origin + step is that tick, never to a later one."""

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.forecaster import CausalForecaster
from pipeline.forecast.calibrate import CalibrationState, OnlineCalibration
from pipeline.forecast.engine import StreamEngine
from pipeline.forecast.maturing import representative_leads
from pipeline.forecast.state import StreamState
from tests.models.conftest import Ticks, random_forecaster, random_ticks

LEVELS = (0.1, 0.5, 0.9)
HORIZON, NUM_TICKS = 40, 120
STRIDE = 3  # leads of 32 and 40 ticks are judged at every third tick: 40 / MOST_REMEMBERED, rounded up


def forecasts_and_values(seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return forecasts (O, B, H, Q) and what came true (O, B) of two series, with gaps."""
    rng = np.random.default_rng(seed)
    quantiles = np.sort(rng.normal(size=(NUM_TICKS, 2, HORIZON, len(LEVELS))), axis=-1)
    return quantiles, np.where(rng.random((NUM_TICKS, 2)) < 0.1, np.nan, rng.normal(size=(NUM_TICKS, 2)))


def calibrate(quantiles: NDArray[np.float64], actual: NDArray[np.float64]) -> NDArray[np.float64]:
    return OnlineCalibration(HORIZON, LEVELS, CalibrationState.fresh(HORIZON, 2)).advance(quantiles, actual)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(representative_leads(HORIZON).tolist()), st.integers(0, 20))
def test_a_bound_changes_nothing_until_its_target_has_come_in(seed: int, step: int, third: int) -> None:
    """The bounds of one step of one origin are moved from around what came true to beside it: only its target tick may tell.

    Shown to fail by reading every bound one tick early, and by a ring one place too short.
    """
    quantiles, actual = forecasts_and_values(seed)
    origin = STRIDE * third
    target = origin + step
    actual[target] = 0.0
    inside, beside = quantiles.copy(), quantiles.copy()
    inside[origin, :, step - 1], beside[origin, :, step - 1] = [-9.0, 0.0, 9.0], [8.0, 9.0, 10.0]
    held, missed = calibrate(inside, actual), calibrate(beside, actual)
    np.testing.assert_array_equal(held[:origin], missed[:origin])
    np.testing.assert_array_equal(held[origin + 1 : target], missed[origin + 1 : target])
    assert (held[target, :, step - 1] != missed[target, :, step - 1]).any()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, NUM_TICKS - 2))
def test_values_after_an_origin_do_not_reach_its_calibrated_forecast(seed: int, tick: int) -> None:
    """Shown to fail by calibrating with the value of the next tick."""
    quantiles, actual = forecasts_and_values(seed)
    changed = actual.copy()
    changed[tick:] = 99.0
    before, after = calibrate(quantiles, actual), calibrate(quantiles, changed)
    np.testing.assert_array_equal(before[:tick], after[:tick])
    assert (before[tick:] != after[tick:]).any()


def test_calibrating_tick_by_tick_equals_one_pass() -> None:
    """Shown to fail by counting the ticks of a call instead of those of the series."""
    quantiles, actual = forecasts_and_values(0)
    calibration = OnlineCalibration(HORIZON, LEVELS, CalibrationState.fresh(HORIZON, 2))
    stepped = [calibration.advance(quantiles[[tick]], actual[[tick]]) for tick in range(NUM_TICKS)]
    np.testing.assert_allclose(np.concatenate(stepped), calibrate(quantiles, actual), rtol=0, atol=1e-10)


def advance(forecaster: CausalForecaster, state: StreamState, ticks: Ticks, origins: NDArray[np.int64] | None) -> NDArray[np.float64]:
    """Advance a state through some ticks, in place, and return the calibrated forecasts of all series."""
    engine = StreamEngine(forecaster, state.carried, state.calibration)
    values_TB = np.where(ticks.observed_TB.numpy(), ticks.values_TB.numpy(), np.nan)
    blocks = list(engine.advance(values_TB, ticks.time_TB.numpy(), origins))
    return np.concatenate([block.quantiles_OBHQ for block in blocks])


def fresh(forecaster: CausalForecaster) -> StreamState:
    empty = StreamState.empty("1", forecaster, calibrate=True)
    return empty.with_series(["a", "b", "c"], np.array([-1, -1, -1]), forecaster)


def test_calibrated_forecasts_do_not_depend_on_which_were_asked_for_nor_on_a_restart(tmp_path: Path) -> None:
    """Shown to fail by decoding the wanted origins alone, and by leaving the remembered bounds out of the snapshot."""
    forecaster, ticks = random_forecaster(), random_ticks()
    whole = advance(forecaster, fresh(forecaster), ticks, np.arange(len(ticks.values_TB)))
    last = advance(forecaster, fresh(forecaster), ticks, None)
    half_way = fresh(forecaster)
    advance(forecaster, half_way, ticks.part(slice(41)), None)
    half_way.snapshot(tmp_path / "state.safetensors")
    resumed = StreamState.resume(tmp_path / "state.safetensors")
    rest = advance(forecaster, resumed, ticks.part(slice(41, None)), np.arange(len(ticks.values_TB) - 41))
    np.testing.assert_allclose(last[0], whole[-1], rtol=0, atol=1e-10)
    np.testing.assert_allclose(rest, whole[41:], rtol=0, atol=1e-10)
