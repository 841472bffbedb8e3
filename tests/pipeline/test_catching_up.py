"""Catching up: who was away issues the forecasts that an undisturbed follower had issued, whatever came late or was corrected."""

import shutil
from datetime import datetime, timedelta
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
from pipeline.forecast.new_ticks import new_panels
from pipeline.forecast.rolling import RollingForecasts, forecast
from pipeline.forecast.state import StreamState
from pipeline.prepare.regularise import regularise
from pipeline.prepare.sequences import Panel
from pipeline.schemas import Forecasts, Scores
from pipeline.settings import PrepareSettings
from pipeline.store.catalog import Catalog
from pipeline.store.lake import Lake
from pipeline.tracking.registry import champion
from pipeline.tracking.saved_model import LoadedModel
from tests.arrivals import Arrival, arrive
from tests.lakes import HOUR, START, TestLake, hourly_readings, random_weights

SERIES = ("north/temperature", "south/temperature", "west/temperature")  # the last begins when nobody follows
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
    lake.ingest(hourly_readings(FOLLOWED + 1, SERIES[:2]))
    forecast(lake.settings, lake.clock)
    return lake, champion(lake.settings)


def copied(followed: TestLake, folder: Path) -> TestLake:
    """Return a lake of its own; with its interval set, a series is known from its first reading on."""
    shutil.copytree(followed.folder / "lake", folder / "lake")
    changes = {"lake": str(folder / "lake"), "prepare": PrepareSettings(sample_interval=HOUR)}
    return TestLake(followed.settings.model_copy(update=changes), ReplayClock(followed.clock.instant), folder)


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
    """The table is of single precision: what differs by 1e-9 before is one unit in its last place at the most, or as little near zero."""
    assert_frame_equal(left.drop("quantiles"), right.drop("quantiles"))
    np.testing.assert_allclose(np.stack(left["quantiles"].to_list()), np.stack(right["quantiles"].to_list()), rtol=2.5e-7, atol=1e-8)


def without_the_first(forecasts: pl.DataFrame) -> pl.DataFrame:
    """Leave out the first forecast of the series that began meanwhile: it is made when it is met, from all that is known then."""
    return forecasts.filter((pl.col("series_id") != SERIES[2]) | (pl.col("origin") > pl.col("origin").min().over("series_id")))


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
cells = st.tuples(st.integers(0, 2), st.integers(57, 66), delays, st.none() | st.floats(-50, 90))
arrival_sequences = st.lists(cells, min_size=6, max_size=24, unique_by=lambda cell: (cell[0], cell[1], cell[2]))


@given(arrival_sequences)
@settings(max_examples=6, deadline=None)
def test_catching_up_equals_following(followed: tuple[TestLake, LoadedModel], cells: list[tuple[int, int, float, float | None]]) -> None:
    lake, model = followed
    known = at(FOLLOWED) + CLOSES
    arrivals = [arrival for arrival in (reading(*cell) for cell in cells) if arrival[3] > known]
    with TemporaryDirectory() as folder:
        live, away = copied(lake, Path(folder) / "live"), copied(lake, Path(folder) / "away")
        states = [act(one, model, arrivals, at(71)) for act, one in ((tick_by_tick, live), (at_once, away))]
        assert issued(away).select(KEY).equals(issued(live).select(KEY))
        assert_same_forecasts(*(without_the_first(issued(one)) for one in (away, live)))
        assert_same_state(*states)


def test_what_matured_is_the_same(followed: tuple[TestLake, LoadedModel], tmp_path: Path) -> None:
    """A step is scored against what is known when it is scored: of one that was corrected since, who was away scores the correction."""
    lake, model = followed
    arrivals = [reading(slot, hour, delay_min=200 if (slot, hour) == (1, 62) else 0) for hour in range(61, 67) for slot in (0, 1)]
    lakes = [copied(lake, tmp_path / name) for name in ("live", "away")]
    for one, act in zip(lakes, (tick_by_tick, at_once), strict=True):
        act(one, model, arrivals, at(68))
        score_matured(one.settings, one.clock)
    live, away = (Lake(one.settings.lake).scan(Scores).collect().drop("scored_at").sort(Scores.key) for one in lakes)
    assert live.height == 2 * sum(range(1, 7))
    assert_frame_equal(away, live, rel_tol=1e-6)


