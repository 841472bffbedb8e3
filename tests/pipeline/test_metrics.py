"""The metrics equal what a hand or utilsforecast computes, and leave out nothing but unknown actuals."""

import numpy as np
import polars as pl
import pytest
from utilsforecast import losses

from pipeline.errors import DataError, SettingsError
from pipeline.evaluate.metrics import ForecastScores, SeasonalScale, seasonal_scale

LEVELS = tuple(tenth / 10 for tenth in range(1, 10))
NAMES = {level: f"q{tenth}" for tenth, level in enumerate(LEVELS, start=1)}
NUM_ORIGINS, HORIZON, SEASON = 5, 6, 4


@pytest.fixture
def block() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return history, actuals (origins, horizon) and quantiles (origins, horizon, levels) of one series."""
    rng = np.random.default_rng(7)
    actual = rng.normal(10, 3, (NUM_ORIGINS, HORIZON))
    return rng.normal(10, 3, 60), actual, np.sort(rng.normal(10, 3, (NUM_ORIGINS, HORIZON, len(LEVELS))), axis=-1)


def long_frame(actual: np.ndarray, quantiles: np.ndarray) -> pl.DataFrame:
    """Return the frame that utilsforecast scores: one series, its median as the point forecast."""
    columns = {name: quantiles[..., number].ravel() for number, name in enumerate(NAMES.values())}
    frame = pl.DataFrame({"unique_id": ["a"] * actual.size, "ds": range(actual.size), "y": actual.ravel(), **columns})
    return frame.with_columns(pl.col("q5").alias("m"), pl.col("q1").alias("m-lo-80"), pl.col("q9").alias("m-hi-80"))


def test_metrics_equal_utilsforecast(block: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    history, actual, quantiles = block
    frame = long_frame(actual, quantiles)
    train = pl.DataFrame({"unique_id": ["a"] * len(history), "ds": range(-len(history), 0), "y": history})
    theirs = {
        "mse": losses.mse(frame, ["m"]),
        "mae": losses.mae(frame, ["m"]),
        "mase": losses.mase(frame, ["m"], SEASON, train),
        "rmsse": losses.rmsse(frame, ["m"], SEASON, train),
        "wql": losses.scaled_crps(frame, {"m": list(NAMES.values())}, np.array(LEVELS)),
        "crps": losses.mqloss(frame, {"m": list(NAMES.values())}, np.array(LEVELS)).with_columns(pl.col("m") * 2),
        "coverage_80": losses.coverage(frame, ["m"], 80),
    }
    scores = ForecastScores(HORIZON, LEVELS)
    scores.add(actual, quantiles, seasonal_scale(history, SEASON))
    ours = scores.overall().row(0, named=True)
    assert {name: ours[name] for name in theirs} == pytest.approx({name: frame["m"][0] for name, frame in theirs.items()}, rel=1e-9)


def test_metrics_of_two_points_by_hand() -> None:
    scores = ForecastScores(horizon=2, quantile_levels=(0.1, 0.5, 0.9))
    scores.add([[4.0, -2.0]], [[[1.0, 2.0, 3.0], [-3.0, -2.0, 0.0]]], SeasonalScale(2.0, 4.0))
    # errors 2 and 0; pinball at 0.1, 0.5, 0.9: 0.3, 1.0, 0.9 and 0.1, 0.0, 0.2
    expected = {"mse": 2.0, "mae": 1.0, "mase": 0.5, "rmsse": 0.5 / 2**0.5, "coverage_80": 0.5, "width_80": 2.5}
    expected |= {"wql": 2 * (0.4 + 1.0 + 1.1) / 6 / 3, "crps": 2 * (0.4 + 1.0 + 1.1) / 2 / 3, "num_points": 2, "num_scaled": 2}
    assert scores.overall().row(0, named=True) == pytest.approx(expected)
    assert scores.by_step()["mae"].to_list() == [2.0, 0.0]
    assert scores.by_step()["step"].to_list() == [1, 2]


def test_unknown_actuals_are_left_out_and_counted(block: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    history, actual, quantiles = block
    actual[1], actual[:, 2], quantiles[1] = np.nan, np.nan, np.nan
    scores = ForecastScores(HORIZON, LEVELS)
    scores.add(actual, quantiles, seasonal_scale(history, SEASON))
    by_step = scores.by_step()
    assert by_step["num_points"].to_list() == [4, 4, 0, 4, 4, 4]
    assert by_step.row(2)[2:-1] == (None,) * 8
    known = np.isfinite(actual)
    assert scores.overall()["mae"][0] == pytest.approx(np.abs(actual - quantiles[..., 4])[known].mean())


def test_a_constant_series_counts_everywhere_but_in_scaled_metrics() -> None:
    scores = ForecastScores(1, (0.1, 0.5, 0.9))
    constant, moving = seasonal_scale(np.ones(9), 2), seasonal_scale(np.arange(9.0), 2)
    scores.add([[5.0]], [[[4.0, 4.0, 4.0]]], constant)
    scores.add([[5.0]], [[[1.0, 1.0, 1.0]]], moving)
    row = scores.overall().row(0, named=True)
    assert (row["num_points"], row["num_scaled"], row["mase"], row["mae"]) == (2, 1, 2.0, 2.5)


def test_scales_of_a_block_are_one_for_each_series() -> None:
    history = np.stack([np.arange(8.0), 10 * np.arange(8.0)])
    scale = seasonal_scale(history, 1)
    np.testing.assert_allclose(scale.absolute, [1.0, 10.0])
    np.testing.assert_allclose(scale.squared, [1.0, 10.0])
    scores = ForecastScores(1, (0.1, 0.5, 0.9))
    scores.add(np.ones((2, 3, 1)), np.zeros((2, 3, 1, 3)), SeasonalScale(*(np.asarray(part)[:, None] for part in scale)))
    assert scores.overall()["mase"][0] == pytest.approx((1.0 + 0.1) / 2)


def test_gaps_in_history_leave_out_their_pairs_only() -> None:
    assert seasonal_scale([1.0, 2.0, np.nan, 5.0, 9.0], 1) == SeasonalScale(2.5, (8.5) ** 0.5)
    assert np.isnan(seasonal_scale([1.0, 2.0], 5).absolute)


@pytest.mark.parametrize(
    ("actual", "quantiles", "sentence"),
    [
        (np.zeros((3, 2)), np.zeros((3, 2, 4)), r"quantiles \(…, 2, 3\); got \(3, 2\) and \(3, 2, 4\)"),
        (np.zeros((3, 5)), np.zeros((3, 5, 3)), r"actual \(…, 2\)"),
        (np.zeros((1, 2)), np.full((1, 2, 3), np.nan), "finite quantiles wherever the actual is known; got 2"),
    ],
)
def test_blocks_that_cannot_be_scored_are_refused(actual: np.ndarray, quantiles: np.ndarray, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        ForecastScores(2, (0.1, 0.5, 0.9)).add(actual, quantiles)


def test_scores_need_the_80_percent_interval_and_like_accumulators() -> None:
    with pytest.raises(SettingsError, match=r"levels 0.1, 0.5 and 0.9; got 2 and \[0.5\]"):
        ForecastScores(2, (0.5,))
    with pytest.raises(SettingsError, match="same horizon and levels"):
        ForecastScores(2, (0.1, 0.5, 0.9)).merge(ForecastScores(3, (0.1, 0.5, 0.9)))
    assert ForecastScores(2, np.float32([0.1, 0.5, 0.9]).tolist()).quantile_levels == (0.1, 0.5, 0.9)
