"""The calendar is periodic, known for the future, and leaves the hour out of daily data."""

import math

import torch

from models.calendar import DAY_S, WEEK_S, YEAR_S, calendar, num_calendar_features


def test_calendar_repeats_after_a_week_and_not_before() -> None:
    time = torch.arange(0, 2 * WEEK_S, 3600)
    features = calendar(time, 3600)
    torch.testing.assert_close(features[:168], features[168:])
    assert len({tuple(row) for row in features[:168].mul(1e6).round().tolist()}) == 168


def test_daily_data_sees_only_the_week() -> None:
    assert calendar(torch.tensor([0]), DAY_S).shape[-1] == num_calendar_features(DAY_S) == 6
    assert calendar(torch.tensor([0]), 3600).shape[-1] == num_calendar_features(3600) == 12


def test_monthly_data_sees_the_year_and_nothing_else() -> None:
    month_s = YEAR_S // 12
    features = calendar(torch.arange(0, 2 * YEAR_S, month_s), month_s)
    torch.testing.assert_close(features[:12], features[12:])
    assert features.shape[-1] == num_calendar_features(month_s) == 6


def test_ticks_that_are_no_instants_have_a_constant_calendar() -> None:
    assert calendar(torch.arange(5), math.inf).tolist() == [[0.0]] * 5
    assert num_calendar_features(math.inf) == num_calendar_features(YEAR_S) == 1
