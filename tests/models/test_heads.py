"""Quantiles never cross, and an untrained decoder forecasts the mean of its anchors."""

import torch

from models.anchors import num_anchors
from models.config import ForecasterConfig, NetworkConfig
from models.heads import CALENDAR_RANK, LINEAR_RANGE, QuantileDecoder, to_metric_unit, to_normalised

CONFIG = ForecasterConfig(sample_interval_s=3600, horizon=5, context_length=10, seasons=(24,), network=NetworkConfig(hidden_size=4))


def test_quantiles_ascend_whatever_the_weights() -> None:
    decoder = QuantileDecoder(CONFIG, num_calendar=3)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.copy_(3 * torch.randn_like(parameter))
    quantiles_NHQ = decoder(
        torch.randn(20, 4), torch.randn(20, 10), [torch.randn(20, 5) for _ in range(num_anchors(CONFIG))], torch.randn(20, 5, CALENDAR_RANK)
    )
    assert quantiles_NHQ.shape == (20, 5, 9)
    assert (quantiles_NHQ.diff(dim=-1) >= 0).all()


def test_untrained_median_is_the_mean_of_the_anchors_and_zero() -> None:
    decoder = QuantileDecoder(CONFIG, num_calendar=3)
    known = [torch.full((1, 1), 0.3), *(torch.full((1, 5), 0.9) for _ in range(num_anchors(CONFIG) - 1))]
    quantiles_NHQ = decoder(torch.randn(1, 4), torch.randn(1, 10), known, torch.randn(1, 5, CALENDAR_RANK))
    mean = (0.3 + 0.9 * (len(known) - 1)) / (len(known) + 1)
    torch.testing.assert_close(quantiles_NHQ[..., 4], torch.full((1, 5), mean))


def test_the_fast_asinh_is_the_exact_one() -> None:
    values = torch.tensor([-1e8, -3.0, -1e-9, 0.0, 1e-9, 0.7, 1e8]).double().requires_grad_()
    normalised = to_normalised(values, torch.tensor(0.0), torch.tensor(1.0), torch.float64)
    torch.testing.assert_close(normalised, LINEAR_RANGE * (values / LINEAR_RANGE).asinh(), rtol=1e-12, atol=0)
    (slope,) = torch.autograd.grad(normalised.sum(), values)
    torch.testing.assert_close(slope, (1 + (values.detach() / LINEAR_RANGE).square()).rsqrt())


def test_normalising_and_back_is_exact_even_far_from_zero() -> None:
    values, mean, scale = torch.tensor([1e9, 1e9 + 3.5]).double(), torch.tensor(1e9).double(), torch.tensor(2.0).double()
    there_and_back = to_metric_unit(to_normalised(values, mean, scale, torch.float32), mean, scale)
    torch.testing.assert_close(there_and_back, values, rtol=0, atol=1e-5)
