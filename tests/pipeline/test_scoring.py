"""Scoring runs the live engine over every origin asked for and drops none."""

from datetime import timedelta

import numpy as np
import pytest
from polars.testing import assert_frame_equal

from models import forecaster
from pipeline.errors import DataError
from pipeline.evaluate.scoring import LAST_VALUE, MODEL, SEASONAL_NAIVE, Period, score_forecaster
from pipeline.forecast import engine
from tests.lakes import CONFIG, random_weights
from tests.laws.panels import HOUR, START, daily_cycle, hourly_panel

NUM_TICKS, H = 200, CONFIG.horizon
PERIOD = Period(start=START + 120 * HOUR, end=START + 190 * HOUR, train_end=START + 120 * HOUR)


def test_every_origin_with_a_whole_horizon_is_scored() -> None:
    panel = hourly_panel(daily_cycle(NUM_TICKS, 3))
    board = score_forecaster(random_weights(), panel, panel, PERIOD)
    num_origins = 70 - H + 1
    assert board.num_origins == 3 * num_origins
    assert board.overall()["num_points"].to_list() == [3 * num_origins * H] * 4
    assert board.by_step().filter(model=MODEL)["num_points"].to_list() == [3 * num_origins] * H


def test_a_stride_takes_every_nth_origin() -> None:
    panel = hourly_panel(daily_cycle(NUM_TICKS, 1))
    strided = Period(start=PERIOD.start, end=PERIOD.end, train_end=PERIOD.train_end, stride=5)
    assert score_forecaster(random_weights(), panel, panel, strided).num_origins == 13


def test_points_that_were_not_observed_are_not_scored() -> None:
    values_TB = daily_cycle(NUM_TICKS, 1)
    values_TB[150] = np.nan
    panel = hourly_panel(values_TB)
    board = score_forecaster(random_weights(), panel, panel, PERIOD)
    assert board.overall().filter(model=MODEL)["num_points"].item() == (board.num_origins - 1) * H


def test_scores_of_a_periodic_series_are_those_of_its_perfect_baseline() -> None:
    values_TB = np.tile(np.arange(24.0), 9)[:NUM_TICKS, None]
    panel = hourly_panel(values_TB)
    board = score_forecaster(random_weights(), panel, panel, PERIOD)
    assert board.overall().filter(model=SEASONAL_NAIVE)["mae"].item() == 0.0
    by_hand = np.mean([np.abs(values_TB[t + h, 0] - values_TB[t, 0]) for t in range(120, 190 - H + 1) for h in range(1, H + 1)])
    deviation = values_TB[:121].std()
    np.testing.assert_allclose(board.overall().filter(model=LAST_VALUE)["mae"].item(), by_hand / deviation)


def test_units_do_not_change_standardised_scores() -> None:
    values_TB = daily_cycle(NUM_TICKS, 2)
    panel, in_thousandths = hourly_panel(values_TB), hourly_panel(1000 * values_TB)
    scores, scaled = (score_forecaster(random_weights(), p, p, PERIOD).overall() for p in (panel, in_thousandths))
    for metric in ("mse", "mae", "mase", "wql", "coverage_80"):
        np.testing.assert_allclose(scores[metric], scaled[metric], rtol=1e-6)


@pytest.mark.parametrize("hours", [(195, 199), (300, 400)])
def test_a_period_without_an_origin_is_refused(hours: tuple[int, int]) -> None:
    panel = hourly_panel(daily_cycle(NUM_TICKS, 1))
    start, end = (START + timedelta(hours=hour) for hour in hours)
    with pytest.raises(DataError, match="A score requires a period of at least 6 ticks"):
        score_forecaster(random_weights(), panel, panel, Period(start=start, end=end, train_end=START))


def test_series_that_start_and_end_apart_are_each_scored_on_their_own_origins() -> None:
    values_TB = daily_cycle(NUM_TICKS, 2)
    values_TB[:150, 1] = np.nan
    panel = hourly_panel(values_TB)
    board = score_forecaster(random_weights(), panel, panel, PERIOD)
    assert board.num_origins == (70 - H + 1) + (40 - H + 1)


def test_scores_do_not_depend_on_how_the_engine_is_chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown to fail by dropping the last origin of every chunk but the final one."""
    panel = hourly_panel(daily_cycle(NUM_TICKS, 5))
    whole = score_forecaster(random_weights(), panel, panel, PERIOD)
    monkeypatch.setattr(engine, "CHUNK_CELLS", 50)
    monkeypatch.setattr(engine, "CHUNK_SERIES", 2)
    monkeypatch.setattr(forecaster, "CHUNK_ORIGINS", 7)
    chunked = score_forecaster(random_weights(), panel, panel, PERIOD)
    assert chunked.num_origins == whole.num_origins
    assert_frame_equal(chunked.by_step(), whole.by_step(), rel_tol=1e-9)
