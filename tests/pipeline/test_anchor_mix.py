"""The shares of the anchors: the ones that a series was made with are found among outliers, and only what was observed counts."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.train.anchor_mix import LEAST_SHARE, fit_mix

NUM_ROWS, HORIZON = 2_000, 3


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).float()


def observed(share: float = 1.0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(9).random((NUM_ROWS, HORIZON)) < share)


def test_the_shares_that_made_the_targets_are_found() -> None:
    """The second anchor differs from step to step. Shown to fail with ten steps of the descent."""
    last, seasonal = draw(NUM_ROWS, 1), draw(NUM_ROWS, HORIZON, seed=1)
    target = 0.5 * last + 0.3 * seasonal  # the rest is the slowest mean's
    shares = fit_mix([last, seasonal], target + 0.01 * draw(NUM_ROWS, HORIZON, seed=2), observed())
    np.testing.assert_allclose(shares, np.tile([0.5, 0.3, 0.2], (HORIZON, 1)), atol=0.01)


def test_a_random_walk_goes_to_its_last_value_and_leaves_no_anchor_without_a_share() -> None:
    """Shown to fail without the smallest share."""
    last, seasonal = 3 * draw(NUM_ROWS, 1), 3 * draw(NUM_ROWS, HORIZON, seed=1)
    shares = fit_mix([last, seasonal], last + draw(NUM_ROWS, HORIZON, seed=2), observed())
    assert (shares[:, 0] > 0.9).all()
    assert (shares > 0.9 * LEAST_SHARE).all()
    np.testing.assert_allclose(shares.sum(dim=-1), np.ones(HORIZON))


def test_outliers_do_not_draw_the_shares() -> None:
    """One target in ten is five times the other anchor. Shown to fail by least squares alone: RENEWALS = 0."""
    last, seasonal = draw(NUM_ROWS, 1), draw(NUM_ROWS, HORIZON, seed=1)
    is_outlier = torch.from_numpy(np.random.default_rng(3).random((NUM_ROWS, HORIZON)) < 0.1)
    target = torch.where(is_outlier, 5 * seasonal, last + 0.1 * draw(NUM_ROWS, HORIZON, seed=2))
    assert (fit_mix([last, seasonal], target, observed())[:, 0] > 0.9).all()


@pytest.mark.parametrize("value", [1e6, float("nan")])
def test_what_was_not_observed_does_not_count(value: float) -> None:
    """Shown to fail by weights of 1."""
    last, seasonal, known = draw(NUM_ROWS, 1), draw(NUM_ROWS, HORIZON, seed=1), observed(0.7)
    target = last + 0.1 * draw(NUM_ROWS, HORIZON, seed=2)
    shares = fit_mix([last, seasonal], torch.where(known, target, value * seasonal), known)
    np.testing.assert_allclose(shares, fit_mix([last, seasonal], torch.where(known, target, 0.0), known))
    assert (shares[:, 0] > 0.9).all()


def test_where_nothing_was_observed_the_shares_stay_equal() -> None:
    """Shown to fail with a median of no errors."""
    shares = fit_mix([draw(NUM_ROWS, 1)], draw(NUM_ROWS, HORIZON), observed(0.0))
    np.testing.assert_allclose(shares, np.full((HORIZON, 2), 0.5))


def test_targets_far_beyond_every_anchor_leave_shares_that_are_numbers() -> None:
    """Series that stood still and then jump are like that. Shown to fail by the exponential of the slopes themselves: all NaN."""
    last, seasonal = 1e-4 * draw(NUM_ROWS, 1), 1e-5 * draw(NUM_ROWS, HORIZON, seed=1)
    shares = fit_mix([last, seasonal], 12 * last.sign().expand(-1, HORIZON), observed())
    assert (shares[:, 0] > 0.9).all()
