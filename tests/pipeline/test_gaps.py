"""Gaps are found where they are, and cut only where the truth is known."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.offline.gaps import Gaps, Stretches, find_gaps, gap_windows
from pipeline.prepare.sequences import Panel
from tests.laws.panels import hourly_panel


def panel(*columns: list[float]) -> Panel:
    """Return an hourly panel of one series for each list, NaN where not observed."""
    return hourly_panel(np.array(columns).T)


NAN = float("nan")


def test_closed_gaps_are_found_and_open_ends_are_none() -> None:
    """Shown to fail by counting what is missing before the first reading."""
    found = find_gaps(panel([NAN, 1, NAN, NAN, 2, 3, NAN, 4, NAN], [1, 2, 3, 4, 5, 6, 7, 8, 9]))
    assert found.column_G.tolist() == [0, 0]
    assert found.start_G.tolist() == [2, 6]
    assert found.length_G.tolist() == [2, 1]


@given(st.lists(st.booleans(), min_size=4, max_size=60), st.integers(1, 6), st.integers(0, 30))
@settings(max_examples=30, deadline=None)
def test_what_is_cut_was_observed_and_so_are_its_neighbours(seen: list[bool], length: int, first_row: int) -> None:
    """Shown to fail by leaving out the tick after the cut, or by `first_row_B` being ignored."""
    values_T1 = np.where(np.array([True, *seen]), 1.0, np.nan)[:, None]
    cuts = Stretches(hourly_panel(values_T1), np.array([first_row])).cut(np.repeat(length, 20), np.random.default_rng(0))
    for start in cuts.start_G:
        assert start >= max(first_row, 1)
        assert not np.isnan(values_T1[start - 1 : start + length + 1]).any()
        assert start + length < len(values_T1)


def test_a_length_is_cut_wherever_it_fits_and_left_out_where_it_does_not() -> None:
    """Shown to fail by trying one place only."""
    stretches = Stretches(panel([1.0] * 6 + [NAN] * 50 + [1.0] * 6))
    assert stretches.longest == 4
    cuts = stretches.cut(np.array([4] * 50 + [5] * 50), np.random.default_rng(0))
    assert cuts.length_G.tolist() == [4] * 50
    assert set(cuts.start_G.tolist()) == {1, 57}


def test_a_window_shows_its_reach_on_both_sides_and_nothing_beyond() -> None:
    """Shown to fail by letting a short gap's window end with the longest one's."""
    values_T1 = np.arange(40.0)[:, None]
    window = gap_windows(hourly_panel(values_T1), Gaps(np.zeros(2, int), np.array([10, 20]), np.array([5, 1])), reach=3)
    seen = [window.values_TB[window.seen_TB[:, g], g].tolist() for g in (0, 1)]
    assert seen == [[7.0, 8.0, 9.0, 15.0, 16.0, 17.0], [17.0, 18.0, 19.0, 21.0, 22.0, 23.0]]
    assert window.values_TB[window.gap_TB[:, 0], 0].tolist() == [10.0, 11.0, 12.0, 13.0, 14.0]


def test_a_window_that_reaches_over_the_ends_of_a_series_sees_nothing_there() -> None:
    window = gap_windows(panel([1, NAN, 2, 3], [1, 2, 3, 4]), Gaps(np.array([0]), np.array([1]), np.array([1])), reach=5)
    assert window.seen_TB[:, 0].nonzero().flatten().tolist() == [4, 6, 7]
    assert (window.time_TB.diff(dim=0) == 3600).all()
