"""Quantiles never cross, and an untrained decoder forecasts the mean of its anchors."""

import torch

from models.config import ForecasterConfig, NetworkConfig
from models.heads import CALENDAR_RANK, QuantileDecoder, to_metric_unit, to_normalised

CONFIG = ForecasterConfig(sample_interval_s=3600, horizon=5, context_length=10, seasons=(24,), network=NetworkConfig(hidden_size=4))


def test_quantiles_ascend_whatever_the_weights() -> None:
    decoder = QuantileDecoder(CONFIG, num_calendar=3)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.copy_(3 * torch.randn_like(parameter))
    quantiles_NHQ = decoder(
        torch.randn(20, 4), torch.randn(20, 10), [torch.randn(20, 1), torch.randn(20, 5)], torch.randn(20, 5, CALENDAR_RANK)
    )
    assert quantiles_NHQ.shape == (20, 5, 9)
    assert (quantiles_NHQ.diff(dim=-1) >= 0).all()


def test_untrained_median_is_the_mean_of_last_value_season_and_zero() -> None:
    decoder = QuantileDecoder(CONFIG, num_calendar=3)
    last, season = torch.full((1, 1), 0.3), torch.full((1, 5), 0.9)
    quantiles_NHQ = decoder(torch.randn(1, 4), torch.randn(1, 10), [last, season], torch.randn(1, 5, CALENDAR_RANK))
    torch.testing.assert_close(quantiles_NHQ[..., 4], torch.full((1, 5), 0.4))


def test_normalising_and_back_is_exact_even_far_from_zero() -> None:
    values, mean, scale = torch.tensor([1e9, 1e9 + 3.5]).double(), torch.tensor(1e9).double(), torch.tensor(2.0).double()
    there_and_back = to_metric_unit(to_normalised(values, mean, scale, torch.float32), mean, scale)
    torch.testing.assert_close(there_and_back, values, rtol=0, atol=1e-5)
