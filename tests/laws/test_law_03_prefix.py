"""Law 3: f(x[:j]) == f(x)[:j]: what was forecast at a tick does not depend on how much came after it."""

import pytest
import torch

from tests.models.conftest import random_forecaster, random_ticks


@pytest.mark.parametrize("length", [1, 2, 24, 25, 79])
@pytest.mark.parametrize("network", [{"wiring": "residual"}, {"wiring": "plain"}, {"cell": "gru", "input_skips": True}], ids=str)
def test_forecasts_of_a_prefix_are_the_prefix_of_the_forecasts(length: int, network: dict[str, object]) -> None:
    """Shown to fail by taking the normaliser's statistics of the whole sequence (RevIN with forking sequences)."""
    forecaster, ticks = random_forecaster(**network), random_ticks()
    with torch.inference_mode():
        whole, _ = forecaster.advance(forecaster.initial_state(3), *ticks, torch.arange(len(ticks.values_TB)))
        prefix, _ = forecaster.advance(forecaster.initial_state(3), *ticks.part(slice(length)), torch.arange(length))
    torch.testing.assert_close(prefix, whole[:length], rtol=0, atol=1e-10)
