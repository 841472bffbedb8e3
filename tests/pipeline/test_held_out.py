"""Losses by origin add up to what the score tables say of the same forecaster."""

import numpy as np
import pytest

from pipeline.errors import DataError
from pipeline.evaluate.scoring import MODEL, Period, score_forecaster
from pipeline.prepare.splits import Split
from pipeline.study.held_out import held_out, origin_losses
from tests.lakes import random_weights
from tests.laws.panels import HOUR, START, daily_cycle, hourly_panel
from tests.studies import SPLIT, small_panel

FORECASTER = random_weights()
PERIOD = Period(start=SPLIT.validation_end, end=small_panel().end, train_end=SPLIT.train_end)


def test_the_mean_over_origins_is_the_crps_of_the_score_table() -> None:
    """Shown to fail by scaling with the deviation of the whole series."""
    losses_SO = origin_losses(FORECASTER, small_panel(), PERIOD)
    board = score_forecaster(FORECASTER, small_panel(), small_panel(), PERIOD, calibrate=False)
    (crps,) = board.overall().filter(model=MODEL)["crps"]
    assert losses_SO.shape == (2, 54)
    assert losses_SO.mean() == pytest.approx(crps, rel=1e-12)


def test_a_column_is_one_instant_for_series_that_begin_apart() -> None:
    """Shown to fail by counting origins from each series' own first."""
    values_TB = daily_cycle(260, 1)
    whole, late = hourly_panel(values_TB), hourly_panel(np.hstack([values_TB, values_TB]))
    late.values_TB[:225, 1] = np.nan
    losses_SO = origin_losses(FORECASTER, late, PERIOD)
    assert np.isnan(losses_SO[1, :25]).all()
    assert np.isfinite(losses_SO[1, 26:]).all()
    assert np.array_equal(losses_SO[0], origin_losses(FORECASTER, whole, PERIOD)[0])


def test_only_origins_after_the_validation_period_are_held_out() -> None:
    assert held_out(small_panel(), SPLIT, horizon=6, num_levels=9) == PERIOD


def test_a_long_period_is_thinned_out() -> None:
    """Shown to fail by a stride of 1 always."""
    period = held_out(small_panel(), SPLIT, horizon=6, num_levels=1_000_000)
    assert period.stride == 8
    assert origin_losses(FORECASTER, small_panel(), period).shape == (2, 7)


def test_nothing_after_the_validation_period_is_refused() -> None:
    """Shown to fail by returning whatever period there is."""
    late = Split(SPLIT.train_end, START + 256 * HOUR)
    with pytest.raises(DataError, match="requires held-out origins with a horizon of 6 ticks"):
        held_out(small_panel(), late, horizon=6, num_levels=9)
