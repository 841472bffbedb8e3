"""Where in the day, the week and the year an instant lies, as sines and cosines: known for the future as well as for the past."""

import math

import torch
from torch import Tensor

DAY_S = 86_400
WEEK_S = 7 * DAY_S
YEAR_S = 31_557_600  # 365.25 days
HARMONICS = 3


def num_calendar_features(sample_interval_s: float) -> int:
    """Return how many features `calendar` gives for a grid spacing in seconds."""
    return 2 * HARMONICS * len(_periods(sample_interval_s)) or 1


def calendar(time_s: Tensor, sample_interval_s: float) -> Tensor:
    """Return calendar features, (..., C) float64, of instants in seconds since the epoch, UTC.

    Only of periods that the grid resolves and readings are likely to repeat: a daily grid sees the week, a monthly one the year,
    and one without any (a spacing of a year, or infinity for ticks that are no instants) a constant 0.
    """
    angles = [
        (time_s % period).double() * (2 * math.pi * k / period) for period in _periods(sample_interval_s) for k in range(1, HARMONICS + 1)
    ]
    if not angles:
        return time_s.new_zeros((*time_s.shape, 1), dtype=torch.float64)
    stacked = torch.stack(angles, dim=-1)
    return torch.cat([stacked.sin(), stacked.cos()], dim=-1)


def _periods(sample_interval_s: float) -> list[int]:
    # The year is for coarse grids alone: few histories of hours or days hold more than one, and then it only dates them.
    week_and_day = [period for period in (WEEK_S, DAY_S) if sample_interval_s < period]
    return week_and_day or [period for period in (YEAR_S,) if 2 * sample_interval_s < period]
