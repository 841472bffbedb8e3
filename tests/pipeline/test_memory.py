"""The memory that is measured is the memory that the gates have."""

import math

import numpy as np
import pytest
import torch

from models.config import ForecasterConfig, NetworkConfig
from models.forecaster import CausalForecaster
from pipeline.study.memory import layer_memory, ticks_above
from tests.laws.panels import daily_cycle, hourly_panel

PANEL = hourly_panel(daily_cycle(400, 2))


def forgetting(*half_lives: float, cell: str = "lstm") -> CausalForecaster:
    """Return a plain stack whose forget gates are constant: the cell of each layer decays with a half-life in ticks."""
    network = NetworkConfig(cell=cell, num_layers=len(half_lives), hidden_size=4, wiring="plain")
    torch.manual_seed(0)
    forecaster = CausalForecaster(ForecasterConfig(sample_interval_s=3600, horizon=4, context_length=24, seasons=(24,), network=network))
    with torch.no_grad():
        for layer, half_life in zip(forecaster.stack.layers, half_lives, strict=True):
            kept = 2 ** (-1 / half_life)
            weights = dict(layer.named_parameters())
            weights["weight_hh_l0"].zero_()
            weights["weight_ih_l0"][4:8] = 0.0
            weights["weight_ih_l0"][12:] = 0.0
            weights["bias_hh_l0"][4:8] = math.log(kept / (1 - kept))
    return forecaster


@pytest.mark.parametrize("half_life", [3.0, 12.0])
def test_a_layer_forgets_with_the_half_life_of_its_forget_gate(half_life: float) -> None:
    """Shown to fail by feeding the changed input at every later tick too."""
    memory = layer_memory(forgetting(half_life), PANEL)
    assert memory.faded_L[0] == pytest.approx(half_life / math.log(2), rel=0.2, abs=1)
    assert memory.gone_L[0] == pytest.approx(half_life * math.log2(100), rel=0.2, abs=1)


def test_each_layer_has_a_memory_of_its_own() -> None:
    """Shown to fail by giving every layer the distances of the first."""
    memory = layer_memory(forgetting(2.0, 20.0), PANEL)
    assert memory.faded_L[0] < 6
    assert memory.faded_L[1] > 15
    assert memory.response_LK.shape == (2, 100)
    assert memory.response_LK[0, 0] == 1.0


def test_a_stack_of_gru_layers_is_followed_too() -> None:
    network = NetworkConfig(cell="gru", num_layers=2, hidden_size=4)
    config = ForecasterConfig(sample_interval_s=3600, horizon=4, context_length=24, seasons=(24,), network=network)
    assert np.isfinite(layer_memory(CausalForecaster(config), PANEL).response_LK).all()


def test_the_forecaster_is_left_as_it_is() -> None:
    """Shown to fail by working on the forecaster itself."""
    forecaster = forgetting(5.0).train()
    layer_memory(forecaster, PANEL)
    assert forecaster.dtype == torch.float32
    assert forecaster.training


def test_a_response_that_comes_back_has_not_faded() -> None:
    """Shown to fail by taking the first tick below the level."""
    response_KLN = torch.tensor([1.0, 0.1, 0.6, 0.1]).reshape(4, 1, 1)
    assert ticks_above(response_KLN, 0.5).item() == 3
    assert ticks_above(response_KLN, 0.05).item() == 4
