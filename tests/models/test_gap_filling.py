"""A filler begins as a straight line, reads both sides, and reads nothing that is hidden."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.gap_filling import (
    GapFiller,
    GapWindow,
    bridge_deviation,
    distances,
    fill_loss,
    go_dark,
    interpolate,
    interpolate_seasonal,
    typical_step,
)


def window(values_TB: Tensor, seen_TB: Tensor, num_companions: int = 0) -> GapWindow:
    """Return hourly windows whose ticks that are not seen are to be filled."""
    num_ticks, num_windows = values_TB.shape
    time_TB = (1_700_000_000 + 3600 * torch.arange(num_ticks)).unsqueeze(1).expand(num_ticks, num_windows)
    return GapWindow(values_TB, seen_TB, ~seen_TB, time_TB, torch.randn(num_ticks, num_windows, num_companions, dtype=torch.float64))


def walks_with_a_gap(num_companions: int = 0) -> GapWindow:
    """Return four random walks of 60 hours, ticks 25 to 34 hidden."""
    torch.manual_seed(0)
    values_TB = 50 + torch.randn(60, 4, dtype=torch.float64).cumsum(0)
    row_T1 = torch.arange(60).unsqueeze(1).expand(60, 4)
    return window(values_TB, (row_T1 < 25) | (row_T1 > 34), num_companions)


def moved_filler(num_companions: int = 0, season: int | None = 24) -> GapFiller:
    """Return a float64 filler whose every weight has an effect."""
    torch.manual_seed(0)
    filler = GapFiller(3600.0, season=season, num_companions=num_companions, hidden_size=6).double()
    with torch.no_grad():
        for parameter in filler.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return filler


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.floats(-5, 5), st.floats(-3, 3))
@settings(max_examples=60, deadline=None)
def test_interpolation_restores_a_line_between_what_is_seen(seen: list[bool], level: float, slope: float) -> None:
    """Shown to fail by weighing the two neighbours the wrong way round."""
    row_T = torch.arange(len(seen), dtype=torch.float64)
    line_T1 = (level + slope * row_T).unsqueeze(1)
    seen_T1 = torch.tensor(seen).unsqueeze(1)
    rows = [row for row, there in enumerate(seen) if there] or [0]
    expected_T1 = level + slope * row_T.clamp(rows[0], rows[-1]).unsqueeze(1)
    expected_T1 = expected_T1 * float(any(seen))  # nothing seen: the mean of a normalised window
    torch.testing.assert_close(interpolate(line_T1, seen_T1), expected_T1, rtol=0, atol=1e-9)


def test_seasonal_interpolation_restores_a_daily_pattern_that_grows_from_day_to_day() -> None:
    """Shown to fail by taking the day before as it is."""
    row_T1 = torch.arange(24 * 4).unsqueeze(1)
    values_T1 = ((row_T1 % 24) ** 2 + 10.0 * (row_T1 // 24)).double()
    seen_T1 = (row_T1 < 30) | (row_T1 > 44)
    torch.testing.assert_close(interpolate_seasonal(values_T1, seen_T1, 24), values_T1)


def test_a_phase_that_is_never_seen_takes_the_line() -> None:
    row_T1 = torch.arange(10).unsqueeze(1)
    seen_T1 = row_T1 % 4 != 2
    torch.testing.assert_close(interpolate_seasonal(row_T1.double(), seen_T1, 4), row_T1.double())


def test_distances_count_ticks_to_the_last_and_the_next_reading() -> None:
    since_T1, until_T1 = distances(torch.tensor([[False], [True], [False], [False], [True], [False]]))
    assert since_T1.flatten().tolist() == [6, 0, 1, 2, 0, 1]
    assert until_T1.flatten().tolist() == [1, 0, 2, 1, 0, 6]


def test_the_bridge_is_tied_down_at_both_ends_and_widest_in_the_middle() -> None:
    """Shown to fail by leaving out the division: a walk that is free at one end."""
    since_T, until_T = torch.arange(9), torch.arange(8, -1, -1)
    strays_T = bridge_deviation(since_T, until_T)
    assert strays_T[[0, 8]].tolist() == [0.0, 0.0]
    assert float(strays_T[4]) == pytest.approx(2**0.5)  # sqrt(4 · 4 / 8)


def test_the_typical_step_reads_only_neighbours_that_are_both_seen() -> None:
    values_T1 = torch.tensor([[0.0], [2.0], [900.0], [9.0], [13.0]])
    assert typical_step(values_T1, torch.tensor([[True], [True], [False], [True], [True]])).tolist() == [3.0]


def test_an_untrained_filler_interpolates() -> None:
    """Shown to fail by initialising the output layer at random."""
    gap = walks_with_a_gap()
    torch.testing.assert_close(GapFiller(3600.0, season=24)(gap), interpolate(gap.values_TB, gap.seen_TB), check_dtype=False)


def test_what_is_hidden_changes_nothing() -> None:
    """Shown to fail by scaling with the window's values whether they are seen or not."""
    gap, filler = walks_with_a_gap(), moved_filler()
    tampered = gap._replace(values_TB=torch.where(gap.seen_TB, gap.values_TB, 1e6))
    assert torch.equal(filler(tampered), filler(gap))


