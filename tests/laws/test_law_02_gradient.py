"""Law 2: the gradient of the forecast at t with respect to readings after t is exactly 0, and not 0 before."""

import pytest
import torch

from models.forecaster import CausalForecaster
from tests.models.conftest import random_forecaster, random_ticks

ORIGIN = 50


def gradient_of_forecast(forecaster: CausalForecaster) -> torch.Tensor:
    """Return d(sum of the quantiles at ORIGIN) / d(values), (T, B), float64: there the native kernels give exact zeros."""
    ticks = random_ticks()
    values_TB = ticks.values_TB.clone().requires_grad_()
    observed_TB = torch.ones_like(ticks.observed_TB)
    quantiles, _ = forecaster.advance(forecaster.initial_state(3), values_TB, observed_TB, ticks.time_TB, torch.tensor([ORIGIN]))
    quantiles.sum().backward()
    assert values_TB.grad is not None
    return values_TB.grad


WIRINGS = ({}, {"wiring": "plain"}, {"cell": "gru", "input_skips": True})


@pytest.mark.parametrize("network", WIRINGS, ids=str)
def test_no_gradient_comes_from_the_future_and_some_from_every_tick_before(network: dict[str, object]) -> None:
    """Shown to fail by letting `track` normalise with the statistics of the last tick, and by a bidirectional layer."""
    gradient_TB = gradient_of_forecast(random_forecaster(num_layers=2, **network))
    assert (gradient_TB[ORIGIN + 1 :] == 0).all()
    assert (gradient_TB[: ORIGIN + 1] != 0).all()


def test_the_forecast_depends_on_the_recurrent_state() -> None:
    """Shown to fail by `top_TBD[origins_O] * 0` in the decoder: normaliser and highway alone would pass every other law."""
    forecaster, ticks = random_forecaster(num_layers=2), random_ticks()
    sequence, _ = forecaster.observe(forecaster.initial_state(3), *ticks)
    top_TBD = torch.randn(len(ticks.values_TB), 3, 8, dtype=torch.float64, requires_grad=True)
    forecaster.decode(sequence, top_TBD, torch.tensor([ORIGIN])).sum().backward()
    assert top_TBD.grad is not None
    assert (top_TBD.grad[ORIGIN] != 0).all()
    assert (top_TBD.grad[ORIGIN + 1 :] == 0).all()


def test_gradient_comes_from_every_tick_before_through_the_recurrence() -> None:
    """Shown to fail by detaching the hidden state between ticks: a law that passes on a dead network proves nothing."""
    forecaster, ticks = random_forecaster(num_layers=2), random_ticks()
    sequence, _ = forecaster.observe(forecaster.initial_state(3), *ticks)
    features_TBF = forecaster.features(sequence).detach().requires_grad_()
    top_TBD, _, _ = forecaster.stack(features_TBF, *forecaster.stack.initial_state(3))
    top_TBD[ORIGIN].sum().backward()
    assert features_TBF.grad is not None
    assert (features_TBF.grad[: ORIGIN + 1].abs().sum(-1) > 0).all()
    assert (features_TBF.grad[ORIGIN + 1 :] == 0).all()
