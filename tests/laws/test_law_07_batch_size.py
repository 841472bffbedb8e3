"""Law 7: metrics do not depend on batch size, and no window is dropped."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from pipeline.evaluate.metrics import ForecastScores, SeasonalScale

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
NUM_WINDOWS, HORIZON = 331, 5  # no batch size below divides it: a dropped last batch would show


def scored(batches: list[np.ndarray]) -> ForecastScores:
    """Score the windows of each batch in turn; a tenth of the actuals is unknown, windows have unlike scales."""
    rng = np.random.default_rng(3)
    actual = rng.normal(100, 30, (NUM_WINDOWS, HORIZON))
    actual[rng.random(actual.shape) < 0.1] = np.nan
    quantiles = np.sort(rng.normal(100, 30, (NUM_WINDOWS, HORIZON, len(LEVELS))), axis=-1)
    scale = rng.uniform(0.1, 50, NUM_WINDOWS)
    scores = ForecastScores(HORIZON, LEVELS)
    for batch in batches:
        scores.add(actual[batch], quantiles[batch], SeasonalScale(scale[batch], 1.2 * scale[batch]))
    return scores


ALL = scored([np.arange(NUM_WINDOWS)])


def assert_same(scores: ForecastScores) -> None:
    for ours, expected in ((scores.by_step(), ALL.by_step()), (scores.overall(), ALL.overall())):
        assert ours["num_points"].to_list() == expected["num_points"].to_list()
        assert_frame_equal(ours, expected, rel_tol=1e-6, abs_tol=0.0)


@pytest.mark.parametrize("batch_size", [1, 7, 64, NUM_WINDOWS])
def test_batch_size_changes_no_metric(batch_size: int) -> None:
    """Shown to fail by averaging the sums of batches in `_Sums.add`, and by scoring only whole multiples of 64 windows in `add`."""
    assert_same(scored([np.arange(first, min(first + batch_size, NUM_WINDOWS)) for first in range(0, NUM_WINDOWS, batch_size)]))


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(NUM_WINDOWS)), cuts=st.lists(st.integers(0, NUM_WINDOWS), max_size=6))
def test_order_and_sharding_change_no_metric(order: list[int], cuts: list[int]) -> None:
    """Shown to fail by letting `merge` replace one step's sum of absolute errors instead of adding to it."""
    merged = ForecastScores(HORIZON, LEVELS)
    for shard in np.split(np.array(order), sorted(cuts)):
        merged.merge(scored([shard]))
    assert_same(merged)


def test_every_known_point_is_scored() -> None:
    """Shown to fail by dropping each window that holds an unknown actual, which no other law here notices."""
    rng = np.random.default_rng(3)
    rng.normal(100, 30, (NUM_WINDOWS, HORIZON))
    known = rng.random((NUM_WINDOWS, HORIZON)) >= 0.1
    assert ALL.by_step()["num_points"].to_list() == known.sum(axis=0).tolist()
    assert ALL.overall().select(pl.col("num_points")).item() == known.sum()
