"""Where in the day and the week an instant lies, as sines and cosines: known for the future as well as for the past."""

import math

import torch
from torch import Tensor

DAY_S = 86_400
WEEK_S = 7 * DAY_S
DAY_HARMONICS = 3
WEEK_HARMONICS = 3


def num_calendar_features(sample_interval_s: float) -> int:
    """Return how many features `calendar` gives for a grid spacing in seconds."""
    return 2 * (WEEK_HARMONICS + (DAY_HARMONICS if sample_interval_s < DAY_S else 0))


def calendar(time_s: Tensor, sample_interval_s: float) -> Tensor:
    """Return calendar features, (..., C) float64, of instants in seconds since the epoch, UTC.

    A daily grid sees only the week: the hour would be one constant.
    """
    periods = [(WEEK_S, k) for k in range(1, WEEK_HARMONICS + 1)]
    if sample_interval_s < DAY_S:
        periods += [(DAY_S, k) for k in range(1, DAY_HARMONICS + 1)]
    angles = torch.stack([(time_s % period).double() * (2 * math.pi * k / period) for period, k in periods], dim=-1)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
