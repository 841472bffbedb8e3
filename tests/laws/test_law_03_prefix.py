"""Law 3: f(x[:j]) == f(x)[:j]: what was forecast at a tick does not depend on how much came after it."""

import pytest
import torch

from models.causality import prefix
from pipeline.verify.forecaster import OwnForecaster
from tests.models.conftest import random_forecaster, random_ticks

NETWORKS = ({"wiring": "residual"}, {"wiring": "plain"}, {"cell": "gru", "input_skips": True})


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_forecasts_of_a_prefix_are_the_prefix_of_the_forecasts(network: dict[str, object]) -> None:
    """Shown to fail by taking the normaliser's statistics of the whole sequence (RevIN with forking sequences)."""
    ticks = random_ticks()
    inputs_BTC = torch.where(ticks.observed_TB, ticks.values_TB, torch.nan).T.unsqueeze(-1)
    finding = prefix(OwnForecaster(random_forecaster(**network)).forecast(), inputs_BTC, (1, 2, 24, 25, 79))
    assert finding.verdict == "holds", finding
    assert finding.difference < 1e-11
