"""Quantiles never cross, and an untrained decoder forecasts the mean of its anchors."""

import torch
from torch import Tensor

from models.anchors import num_anchors
from models.config import ForecasterConfig, NetworkConfig
from models.heads import CALENDAR_RANK, QuantileDecoder
from models.highway import HighwayInputs

CONFIG = ForecasterConfig(sample_interval_s=3600, horizon=5, context_length=10, seasons=(24,), network=NetworkConfig(hidden_size=4))


def decode(decoder: QuantileDecoder, known: list[Tensor]) -> Tensor:
    """Decode as many origins as the anchors are of, the rest of their inputs at random."""
    num_origins, horizon = known[-1].shape
    inputs = HighwayInputs(
        torch.randn(num_origins, CONFIG.context_length),
        torch.randn(num_origins, len(CONFIG.half_lives)),
        torch.randn(num_origins, 0),
        torch.randn(num_origins, horizon, 0),
        torch.randint(168, (num_origins, horizon)),
    )
    quantiles_NHQ: Tensor = decoder(torch.randn(num_origins, 4), inputs, known, torch.randn(num_origins, horizon, CALENDAR_RANK))
    return quantiles_NHQ


def test_quantiles_ascend_whatever_the_weights() -> None:
    decoder = QuantileDecoder(CONFIG, num_calendar=3)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.copy_(3 * torch.randn_like(parameter))
    quantiles_NHQ = decode(decoder, [torch.randn(20, 5) for _ in range(num_anchors(CONFIG))])
    assert quantiles_NHQ.shape == (20, 5, 9)
    assert (quantiles_NHQ.diff(dim=-1) >= 0).all()


def test_untrained_median_is_the_mean_of_the_anchors_and_zero() -> None:
    decoder = QuantileDecoder(CONFIG, num_calendar=3)
    known = [torch.full((1, 1), 0.3), *(torch.full((1, 5), 0.9) for _ in range(num_anchors(CONFIG) - 1))]
    quantiles_NHQ = decode(decoder, known)
    mean = (0.3 + 0.9 * (len(known) - 1)) / (len(known) + 1)
    torch.testing.assert_close(quantiles_NHQ[..., 4], torch.full((1, 5), mean))


def test_quantiles_start_as_far_apart_as_they_are_told_to() -> None:
    """Shown to fail by giving each level the step of the one above it, and by leaving the shift of softplus out."""
    decoder = QuantileDecoder(CONFIG, num_calendar=3)
    given_QH = (0.05 + torch.rand(9, 5)).cumsum(dim=0)
    decoder.start_spread(given_QH)
    quantiles_NHQ = decode(decoder, [torch.randn(2, 5) for _ in range(num_anchors(CONFIG))])
    torch.testing.assert_close(quantiles_NHQ.diff(dim=-1), given_QH.diff(dim=0).T.expand(2, -1, -1))


def test_quantiles_that_start_together_can_still_move_apart() -> None:
    """Shown to fail by steps of 0, which no gradient leaves."""
    decoder = QuantileDecoder(CONFIG, num_calendar=3)
    decoder.start_spread(torch.zeros(9, 5))
    quantiles_NHQ = decode(decoder, [torch.randn(2, 5) for _ in range(num_anchors(CONFIG))])
    assert (quantiles_NHQ.diff(dim=-1) > 0).all()
    assert torch.isfinite(decoder.head.bias).all()
