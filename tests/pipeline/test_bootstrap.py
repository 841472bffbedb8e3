"""Intervals hold the truth as often as they say, and are as wide as what is drawn varies."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ModelError
from pipeline.study.bootstrap import Interval, holm, resample


def losses(difference: float, rng: np.random.Generator, num_origins: int = 240) -> np.ndarray:
    """Return losses of two cells, 4 seeds, 3 series: series and stretches of time that both find hard, and seeds of their own."""
    hard_SO = rng.normal(0, 0.2, (3, 1)) + np.repeat(rng.normal(0, 0.2, num_origins // 12), 12)
    seeds_CK = rng.normal(0, 0.02, (2, 4))
    noise = rng.normal(0, 0.05, (2, 4, 3, num_origins))
    return 2.0 + hard_SO + seeds_CK[..., None, None] + noise + np.array([0, difference]).reshape(2, 1, 1, 1)


def compare(losses_CKSO: np.ndarray, block_length: int = 12, replicates: int = 300) -> Interval:
    return resample(losses_CKSO, block_length=block_length, num_replicates=replicates, seed=0).relative_difference(1, 0)


def test_an_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """Shown to fail by not drawing the seeds (it then holds in 22 of 100); 4 seeds cannot show all of their spread."""
    worlds = [compare(losses(0.02, np.random.default_rng(seed))) for seed in range(100)]
    truth = 0.01
    assert sum(found.low <= truth <= found.high for found in worlds) >= 82


def test_what_both_cells_find_hard_cancels_out() -> None:
    """Shown to fail by drawing series and origins anew for each cell."""
    found = compare(losses(0.2, np.random.default_rng(1)))
    assert 0.05 < found.low < 0.1 < found.high < 0.15
    assert found.p_value < 0.02


def test_blocks_widen_the_interval_of_errors_that_last() -> None:
    """Shown to fail by blocks of one origin whatever is asked for."""
    rng = np.random.default_rng(2)
    lasting = losses(0.0, rng)
    lasting[1] += np.repeat(rng.normal(0, 0.3, 20), 12)  # one cell alone finds some stretches hard
    alone, in_blocks = compare(lasting, block_length=1), compare(lasting, block_length=12)
    assert in_blocks.high - in_blocks.low > 1.5 * (alone.high - alone.low)


def test_a_cell_compared_with_itself_differs_by_nothing() -> None:
    same = losses(0.0, np.random.default_rng(3))
    same[1] = same[0] = same[0, :1]
    assert compare(same) == Interval(0.0, 0.0, 0.0, 1.0)


def test_points_that_did_not_come_true_change_nothing() -> None:
    """Shown to fail by counting them in the mean."""
    known = losses(0.1, np.random.default_rng(4))
    known[..., 1, 100:] = np.nan
    assert compare(known).estimate == pytest.approx(np.nanmean(known[1]) / np.nanmean(known[0]) - 1)
    assert compare(known).low < 0.05 < compare(known).high


def test_cells_scored_on_different_points_are_refused() -> None:
    unlike = losses(0.0, np.random.default_rng(5))
    unlike[1, 0, 0, 7] = np.nan
    with pytest.raises(ModelError, match="same points; got 1 "):
        compare(unlike)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_corrected_p_values_keep_their_order_and_never_shrink(p_values: list[float]) -> None:
    """Shown to fail by leaving out the running maximum."""
    corrected = holm(p_values)
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    assert [corrected[place] for place in order] == sorted(corrected)
    assert all(p <= q <= 1 for p, q in zip(p_values, corrected, strict=True))
    assert min(corrected) == min(1.0, len(p_values) * min(p_values))
