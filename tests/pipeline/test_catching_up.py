"""Catching up: who was away issues the forecasts that an undisturbed follower had issued, whatever came late and was corrected meanwhile."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from pipeline.clock import ReplayClock
from pipeline.evaluate.maturity import score_matured
from pipeline.forecast.rolling import RollingForecasts, forecast
from pipeline.forecast.state import StreamState
from pipeline.prepare.regularise import regularise
from pipeline.schemas import Forecasts, Scores
from pipeline.store.lake import Lake
from pipeline.tracking.registry import LoadedModel, champion
from tests.arrivals import Arrival, arrive
from tests.lakes import HOUR, START, TestLake, hourly_readings, random_weights

SERIES = ("north/temperature", "south/temperature")
FOLLOWED = 60  # hours that both lakes have read and forecast before one of them is left alone
CLOSES = timedelta(minutes=1)
KEY = ["series_id", "origin"]


def at(hour: float) -> datetime:
    return START + timedelta(hours=hour)


def reading(slot: int, hour: int, delay_min: float = 0, value: float | None = None) -> Arrival:
    """Return a reading that arrives so many minutes after its hour, and a second."""
    known = 20 + np.sin(hour) + slot if value is None else value
    return (SERIES[slot], at(hour), known, at(hour) + timedelta(minutes=delay_min, seconds=1))


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[TestLake, LoadedModel]:
    """A lake that was followed for 60 hours."""
    lake = TestLake.at(tmp_path_factory.mktemp("followed"), now=at(FOLLOWED) + CLOSES)
    lake.register(random_weights())
    lake.ingest(hourly_readings(FOLLOWED + 1, SERIES))
    forecast(lake.settings, lake.clock)
    return lake, champion(lake.settings)


def copied(followed: TestLake, folder: Path) -> TestLake:
    shutil.copytree(followed.folder / "lake", folder / "lake")
    return TestLake(followed.settings.model_copy(update={"lake": str(folder / "lake")}), ReplayClock(followed.clock.instant), folder)


def advanced(lake: TestLake, rolling: RollingForecasts, arrivals: list[Arrival], instant: datetime) -> None:
    """Let readings arrive and forecast at an instant, as a follower does that wakes then."""
    lake.clock.instant = instant
    if arrivals:
        arrive(lake.settings, arrivals)
    regularise(lake.settings, lake.clock)
    rolling.advance(lake.clock)


def tick_by_tick(lake: TestLake, model: LoadedModel, arrivals: list[Arrival], end: datetime) -> StreamState:
    """Follow a lake, awake at every tick's close and at every arrival."""
    rolling = RollingForecasts.open(lake.settings, model)
    closes = [at(hour) + CLOSES for hour in range(FOLLOWED + 1, FOLLOWED + 1 + int((end - at(FOLLOWED)) / HOUR))]
    done = lake.clock.instant
    for instant in sorted({*closes, *(arrival[3] for arrival in arrivals), end}):
        advanced(lake, rolling, [arrival for arrival in arrivals if done < arrival[3] <= instant], instant)
        done = instant
    return rolling.state


def at_once(lake: TestLake, model: LoadedModel, arrivals: list[Arrival], end: datetime) -> StreamState:
    rolling = RollingForecasts.open(lake.settings, model)
    advanced(lake, rolling, arrivals, end)
    return rolling.state


def issued(lake: TestLake) -> pl.DataFrame:
    return Lake(lake.settings.lake).scan(Forecasts).collect().sort(KEY).select(*KEY, "status", "quantiles")


def assert_same_forecasts(left: pl.DataFrame, right: pl.DataFrame) -> None:
    """The table is of single precision: what differs by 1e-9 before is one unit in its last place at the most."""
    assert_frame_equal(left.drop("quantiles"), right.drop("quantiles"))
    np.testing.assert_allclose(np.stack(left["quantiles"].to_list()), np.stack(right["quantiles"].to_list()), rtol=2.5e-7)


def assert_same_state(left: StreamState, right: StreamState) -> None:
    assert left.calibration is not None
    assert right.calibration is not None
    assert left.tick_B.tolist() == right.tick_B.tolist()
    ours, theirs = ({**vars(state.carried), **state.calibration.arrays()} for state in (left, right))
    for name, array in ours.items():
        np.testing.assert_allclose(np.asarray(array), np.asarray(theirs[name]), rtol=1e-9, atol=1e-9, err_msg=name)


def test_a_reading_that_came_while_nobody_followed_reaches_no_origin_before_it(
    followed: tuple[TestLake, LoadedModel], tmp_path: Path
) -> None:
    """Shown to fail by one pass over everything."""
    lake, model = followed
    arrivals = [reading(slot, hour) for hour in range(61, 67) for slot in (0, 1) if (slot, hour) != (1, 62)]
    arrivals += [reading(1, 62, delay_min=150, value=90.0), reading(0, 63, delay_min=90, value=-50.0)]
    live, away = copied(lake, tmp_path / "live"), copied(lake, tmp_path / "away")
    tick_by_tick(live, model, arrivals, at(66) + CLOSES)
    at_once(away, model, arrivals, at(66) + CLOSES)
    assert issued(live).height == 2 * 7
    assert_same_forecasts(issued(away), issued(live))


delays = st.sampled_from([0, 0, 0, 0.5, 3, 40, 61, 62, 100, 200])
cells = st.tuples(st.integers(0, 1), st.integers(57, 66), delays, st.none() | st.floats(-50, 90))
arrival_sequences = st.lists(cells, min_size=6, max_size=24, unique_by=lambda cell: (cell[0], cell[1], cell[2]))


@given(arrival_sequences)
@settings(max_examples=12, deadline=None)
def test_catching_up_equals_following(followed: tuple[TestLake, LoadedModel], cells: list[tuple[int, int, float, float | None]]) -> None:
    lake, model = followed
    known = at(FOLLOWED) + CLOSES
    arrivals = [arrival for arrival in (reading(*cell) for cell in cells) if arrival[3] > known]
    with TemporaryDirectory() as folder:
        live, away = copied(lake, Path(folder) / "live"), copied(lake, Path(folder) / "away")
        states = [act(one, model, arrivals, at(71)) for act, one in ((tick_by_tick, live), (at_once, away))]
        assert_same_forecasts(issued(away), issued(live))
        assert_same_state(*states)
