"""The pinball loss equals the formula and ignores what was not observed."""

import torch

from models.losses import pinball

LEVELS = torch.tensor([0.1, 0.5, 0.9])


def test_pinball_equals_the_hand_computed_mean() -> None:
    quantiles, target = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([3.0])
    by_hand = (0.1 * 2.0 + 0.5 * 1.0 + 0.1 * 1.0) / 3
    torch.testing.assert_close(pinball(quantiles, target, torch.tensor([True]), LEVELS), torch.tensor(by_hand))


def test_unobserved_targets_count_neither_in_loss_nor_in_gradient() -> None:
    quantiles = torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 0.0]], requires_grad=True)
    masked = pinball(quantiles, torch.tensor([3.0, float("nan")]), torch.tensor([True, False]), LEVELS)
    masked.backward()
    torch.testing.assert_close(masked, pinball(quantiles[:1], torch.tensor([3.0]), torch.tensor([True]), LEVELS))
    assert quantiles.grad is not None
    assert (quantiles.grad[1] == 0).all()


def test_nothing_observed_is_no_loss() -> None:
    assert pinball(torch.zeros(2, 3), torch.zeros(2), torch.tensor([False, False]), LEVELS) == 0
