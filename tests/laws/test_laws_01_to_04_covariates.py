"""Laws 1 to 4 where a forecaster reads covariates: nothing past from after t, nothing planned from after t + H, and all of it carried."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.batch import Covariates
from models.forecaster import CausalForecaster
from pipeline.forecast.state import StreamState
from pipeline.prepare.covariates import CovariateNames, PanelCovariates
from tests.laws.stepping import advance, assert_same_state
from tests.models.conftest import COVARIATES, Ticks, random_covariates, random_forecaster, random_ticks

ORIGIN, HORIZON, NUM_TICKS = 50, 6, 80
WIRINGS = ({}, {"wiring": "plain"}, {"cell": "gru", "input_skips": True})


def forecast_at_origin(forecaster: CausalForecaster, covariates: Covariates) -> torch.Tensor:
    quantiles, _ = forecaster.advance(forecaster.initial_state(3), *random_ticks(), torch.tensor([ORIGIN]), covariates)
    return quantiles


def disturbed(covariates: Covariates, past_from: int, future_from: int) -> Covariates:
    """Return covariates with other values, and other gaps, from these rows on."""
    past_TBP, future_SBU = covariates.past_TBP.clone(), covariates.future_SBU.clone()
    past_TBP[past_from:], future_SBU[future_from:] = past_TBP[past_from:].flip(0) * 100 - 7, future_SBU[future_from:].flip(0) * 100 - 7
    return Covariates.of(past_TBP, future_SBU, covariates.static_BJ)


@pytest.mark.parametrize("network", WIRINGS, ids=str)
def test_law_1_no_covariate_from_beyond_its_reach_changes_a_forecast(network: dict[str, object]) -> None:
    """Shown to fail by normalising plans with the statistics of their last row, and by the change of a past covariate to the next tick."""
    forecaster, known = random_forecaster(COVARIATES, **network), random_covariates()
    same = forecast_at_origin(forecaster, disturbed(known, ORIGIN + 1, ORIGIN + HORIZON + 1))
    assert torch.equal(same, forecast_at_origin(forecaster, known))


@pytest.mark.parametrize(("past_from", "future_from"), [(ORIGIN, 90), (90, ORIGIN + HORIZON), (90, ORIGIN + 1)])
def test_law_1_covariates_within_reach_do_change_it(past_from: int, future_from: int) -> None:
    """Shown to fail by dropping the covariates from the features: the law above must not hold for want of any effect."""
    forecaster, known = random_forecaster(COVARIATES), random_covariates()
    assert not torch.equal(forecast_at_origin(forecaster, disturbed(known, past_from, future_from)), forecast_at_origin(forecaster, known))


def test_law_2_gradients_come_from_the_past_and_from_the_plan_as_far_as_the_horizon() -> None:
    """Shown to fail by normalising a plan with the statistics of its last row."""
    forecaster, ticks = random_forecaster(COVARIATES), random_ticks()
    observed_TB = torch.ones_like(ticks.observed_TB)
    past_TBP = torch.randn(NUM_TICKS, 3, 2, dtype=torch.float64, requires_grad=True)
    future_SBU = torch.randn(NUM_TICKS + HORIZON, 3, 1, dtype=torch.float64, requires_grad=True)
    covariates = Covariates.of(past_TBP, future_SBU, torch.zeros(3, 1, dtype=torch.float64))
    state = forecaster.initial_state(3)
    quantiles, _ = forecaster.advance(state, ticks.values_TB, observed_TB, ticks.time_TB, torch.tensor([ORIGIN]), covariates)
    quantiles.sum().backward()
    assert past_TBP.grad is not None
    assert future_SBU.grad is not None
    assert (past_TBP.grad[ORIGIN + 1 :] == 0).all()
    assert (past_TBP.grad[: ORIGIN + 1] != 0).all()
    assert (future_SBU.grad[ORIGIN + HORIZON + 1 :] == 0).all()
    assert (future_SBU.grad[: ORIGIN + HORIZON + 1] != 0).all()


@pytest.mark.parametrize("length", [1, 2, 25, 79])
def test_law_3_forecasts_of_a_prefix_are_the_prefix_of_the_forecasts(length: int) -> None:
    """Shown to fail by normalising past covariates with the statistics of the last tick."""
    forecaster, ticks, known = random_forecaster(COVARIATES), random_ticks(), random_covariates()
    first = Covariates.of(known.past_TBP[:length], known.future_SBU[: length + HORIZON], known.static_BJ)
    with torch.inference_mode():
        whole, _ = forecaster.advance(forecaster.initial_state(3), *ticks, torch.arange(NUM_TICKS), known)
        prefix, _ = forecaster.advance(forecaster.initial_state(3), *ticks.part(slice(length)), torch.arange(length), first)
    torch.testing.assert_close(prefix, whole[:length], rtol=0, atol=1e-10)


def part(ticks: slice) -> tuple[Ticks, PanelCovariates]:
    """Return some of the ticks, and what is known of them."""
    known, names = random_covariates(), CovariateNames(*random_forecaster(COVARIATES).config.covariate_names)
    return random_ticks().part(ticks), PanelCovariates(
        names, known.past_TBP[ticks].numpy(), known.future_SBU[ticks.start :].numpy(), known.static_BJ.numpy()
    )


def test_law_4_one_tick_at_a_time_equals_one_pass() -> None:
    """Shown to fail by carrying the statistics of the rows that are read ahead, and by forgetting the last value of a covariate."""
    forecaster = random_forecaster(COVARIATES)
    in_one_pass, after_pass = advance(forecaster, forecaster.initial_state(3), *part(slice(0, NUM_TICKS)))
    state, stepped = forecaster.initial_state(3), []
    for tick in range(NUM_TICKS):
        quantiles, state = advance(forecaster, state, *part(slice(tick, tick + 1)))
        stepped.append(quantiles)
    np.testing.assert_allclose(np.concatenate(stepped), in_one_pass, rtol=0, atol=1e-10)
    assert_same_state(state, after_pass)


def test_law_4_restart_from_a_snapshot_equals_no_restart(tmp_path: Path) -> None:
    """Shown to fail by leaving the statistics of the covariates out of the snapshot."""
    forecaster = random_forecaster(COVARIATES)
    whole, after_whole = advance(forecaster, forecaster.initial_state(3), *part(slice(0, NUM_TICKS)))
    _, half_way = advance(forecaster, forecaster.initial_state(3), *part(slice(0, 41)))
    StreamState("1", ("a", "b", "c"), np.array([40, 40, 40]), half_way).snapshot(tmp_path / "state.safetensors")
    resumed = StreamState.resume(tmp_path / "state.safetensors")
    rest, after_rest = advance(forecaster, resumed.carried, *part(slice(41, NUM_TICKS)))
    np.testing.assert_allclose(rest, whole[41:], rtol=0, atol=1e-10)
    assert_same_state(after_rest, after_whole)
