"""Normalising is asinh, exact near the mean and finite far away, and can be undone."""

import torch

from models.units import LINEAR_RANGE, to_metric_unit, to_normalised


def test_the_fast_asinh_is_the_exact_one() -> None:
    values = torch.tensor([-1e8, -3.0, -1e-9, 0.0, 1e-9, 0.7, 1e8]).double().requires_grad_()
    normalised = to_normalised(values, torch.tensor(0.0), torch.tensor(1.0), torch.float64)
    torch.testing.assert_close(normalised, LINEAR_RANGE * (values / LINEAR_RANGE).asinh(), rtol=1e-12, atol=0)
    (slope,) = torch.autograd.grad(normalised.sum(), values)
    torch.testing.assert_close(slope, (1 + (values.detach() / LINEAR_RANGE).square()).rsqrt())


def test_readings_far_beyond_all_others_stay_numbers() -> None:
    """Shown to fail by dividing the square of x by 1 + sqrt(1 + x^2): both overflow."""
    normalised = to_normalised(torch.tensor([-1e30, 1e30]), torch.tensor(0.0), torch.tensor(1.0), torch.float32)
    assert (normalised.abs() > 200).all()
    assert torch.isfinite(normalised).all()


def test_normalising_and_back_is_exact_even_far_from_zero() -> None:
    values, mean, scale = torch.tensor([1e9, 1e9 + 3.5]).double(), torch.tensor(1e9).double(), torch.tensor(2.0).double()
    there_and_back = to_metric_unit(to_normalised(values, mean, scale, torch.float32), mean, scale)
    torch.testing.assert_close(there_and_back, values, rtol=0, atol=1e-5)
