"""The baselines are the textbook forecasts, read nothing after an origin and say when they were cut off."""

import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.clock import ReplayClock
from pipeline.errors import DataError, SettingsError
from pipeline.evaluate.baselines import last_value, seasonal_naive, statistical

LEVELS = tuple(tenth / 10 for tenth in range(1, 10))
MEDIAN = LEVELS.index(0.5)
START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class TickingClock:
    """A clock on which every look takes a second, so that a budget can run out without waiting."""

    clock: ReplayClock = field(default_factory=lambda: ReplayClock(START))

    def now(self) -> datetime:  # noqa: D102 (the Clock protocol says it)
        self.clock.advance(timedelta(seconds=1))
        return self.clock.now()


def daily(num_ticks: int, noise: float = 0.5, seed: int = 0) -> np.ndarray:
    """Return a daily cycle of hours with noise."""
    return 10 + 5 * np.sin(np.arange(num_ticks) * 2 * np.pi / 24) + np.random.default_rng(seed).normal(0, noise, num_ticks)


def test_seasonal_naive_repeats_the_last_season_at_every_origin() -> None:
    values = np.arange(20.0)
    median = seasonal_naive(values, [7, 12], horizon=6, season=4, quantile_levels=LEVELS)[..., MEDIAN]
    np.testing.assert_array_equal(median, [[4, 5, 6, 7, 4, 5], [9, 10, 11, 12, 9, 10]])


def test_last_value_stays() -> None:
    median = last_value(np.arange(20.0), [7, 12], horizon=3, quantile_levels=LEVELS)[..., MEDIAN]
    np.testing.assert_array_equal(median, [[7, 7, 7], [12, 12, 12]])


def test_gaps_are_filled_forward_and_the_first_season_falls_back_on_the_last_value() -> None:
    values = np.array([np.nan, 2.0, np.nan, np.nan, 5.0, 6.0, np.nan, 8.0])
    assert seasonal_naive(values, [6], horizon=4, season=4, quantile_levels=[0.5])[0, :, 0].tolist() == [2.0, 5.0, 6.0, 6.0]
    assert seasonal_naive(values, [2], horizon=2, season=4, quantile_levels=[0.5])[0, :, 0].tolist() == [2.0, 2.0]


def test_spread_grows_with_the_lead_of_a_random_walk_and_covers_it() -> None:
    walk = np.random.default_rng(1).normal(size=6_000).cumsum()
    origins = np.arange(3_000, 5_900, 7)
    quantiles = last_value(walk, origins.tolist(), horizon=16, quantile_levels=LEVELS)
    width = (quantiles[..., -1] - quantiles[..., 0])[0]
    assert width[15] / width[0] == pytest.approx(4.0, rel=0.1)  # √16
    actual = walk[origins[:, None] + np.arange(1, 17)]
    assert ((quantiles[..., 0] <= actual) & (actual <= quantiles[..., -1])).mean() == pytest.approx(0.8, abs=0.04)


@settings(max_examples=25, deadline=None)
@given(origin=st.integers(30, 150), season=st.integers(1, 30), seed=st.integers(0, 9))
def test_nothing_after_an_origin_is_read(origin: int, season: int, seed: int) -> None:
    values = daily(200, seed=seed)
    changed = np.concatenate([values[: origin + 1], np.full(199 - origin, 1e6)])
    before = seasonal_naive(values, [origin, origin + 5], horizon=7, season=season, quantile_levels=LEVELS)
    after = seasonal_naive(changed, [origin, origin + 5], horizon=7, season=season, quantile_levels=LEVELS)
    np.testing.assert_array_equal(before[0], after[0])
    np.testing.assert_allclose(np.diff(before[1]), np.diff(after[1]), atol=1e-9 * 1e6)  # later origins share the spread of the first


@pytest.mark.parametrize("origins", [[-1], [0], [5], []])
def test_origins_need_a_value_and_a_place_in_the_series(origins: list[int]) -> None:
    with pytest.raises(DataError, match=r"from the first known value \(index 1\) to the last tick \(4\)"):
        last_value([np.nan, 1.0, 2.0, 3.0, 4.0], origins, horizon=1, quantile_levels=LEVELS)


def test_statistical_beats_seasonal_naive_on_a_noisy_cycle() -> None:
    values, origins = daily(600, noise=1.0), [500, 530, 560]
    reached = statistical(
        values, origins, horizon=12, seasons=[24], quantile_levels=LEVELS, budget=timedelta(hours=1), clock=ReplayClock(START)
    )
    assert reached.quantiles.shape == (3, 12, 9)
    assert (np.diff(reached.quantiles) >= 0).all()
    actual = values[np.array(origins)[:, None] + np.arange(1, 13)]
    naive = seasonal_naive(values, origins, horizon=12, season=24, quantile_levels=LEVELS)
    assert np.abs(reached.quantiles[..., MEDIAN] - actual).mean() < np.abs(naive[..., MEDIAN] - actual).mean()
    assert (reached.model, len(reached.origins), reached.num_requested) == ("MSTL", 3, 3)


def test_a_spent_budget_is_told_and_the_origins_reached_are_spread() -> None:
    origins = list(range(100, 180, 10))
    reached = statistical(
        daily(200), origins, horizon=2, seasons=[], quantile_levels=LEVELS, budget=timedelta(seconds=3), clock=TickingClock()
    )
    assert reached.origins.tolist() == [100, 120, 140]  # 0, 4, 2 of eight
    assert (reached.model, reached.num_requested) == ("AutoETS", 8)


def test_statistical_reads_nothing_after_an_origin() -> None:
    values = daily(200)
    changed = np.concatenate([values[:151], np.full(49, np.nan)])
    asked = {"horizon": 3, "seasons": [24], "quantile_levels": LEVELS, "budget": timedelta(hours=1), "clock": ReplayClock(START)}
    np.testing.assert_array_equal(statistical(values, [150], **asked).quantiles, statistical(changed, [150], **asked).quantiles)


@pytest.mark.parametrize(
    ("origins", "levels", "error", "sentence"),
    [
        ([5], LEVELS, DataError, "12 ticks up to the first origin; got 6"),
        ([50], (0.123456,), SettingsError, "whole percents; got 0.123456"),
    ],
)
def test_what_cannot_be_fitted_is_refused(origins: list[int], levels: tuple[float, ...], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        statistical(
            daily(60), origins, horizon=2, seasons=[], quantile_levels=levels, budget=timedelta(seconds=9), clock=ReplayClock(START)
        )


def test_without_statsforecast_the_command_to_install_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "statsforecast.models", None)
    with pytest.raises(SettingsError, match=r"pip install 'tidecast\[stats\]'"):
        statistical(daily(60), [50], horizon=2, seasons=[], quantile_levels=LEVELS, budget=timedelta(seconds=9), clock=ReplayClock(START))
