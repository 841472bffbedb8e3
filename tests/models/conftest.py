"""Small float64 forecasters with weights that matter, and ticks with gaps and late starters."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from models.batch import Covariates
from models.config import ForecasterConfig, NetworkConfig
from models.forecaster import CausalForecaster


class Ticks(NamedTuple):
    """Values, mask and labels of some series, (T, B) each."""

    values_TB: Tensor
    observed_TB: Tensor
    time_TB: Tensor

    def part(self, ticks: slice) -> "Ticks":
        """Return some of the ticks."""
        return Ticks(*(tensor[ticks] for tensor in self))


COVARIATES = {"past_covariates": ("wind", "rain"), "future_covariates": ("tariff",), "static_covariates": ("area",)}


def random_forecaster(covariates: dict[str, tuple[str, ...]] | None = None, **network: object) -> CausalForecaster:
    """Return a float64 forecaster whose every weight has an effect (heads start at zero otherwise)."""
    torch.manual_seed(0)
    config = ForecasterConfig(
        sample_interval_s=3600,
        horizon=6,
        context_length=30,
        seasons=(24,),
        network=NetworkConfig(**{"hidden_size": 8, **network}),
        **(covariates or {}),
    )
    forecaster = CausalForecaster(config).double().eval()
    with torch.no_grad():
        for parameter in forecaster.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return forecaster


def random_ticks(num_ticks: int = 80, num_series: int = 3) -> Ticks:
    """Return random walks with a fifth of the ticks missing; the second series starts late."""
    generator = torch.Generator().manual_seed(1)
    values_TB = 100 + 5 * torch.randn(num_ticks, num_series, generator=generator, dtype=torch.float64).cumsum(0)
    observed_TB = torch.rand(num_ticks, num_series, generator=generator) > 0.2
    observed_TB[:7, 1] = False
    time_TB = (1_700_000_000 + 3600 * torch.arange(num_ticks)).unsqueeze(1).expand(num_ticks, num_series)
    return Ticks(values_TB, observed_TB, time_TB)


def random_covariates(num_ticks: int = 80, num_series: int = 3, horizon: int = 6) -> Covariates:
    """Return the COVARIATES of as many ticks, and a horizon more of the plan, a fifth of them missing; one area is unknown."""
    generator = torch.Generator().manual_seed(2)
    walks_SBV = torch.randn(num_ticks + horizon, num_series, 3, generator=generator, dtype=torch.float64).cumsum(0)
    missing_SBV = torch.rand(walks_SBV.shape, generator=generator) < 0.2
    known_SBV = torch.where(missing_SBV, torch.nan, walks_SBV)
    static_BJ = torch.tensor([[120.0], [35.0], [torch.nan]], dtype=torch.float64)[:num_series]
    return Covariates.of(known_SBV[:num_ticks, :, :2], known_SBV[..., 2:], static_BJ)


@pytest.fixture(params=[{"wiring": w, "cell": c} for w in ("residual", "plain") for c in ("lstm", "gru")], ids=str)
def forecaster(request: pytest.FixtureRequest) -> CausalForecaster:
    """Every wiring with every cell."""
    return random_forecaster(num_layers=3, input_skips=True, **request.param)


@pytest.fixture
def ticks() -> Ticks:
    """Three series of 80 ticks."""
    return random_ticks()