@pytest.mark.parametrize("far", [slice(0, 10), slice(50, 60)], ids=["before", "after"])
def test_readings_far_from_the_gap_are_read_on_both_sides(far: slice) -> None:
    """Shown to fail by building the layers one-way. Turning ten ticks round that begin and end alike keeps mean, spread and steps."""
    gap = walks_with_a_gap()
    filler = moved_filler(season=None)
    values_TB = gap.values_TB.clone()
    values_TB[far.stop - 1] = values_TB[far.start]
    turned_TB = values_TB.clone()
    turned_TB[far] = values_TB[far].flip(0)
    difference_TB = filler(gap._replace(values_TB=turned_TB)) - filler(gap._replace(values_TB=values_TB))
    assert bool((difference_TB[25:35].abs() > 1e-9).all())


def test_filling_follows_the_metrics_unit() -> None:
    """Shown to fail by feeding the values themselves to the layers."""
    gap, filler = walks_with_a_gap(), moved_filler()
    fahrenheit = gap._replace(values_TB=32 + 1.8 * gap.values_TB)
    torch.testing.assert_close(filler(fahrenheit), 32 + 1.8 * filler(gap))


def test_a_dark_gap_hides_companions_in_the_gap_and_nowhere_else() -> None:
    """Shown to fail by hiding the companions of the whole window."""
    gap = walks_with_a_gap(num_companions=2)
    dark = go_dark(gap, torch.tensor([True, False, True, False]))
    hidden_TB = dark.companions_TBP.isnan().all(dim=-1)
    assert torch.equal(hidden_TB, gap.gap_TB & torch.tensor([True, False, True, False]))


def test_companions_in_the_gap_are_read_and_missing_ones_do_no_harm() -> None:
    gap, filler = walks_with_a_gap(num_companions=2), moved_filler(num_companions=2)
    dark = go_dark(gap, torch.ones(4, dtype=torch.bool))
    assert bool(filler(dark).isfinite().all())
    assert not torch.allclose(filler(dark)[25:35], filler(gap)[25:35])


def test_the_loss_weighs_a_long_gap_like_a_short_one() -> None:
    """Shown to fail by averaging over ticks."""
    values_TB = torch.tensor([[0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0]] * 2, dtype=torch.float64).T
    seen_TB = torch.ones(8, 2, dtype=torch.bool)
    seen_TB[3, 0] = seen_TB[2:6, 1] = False
    both = window(values_TB, seen_TB)
    filler = GapFiller(3600.0, season=None)
    each = [fill_loss(filler, window(values_TB[:, [b]], seen_TB[:, [b]])) for b in (0, 1)]
    torch.testing.assert_close(fill_loss(filler, both), (each[0] + each[1]) / 2)
