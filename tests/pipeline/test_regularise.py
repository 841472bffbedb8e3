"""Regularising a real lake: what each run writes, and that runs may stop, repeat and race."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from pipeline.errors import SettingsError, StoreError
from pipeline.schemas import MICROSECOND, Observations, Readings
from pipeline.settings import IngestSettings, PrepareSettings, Settings
from pipeline.store.catalog import Catalog
from pipeline.store.lake import Lake
from pipeline.store.observations import read_progress
from tests.arrivals import LATENESS, MINUTE, START, arrive, minutes, new_lake, regularised, stored, with_grid

SECOND = timedelta(seconds=1)


@pytest.fixture
def settings(tmp_path):
    return new_lake(tmp_path)


def test_readings_on_a_grid_keep_their_stamps_and_values(settings):
    arrive(settings, minutes(0, 30))
    report = regularised(settings)
    assert (report.series, report.observations_written, report.revised, report.waiting_series) == (1, 30, 0, 0)
    assert stored(settings).select("ts", "value").rows() == [(START + m * MINUTE, 1.0 + m) for m in range(30)]


def test_a_second_run_does_nothing(settings):
    arrive(settings, minutes(0, 30))
    regularised(settings)
    version = Lake(settings.lake).version(Observations)
    assert regularised(settings).observations_written == 0
    assert Lake(settings.lake).version(Observations) == version


def test_a_gap_is_a_row_of_its_own_and_filling_it_makes_revision_two(settings):
    arrive(settings, [*minutes(0, 5), *minutes(6, 9)])
    regularised(settings)
    arrive(settings, [("s", START + 5 * MINUTE, 6.0, START + 60 * MINUTE)])
    assert regularised(settings).revised == 1
    gap = stored(settings).filter(pl.col("ts") == START + 5 * MINUTE)
    assert gap.select("value", "observed", "n_obs", "revision").rows() == [(None, False, 0, 1), (6.0, True, 1, 2)]
    assert gap["available_at"].to_list() == [START + 5 * MINUTE + LATENESS, START + 60 * MINUTE]


def test_a_tick_is_available_when_it_closes_and_holds_what_came_by_then(settings):
    with_grid(settings, MINUTE, "mean", "s")
    at = START + MINUTE
    arrive(
        settings,
        [("s", at, 1.0, at), ("s", at - 10 * MINUTE / 60, 3.0, at + LATENESS), ("s", at - MINUTE / 2, 8.0, at + LATENESS + MINUTE)],
    )
    regularised(settings)
    assert stored(settings).select("value", "n_obs", "available_at").rows() == [(2.0, 2, at + LATENESS), (4.0, 3, at + LATENESS + MINUTE)]


def test_values_that_are_none_make_gaps(settings):
    arrive(
        settings, [*minutes(0, 4), ("s", START + 4 * MINUTE, None, START), ("s", START + 5 * MINUTE, float("nan"), START), *minutes(6, 8)]
    )
    regularised(settings)
    assert stored(settings)["n_obs"].to_list() == [1, 1, 1, 1, 0, 0, 1, 1]


def test_another_lateness_recomputes_everything(settings):
    arrive(settings, [*minutes(0, 5), ("s", START + 2 * MINUTE, 9.0, START + 12 * MINUTE)])
    regularised(settings)
    patient = settings.model_copy(update={"ingest": IngestSettings(allowed_lateness=10 * MINUTE)})
    regularised(patient)
    assert stored(settings)["revision"].to_list() == [1] * 5
    assert stored(settings)["value"].to_list() == [1.0, 2.0, 9.0, 4.0, 5.0]


def test_a_series_follows_an_aggregation_that_was_changed_and_no_other_does(settings):
    with_grid(settings, 2 * MINUTE, "mean", "s", "other")
    arrive(settings, [*minutes(1, 5), *minutes(1, 5, "other")])
    regularised(settings)
    with_grid(settings, 2 * MINUTE, "last", "s")
    assert regularised(settings).series == 1
    assert stored(settings)["value"].to_list() == [2.5, 4.5, 3.0, 5.0]
    assert regularised(settings).observations_written == 0


def test_an_interval_finer_than_a_millisecond_is_refused_before_anything_is_stored(settings):
    arrive(settings, minutes(0, 5))
    with pytest.raises(SettingsError, match="1 ms or more"):
        regularised(settings.model_copy(update={"prepare": PrepareSettings.model_construct(sample_interval=MICROSECOND)}))
    assert Lake(settings.lake).version(Observations) == 0


def test_a_run_that_died_before_its_commit_is_completed_by_the_next(settings, monkeypatch):
    arrive(settings, minutes(0, 2))
    regularised(settings)
    arrive(settings, minutes(2, 6))
    monkeypatch.setattr("pipeline.prepare.regularise.write_observations", _killed)
    with pytest.raises(KeyboardInterrupt):
        regularised(settings)
    monkeypatch.undo()
    assert Catalog(settings.state_dir).series()["sample_interval_us"].to_list() == [60_000_000]
    assert regularised(settings).observations_written == 6


def _killed(*_args, **_named):
    raise KeyboardInterrupt


def test_runs_that_race_leave_the_table_of_one_run(tmp_path):
    raced, alone = new_lake(tmp_path / "raced"), new_lake(tmp_path / "alone")
    for settings in (raced, alone):
        with_grid(settings, MINUTE, "mean", "s")
    for step in range(4):
        batch = [*minutes(step * 10, step * 10 + 9), ("s", START + step * MINUTE, 50.0, START + 500 * MINUTE)]
        arrive(raced, batch)
        arrive(alone, batch)
        clocks = [START + (step * 10 + minute) * MINUTE for minute in (3, 9, 12)]
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(regularised, [raced] * 3, clocks))
    assert_frame_equal(_finished(raced), _finished(alone), check_exact=True)


def _finished(settings):
    regularised(settings)
    return stored(settings)


def test_progress_is_the_readings_version_and_the_last_close(settings):
    arrive(settings, minutes(0, 5))
    report = regularised(settings, START + 60 * MINUTE)
    progress = read_progress(Lake(settings.lake).open(Observations))
    assert progress.readings_version == report.readings_version == Lake(settings.lake).version(Readings)
    assert progress.closed_until == START + 4 * MINUTE + LATENESS


def test_a_clock_of_ours_that_was_ahead_closes_no_tick_early_once_it_is_right(settings):
    """Shown to fail by going on from what the clock said: until it got there, each tick closed with its first reading."""
    arrive(settings, minutes(0, 5))
    regularised(settings, START + 500 * MINUTE)
    for minute in range(5, 10):
        arrive(settings, minutes(minute, minute + 1))
        regularised(settings, START + minute * MINUTE + SECOND)
    assert stored(settings)["ts"].max() == START + (9 - LATENESS // MINUTE) * MINUTE


def test_ticks_that_a_wrong_clock_has_closed_ahead_are_told(settings, caplog):
    """Shown to fail by leaving out the warning; it takes a device whose clock is ahead as far as ours was."""
    arrive(settings, [*minutes(0, 5), *minutes(500, 501)])
    regularised(settings, START + 504 * MINUTE)
    regularised(settings, START + 498 * MINUTE)
    assert "a clock that was ahead" not in caplog.text
    regularised(settings, START + 490 * MINUTE)
    assert "a clock that was ahead" in caplog.text


def test_readings_that_change_nothing_are_passed_once(settings):
    arrive(settings, minutes(0, 5))
    regularised(settings)
    arrive(settings, minutes(0, 5))
    assert regularised(settings).observations_written == 0
    assert read_progress(Lake(settings.lake).open(Observations)).readings_version == Lake(settings.lake).version(Readings)


def test_an_empty_lake_has_nothing_to_regularise(settings):
    assert regularised(settings).to_dict() == {
        "series": 0, "observations_written": 0, "revised": 0, "waiting_series": 0, "readings_version": 0
    }  # fmt: skip


def test_a_missing_lake_is_one_sentence(tmp_path):
    with pytest.raises(StoreError, match="A lake requires the table observations"):
        regularised(Settings(lake=str(tmp_path / "nowhere")))