def test_a_series_that_stops_while_nobody_follows_is_forecast_on_for_as_long(
    followed: tuple[TestLake, LoadedModel], tmp_path: Path
) -> None:
    """Shown to fail by `targets` that end it at its last reading."""
    lake, model = followed
    last = FOLLOWED + 4 + model.model.config.history_length
    arrivals = [reading(0, hour) for hour in range(61, last + 1)] + [reading(1, 61), reading(1, 62)]
    live, away = copied(lake, tmp_path / "live"), copied(lake, tmp_path / "away")
    states = [act(one, model, arrivals, at(last) + CLOSES) for act, one in ((tick_by_tick, live), (at_once, away))]
    assert_same_forecasts(issued(away), issued(live))
    assert states[0].tick_B.tolist() == states[1].tick_B.tolist()


def test_catching_up_without_revisions_is_one_pass_and_bit_for_bit_the_same(
    followed: tuple[TestLake, LoadedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, model = followed
    arrivals = [reading(slot, hour) for hour in range(61, 67) for slot in (0, 1)]
    live, away = copied(lake, tmp_path / "live"), copied(lake, tmp_path / "away")
    tick_by_tick(live, model, arrivals, at(66) + CLOSES)
    num_reads = []
    read = RollingForecasts._read
    monkeypatch.setattr(RollingForecasts, "_read", lambda *args: num_reads.append(1) or read(*args))
    at_once(away, model, arrivals, at(66) + CLOSES)
    assert_frame_equal(issued(away), issued(live))
    assert len(num_reads) == 1


def test_a_series_that_began_meanwhile_is_forecast_as_it_was_known(followed: tuple[TestLake, LoadedModel], tmp_path: Path) -> None:
    """Shown to fail by a fleet whose first readings are those known now."""
    lake, model = followed
    arrivals = [reading(slot, hour) for hour in range(62, 70) for slot in (0, 1, 2)]
    arrivals += [reading(2, 61, delay_min=7 * 60 + 30, value=70.0), reading(0, 61), reading(1, 61)]
    live, away = copied(lake, tmp_path / "live"), copied(lake, tmp_path / "away")
    tick_by_tick(live, model, arrivals, at(69) + CLOSES)
    at_once(away, model, arrivals, at(69) + CLOSES)
    assert_same_forecasts(issued(away), issued(live))


@pytest.mark.parametrize("stops_after", [1, 5, 40])
def test_a_series_that_began_meanwhile_is_forecast_from_its_first_tick_on(
    followed: tuple[TestLake, LoadedModel], tmp_path: Path, stops_after: int
) -> None:
    """And on for as long as one that stops. Shown to fail by forecasts of its newest tick alone."""
    lake, model = followed
    last = FOLLOWED + 8 + model.model.config.history_length
    arrivals = [reading(slot, hour) for hour in range(61, last + 1) for slot in (0, 1)]
    arrivals += [reading(2, hour) for hour in range(63, min(63 + stops_after, last + 1))]
    live, away = copied(lake, tmp_path / "live"), copied(lake, tmp_path / "away")
    tick_by_tick(live, model, arrivals, at(last) + CLOSES)
    at_once(away, model, arrivals, at(last) + CLOSES)
    assert issued(live).filter(series_id=SERIES[2])["origin"].min() == at(63)
    assert_same_forecasts(issued(away), issued(live))


def test_a_series_begins_where_its_observations_do_though_the_catalog_knows_more(
    followed: tuple[TestLake, LoadedModel], tmp_path: Path
) -> None:
    """A reading is registered before its tick is written. Shown to fail by fresh states just before the catalog's first stamp."""
    lake, model = followed
    arrivals = [reading(slot, hour) for hour in (61, 62) for slot in (0, 1)] + [reading(2, 62)]
    plain, ahead = copied(lake, tmp_path / "plain"), copied(lake, tmp_path / "ahead")
    for one in (plain, ahead):
        one.clock.instant = at(62) + CLOSES
        arrive(one.settings, arrivals)
        regularise(one.settings, one.clock)
    device, metric = SERIES[2].split("/")
    earlier = {"series_id": SERIES[2], "device_id": device, "metric": metric, "first_ts": at(59)}
    Catalog(ahead.settings.state_dir).upsert_series(pl.DataFrame([earlier]))
    for one in (plain, ahead):
        RollingForecasts.open(one.settings, model).advance(one.clock)
    assert_same_forecasts(issued(ahead), issued(plain))


def test_a_lake_of_which_no_tick_is_written_yet_is_waited_for(followed: tuple[TestLake, LoadedModel], tmp_path: Path) -> None:
    """Shown to fail by a state of no series whose names had no type."""
    _, model = followed
    empty = TestLake.at(tmp_path, now=at(0))
    Lake(empty.settings.lake).create_all()
    settings = empty.settings.model_copy(update={"prepare": PrepareSettings(sample_interval=HOUR)})
    arrive(settings, [reading(0, 0)])
    regularise(settings, ReplayClock(at(0) + timedelta(seconds=2)))
    assert Catalog(settings.state_dir).series()["first_ts"].to_list() == [at(0)]
    assert RollingForecasts.open(settings, model).advance(empty.clock).rows_written == 0


def test_the_history_of_a_series_that_comes_at_once_is_not_forecast(followed: tuple[TestLake, LoadedModel], tmp_path: Path) -> None:
    lake, model = followed
    arrivals = [reading(slot, hour) for hour in range(61, 67) for slot in (0, 1)]
    arrivals += [reading(2, hour, delay_min=60 * (65 - hour) + 30) for hour in range(20, 65)]
    live, away = copied(lake, tmp_path / "live"), copied(lake, tmp_path / "away")
    tick_by_tick(live, model, arrivals, at(66) + CLOSES)
    at_once(away, model, arrivals, at(66) + CLOSES)
    assert issued(away).filter(series_id=SERIES[2])["origin"].to_list() == [at(65), at(66)]
    assert_same_forecasts(issued(away), issued(live))


def test_what_is_committed_during_an_advance_reaches_none_of_its_origins(
    followed: tuple[TestLake, LoadedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next advance takes it in. Shown to fail by reading the observations at whatever version is newest."""
    lake, model = followed
    arrivals = [reading(slot, hour, delay_min=90 if (slot, hour) == (0, 62) else 0) for hour in range(61, 67) for slot in (0, 1)]
    correction = reading(1, 61, delay_min=300, value=90.0)
    plain, disturbed = copied(lake, tmp_path / "plain"), copied(lake, tmp_path / "disturbed")
    at_once(plain, model, arrivals, at(66) + CLOSES)

    def new_panels_after_a_correction(*args: object) -> list[Panel]:
        arrive(disturbed.settings, [correction])  # found there by the later passes
        regularise(disturbed.settings, disturbed.clock)
        return new_panels(*args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.forecast.rolling.new_panels", new_panels_after_a_correction)
        state = at_once(disturbed, model, arrivals, at(66) + CLOSES)
    assert_frame_equal(issued(disturbed), issued(plain))
    assert RollingForecasts(disturbed.settings, model, state).advance(disturbed.clock).replayed == 1


def test_catching_up_twice_issues_nothing_twice(followed: tuple[TestLake, LoadedModel], tmp_path: Path) -> None:
    """A run that dies between two passes has consumed nothing, and one that dies before its snapshot finds its forecasts there."""
    lake, model = followed
    away = copied(lake, tmp_path)
    arrivals = [reading(slot, hour, delay_min=90 if hour == 62 else 0) for hour in range(61, 67) for slot in (0, 1)]
    with pytest.MonkeyPatch.context() as patch:
        read, died = RollingForecasts._read, iter([False, True])
        patch.setattr(RollingForecasts, "_read", lambda *args: 1 / 0 if next(died) else read(*args))
        with pytest.raises(ZeroDivisionError):
            at_once(away, model, arrivals, at(66) + CLOSES)
    first = at_once(away, model, [], at(66) + CLOSES)
    before = issued(away)
    assert_same_state(at_once(away, model, [], at(66) + CLOSES), first)
    assert_frame_equal(issued(away), before)
    assert before.height == 2 * 7


def test_a_pause_of_the_whole_fleet_is_forecast_when_it_ends(followed: tuple[TestLake, LoadedModel], tmp_path: Path) -> None:
    """Until a reading came after it nobody knew of the tick. Shown to fail by passes that read the gaps of later readings."""
    lake, model = followed
    arrivals = [reading(slot, hour) for hour in (61, 64, 65) for slot in (0, 1)]
    arrivals += [reading(0, 62, delay_min=90), reading(1, 61, delay_min=165, value=70.0)]
    live, away = copied(lake, tmp_path / "live"), copied(lake, tmp_path / "away")
    tick_by_tick(live, model, arrivals, at(65) + CLOSES)
    at_once(away, model, arrivals, at(65) + CLOSES)
    assert_same_forecasts(issued(away), issued(live))


def test_a_series_whose_ticks_close_between_those_of_others_is_forecast_when_its_own_close(tmp_path: Path) -> None:
    """Stamps at half past beside full hours, and a correction between. Shown to fail by ticks that are compared across grids."""
    readings = hourly_readings(FOLLOWED + 1, SERIES[:2])
    behind = pl.when(series_id=SERIES[1]).then(HOUR / 2).otherwise(timedelta())
    followed = TestLake.at(tmp_path / "followed", now=at(FOLLOWED + 0.5) + CLOSES)
    followed.register(random_weights())
    followed.ingest(readings.with_columns(pl.col("ts", "received_at") + behind))
    forecast(followed.settings, followed.clock)
    model = champion(followed.settings)
    arrivals: list[Arrival] = [
        (SERIES[slot], at(hour + slot / 2), 20.0 + hour, at(hour + slot / 2)) for hour in range(61, 67) for slot in (0, 1)
    ]
    arrivals += [(SERIES[0], at(62), -50.0, at(63.25)), (SERIES[1], at(61.5), 90.0, at(64.75))]
    live, away = copied(followed, tmp_path / "live"), copied(followed, tmp_path / "away")
    rolling = RollingForecasts.open(live.settings, model)
    for instant in sorted({arrival[3] for arrival in arrivals}):
        advanced(live, rolling, [arrival for arrival in arrivals if arrival[3] == instant], instant + CLOSES)
    at_once(away, model, arrivals, at(66.5) + CLOSES)
    made = Lake(live.settings.lake).scan(Forecasts).filter(pl.col("origin") > at(FOLLOWED + 0.5)).collect()
    assert made.height == 2 * 6
    assert (made["created_at"] - made["origin"]).unique().to_list() == [CLOSES]
    assert_same_forecasts(issued(away), issued(live))


@pytest.mark.parametrize("away", ["silent", "retired"])
def test_what_a_series_brings_of_the_time_when_it_was_not_forecast_is_not_forecast_from(
    followed: tuple[TestLake, LoadedModel], tmp_path: Path, away: str
) -> None:
    """Silent for longer than it is read on for, or retired. Shown to fail by origins of that time that knew all that came after them."""
    lake, model = followed
    live = copied(lake, tmp_path)
    back = FOLLOWED + 9 + model.model.config.history_length
    catalog = Catalog(live.settings.state_dir)
    catalog.retire([SERIES[1]] if away == "retired" else [], live.clock.now())
    there = [reading(slot, hour) for hour in range(61, back) for slot in (0, 1) if slot == 0 or away == "retired"]
    buffered = [reading(1, hour, delay_min=60 * (back - hour)) for hour in range(61, back) if away == "silent"]
    state = tick_by_tick(live, model, there, at(back - 1) + CLOSES)
    catalog.unretire([SERIES[1]])
    came = [reading(0, back), reading(1, back), *buffered]
    advanced(live, RollingForecasts(live.settings, model, state), came, at(back) + CLOSES)
    made = Lake(live.settings.lake).scan(Forecasts).filter(pl.col("created_at") > at(back)).collect()
    assert made["origin"].unique().sort().to_list() == [at(back - 1), at(back)][away == "retired" :]  # the buffer came just before
