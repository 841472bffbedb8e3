"""Each variant of the ablation takes away what its name says, and differs from the unchanged forecaster in that alone."""

from dataclasses import replace

import pytest
import torch

from benchmarks.ablation import REFERENCE, VARIANTS, without_anchors, without_highway, without_stack
from models.config import ForecasterConfig, NetworkConfig
from models.forecaster import CausalForecaster
from pipeline.settings import TrainSettings
from tests.models.conftest import random_ticks

CONFIG = ForecasterConfig(sample_interval_s=3600, horizon=4, context_length=48, seasons=(24,), network=NetworkConfig(hidden_size=6))


def forecast(forecaster: CausalForecaster) -> torch.Tensor:
    """Return the forecast at the last tick, served."""
    ticks = random_ticks()
    quantiles, _ = forecaster.eval().double().advance(forecaster.initial_state(ticks.values_TB.shape[1]), *ticks)
    return quantiles


def trained(forecaster: CausalForecaster) -> CausalForecaster:
    """Return a forecaster all of whose weights that may learn have moved."""
    torch.manual_seed(1)
    for parameter in forecaster.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.3 * torch.randn_like(parameter))
    return forecaster


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != REFERENCE])
def test_every_variant_is_one_that_can_be_built_and_another_than_the_reference(name: str) -> None:
    """Shown to fail by a knob that does not exist, and by a network that has that depth already."""
    variant = VARIANTS[name]
    network, settings = replace(CONFIG.network, **variant.network), TrainSettings.model_validate(variant.settings)
    torch.manual_seed(0)
    built = variant.build(variant.config(replace(CONFIG, network=network)))
    torch.manual_seed(0)
    unchanged = CausalForecaster(CONFIG)
    weights = {name: value.tolist() for name, value in unchanged.state_dict().items()}
    learns = [parameter.requires_grad for parameter in built.parameters()]
    same_weights = {name: value.tolist() for name, value in built.state_dict().items()} == weights and all(learns)
    assert not (same_weights and built.config == CONFIG and settings == TrainSettings())


def test_without_the_stack_its_weights_do_not_matter() -> None:
    """Shown to fail by leaving the last norm free to learn."""
    torch.manual_seed(0)
    forecaster = trained(without_stack(CONFIG))
    before = forecast(forecaster)
    for parameter in forecaster.stack.layers.parameters():
        parameter.data.mul_(3.0)
    assert torch.equal(forecast(forecaster), before)


def test_without_the_highway_nothing_is_added_past_the_stack() -> None:
    """Shown to fail by a highway that may learn."""
    assert not trained(without_highway(CONFIG)).decoder.highway.weight_HF.any()


def test_without_anchors_the_mean_alone_is_mixed() -> None:
    """Shown to fail by silencing the mean in place of the others."""
    decoder = trained(without_anchors(CONFIG)).decoder
    anchors = [torch.full((2, 1), 7.0)] * (decoder.anchor_bias_HA.shape[1] - 1)
    mixed_NH = decoder.mix(torch.randn(2, CONFIG.network.hidden_size), anchors)
    torch.testing.assert_close(mixed_NH, torch.zeros_like(mixed_NH), rtol=0, atol=1e-6)
