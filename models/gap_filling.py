"""Fills gaps in closed history from both sides: the honest use of layers that read backwards in time.

For reports, label cleaning and anomaly review; never for a forecaster's inputs, because what is filled in at tick t has
read readings after t (docs/causality.md). The network corrects a straight line between the neighbours of a gap, so it
begins as linear interpolation and can only be kept where it is better. After BRITS (Cao et al. 2018), without its
feedback of imputed values. Called by `pipeline.offline.fill`.

Letters: T ticks of a window, B windows, P companions, F features, E width of the layers' output.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.calendar import calendar, num_calendar_features
from models.offline import RecurrentLayers

SCALE_FLOOR = 1e-6  # of the level, for a window that never moves


class GapWindow(NamedTuple):
    """Windows around one gap each; what is not seen is hidden from every method alike."""

    values_TB: Tensor
    """(T, B) float64 in the metric's unit; arbitrary where not seen."""
    seen_TB: Tensor
    """(T, B) bool: observed, outside the gap, and within reach of it."""
    gap_TB: Tensor
    """(T, B) bool: the ticks to fill."""
    time_TB: Tensor
    """(T, B) int64: labels in seconds since the epoch, UTC."""
    companions_TBP: Tensor
    """(T, B, P) float64: what else was measured at the same ticks, in its own units, NaN where it was not; P may be 0."""


class GapFiller(nn.Module):
    """A bidirectional LSTM over value, mask, time since the last and until the next reading, and the calendar."""

    def __init__(self, sample_interval_s: float, *, season: int | None, num_companions: int = 0, hidden_size: int = 48) -> None:
        """Build an untrained filler, which interpolates linearly.

        Args:
            sample_interval_s: grid spacing in seconds.
            season: ticks of the season whose same phase is offered as a neighbour (a day); None for none.
            num_companions: other measurements of the same device that are read along.
            hidden_size: width of each direction.
        """
        super().__init__()
        self.sample_interval_s, self.season = sample_interval_s, season
        num_features = 5 + 2 * num_companions + num_calendar_features(sample_interval_s)
        self.layers = RecurrentLayers(num_features, hidden_size, bidirectional=True)
        self.output = nn.Linear(self.layers.output_size, 2)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, window: GapWindow) -> Tensor:
        """Return a value for every tick (T, B), float64 in the metric's unit; where one was seen it is no more than a reconstruction."""
        mean_B, scale_B = _moments(window.values_TB, window.seen_TB)
        z_TB = (window.values_TB - mean_B) / scale_B
        line_TB = interpolate(z_TB, window.seen_TB)
        seasonal_TB = line_TB if self.season is None else interpolate_seasonal(z_TB, window.seen_TB, self.season)
        since_TB, until_TB = distances(window.seen_TB)
        columns = [
            line_TB.asinh(),
            (seasonal_TB - line_TB).asinh(),
            window.seen_TB.double(),
            since_TB.double().log1p(),
            until_TB.double().log1p(),
        ]
        inputs = [torch.stack(columns, dim=-1), _companions(window.companions_TBP), calendar(window.time_TB, self.sample_interval_s)]
        inputs_TBF = torch.cat(inputs, dim=-1)
        top_TBE = self.layers(inputs_TBF.to(self.output.weight.dtype))
        share_TB, correction_TB = self.output(top_TBE).double().unbind(-1)
        correction_TB = correction_TB * typical_step(z_TB, window.seen_TB) * bridge_deviation(since_TB, until_TB)
        filled_TB: Tensor = line_TB + share_TB * (seasonal_TB - line_TB) + correction_TB
        return mean_B + scale_B * filled_TB


def fill_loss(filler: GapFiller, window: GapWindow) -> Tensor:
    """Return the mean absolute error of the gaps, long ones counting like short ones, in standard deviations of each window.

    Assumes: `values_TB` is right inside the gaps too, as where observed stretches were hidden for training.
    """
    _, scale_B = _moments(window.values_TB, window.seen_TB)
    error_TB = torch.where(window.gap_TB, (filler(window) - window.values_TB) / scale_B, 0.0)
    return (error_TB.abs().sum(0) / window.gap_TB.sum(0).clamp(min=1)).mean()


def go_dark(window: GapWindow, dark_B: Tensor) -> GapWindow:
    """Hide the companions within the gaps of some windows (B,) bool: a device that sends nothing sends none of its metrics."""
    hidden_TB1 = (window.gap_TB & dark_B).unsqueeze(-1)
    return window._replace(companions_TBP=torch.where(hidden_TB1, torch.nan, window.companions_TBP))


