"""The calendar is periodic, known for the future, and leaves the hour out of daily data."""

import torch

from models.calendar import DAY_S, WEEK_S, calendar, num_calendar_features


def test_calendar_repeats_after_a_week_and_not_before() -> None:
    time = torch.arange(0, 2 * WEEK_S, 3600)
    features = calendar(time, 3600)
    torch.testing.assert_close(features[:168], features[168:])
    assert len({tuple(row) for row in features[:168].mul(1e6).round().tolist()}) == 168


def test_daily_data_sees_only_the_week() -> None:
    assert calendar(torch.tensor([0]), DAY_S).shape[-1] == num_calendar_features(DAY_S) == 6
    assert calendar(torch.tensor([0]), 3600).shape[-1] == num_calendar_features(3600) == 12