def _companions(companions_TBP: Tensor) -> Tensor:
    """Return companions in standard deviations of each window, 0 where not known, and where they are known (T, B, 2 P)."""
    known_TBP = ~companions_TBP.isnan()
    mean_BP, scale_BP = _moments(companions_TBP, known_TBP)
    z_TBP = torch.where(known_TBP, (companions_TBP - mean_BP) / scale_BP, 0.0)
    return torch.cat([z_TBP.asinh(), known_TBP.double()], dim=-1)


def _moments(values: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation over the first axis of what is seen."""
    count = seen.sum(0).clamp(min=1)
    mean = torch.where(seen, values, 0.0).sum(0) / count
    deviation = torch.where(seen, values - mean, 0.0)
    scale = (deviation.square().sum(0) / count).sqrt()
    return mean, torch.maximum(scale, SCALE_FLOOR * mean.abs() + 1e-12)


def typical_step(values_TB: Tensor, seen_TB: Tensor) -> Tensor:
    """Return the mean absolute change from one tick to the next of each window (B,), over neighbours that are both seen."""
    both_TB = seen_TB[1:] & seen_TB[:-1]
    change_TB = torch.where(both_TB, (values_TB[1:] - values_TB[:-1]).abs(), 0.0)
    return change_TB.sum(0) / both_TB.sum(0).clamp(min=1)


def bridge_deviation(since_TB: Tensor, until_TB: Tensor) -> Tensor:
    """Return how far a random walk of unit steps strays from the line between two known points: sqrt(s u / (s + u)), 0 at either."""
    return ((since_TB * until_TB).double() / (since_TB + until_TB).clamp(min=1)).sqrt()


def distances(seen_TB: Tensor) -> tuple[Tensor, Tensor]:
    """Return the ticks since the last and until the next one seen (T, B), int64, 0 where seen; T where there is none."""
    before_TB, after_TB = _neighbours(seen_TB)
    row_T1 = torch.arange(seen_TB.shape[0]).unsqueeze(1)
    none = seen_TB.shape[0]
    return torch.where(before_TB >= 0, row_T1 - before_TB, none), torch.where(after_TB < none, after_TB - row_T1, none)


def interpolate(values_TB: Tensor, seen_TB: Tensor) -> Tensor:
    """Return the values seen, and straight lines between them (T, B); level beyond the first and the last, 0 where none is seen.

    >>> interpolate(torch.tensor([[1.0], [0.0], [0.0], [7.0], [0.0]]), torch.tensor([[True], [False], [False], [True], [False]])).T
    tensor([[1., 3., 5., 7., 7.]])
    """
    num_ticks = seen_TB.shape[0]
    before_TB, after_TB = _neighbours(seen_TB)
    safe_TB = torch.where(seen_TB, values_TB, 0.0)
    left_TB = safe_TB.gather(0, before_TB.clamp(min=0))
    right_TB = safe_TB.gather(0, after_TB.clamp(max=num_ticks - 1))
    left_TB = torch.where(before_TB >= 0, left_TB, right_TB)  # nothing before: level with the first one seen
    right_TB = torch.where(after_TB < num_ticks, right_TB, left_TB)
    row_T1 = torch.arange(num_ticks).unsqueeze(1)
    share_TB = (row_T1 - before_TB).to(values_TB.dtype) / (after_TB - before_TB).clamp(min=1)
    return left_TB + share_TB * (right_TB - left_TB)


def interpolate_seasonal(values_TB: Tensor, seen_TB: Tensor, season: int) -> Tensor:
    """Return the values seen, and between them the line through the same phase of the seasons before and after (T, B).

    A phase that is never seen takes the straight line between neighbours.

    Args:
        values_TB: arbitrary where not seen.
        seen_TB: bool.
        season: in ticks.
    """
    num_ticks, num_windows = seen_TB.shape
    padding = (0, 0, 0, -num_ticks % season)  # behind, to whole seasons: row = cycle · season + phase
    by_phase = (-1, season * num_windows)
    seen_SP = nn.functional.pad(seen_TB, padding).reshape(by_phase)
    filled_SP = interpolate(nn.functional.pad(values_TB, padding).reshape(by_phase), seen_SP)
    there_SP = seen_SP.any(0).expand_as(seen_SP)
    filled_TB, there_TB = (part.reshape(-1, num_windows)[:num_ticks] for part in (filled_SP, there_SP))
    return torch.where(there_TB, filled_TB, interpolate(values_TB, seen_TB))


def _neighbours(seen_TB: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows of the last one seen at or before each tick (-1: none) and of the next at or after it (T: none)."""
    num_ticks = seen_TB.shape[0]
    row_T1 = torch.arange(num_ticks).unsqueeze(1)
    before_TB = torch.where(seen_TB, row_T1, -1).cummax(0).values
    after_TB = torch.where(seen_TB, row_T1, num_ticks).flip(0).cummin(0).values.flip(0)
    return before_TB, after_TB
