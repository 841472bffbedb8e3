"""Regularising a real lake: what each run writes, and that runs may stop, repeat and race."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from pipeline.errors import SettingsError, StoreError
from pipeline.prepare.made_with import record_aggregations, recorded_aggregations
from pipeline.schemas import MICROSECOND, Observations, Readings
from pipeline.settings import IngestSettings, MetricSettings, PrepareSettings, Settings
from pipeline.store.catalog import Catalog
from pipeline.store.lake import Lake
from pipeline.store.observations import read_progress
from tests.arrivals import LATENESS, MINUTE, arrive, new_lake, regularised, stored, with_grid

START = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def minutes(first, last, series="s", value=1.0, step=1):
    """Readings at each minute, received when measured."""
    return [(series, START + m * MINUTE, value + m, START + m * MINUTE) for m in range(first, last, step)]


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


@pytest.mark.parametrize("left", [b"", b"\0" * 40, b"null"])
def test_a_record_of_aggregations_that_a_power_failure_emptied_is_made_anew(settings, left):
    """Shown to fail by reading it as it is: no lake with such a file was ever regularised again."""
    arrive(settings, minutes(0, 30))
    regularised(settings)
    made_with = recorded_aggregations(settings.state_dir)
    (settings.state_dir / "aggregations.json").write_bytes(left)
    arrive(settings, minutes(30, 40))
    assert regularised(settings).observations_written == 10
    assert recorded_aggregations(settings.state_dir) == made_with == {"s": "mean"}


def test_a_state_folder_that_is_full_is_told_as_such(settings):
    """Shown to fail by passing the OSError on: a follower takes a `StoreError` for what passes, and dies of all else."""
    (settings.state_dir / "aggregations.json").mkdir(parents=True)
    with pytest.raises(StoreError, match="requires a state folder that can be written"):
        record_aggregations(settings.state_dir, {"s": "mean"})


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


def test_an_open_tick_is_written_once_it_has_closed_without_new_readings(settings):
    arrive(settings, minutes(0, 11))
    assert regularised(settings, START + 10 * MINUTE).observations_written == 9
    assert regularised(settings, START + 11 * MINUTE).observations_written == 1
    assert regularised(settings, START + 12 * MINUTE).observations_written == 1
    assert regularised(settings, START + 99 * MINUTE).observations_written == 0


def test_a_gap_before_an_open_tick_is_written_once_it_has_closed(settings):
    arrive(settings, [*minutes(0, 5), *minutes(7, 8)])
    regularised(settings, START + 6 * MINUTE)
    regularised(settings, START + 8 * MINUTE)
    assert stored(settings)["value"].to_list() == [1.0, 2.0, 3.0, 4.0, 5.0, None, None]


def test_history_before_the_first_tick_is_taken_in_with_its_gaps(settings):
    arrive(settings, minutes(100, 110))
    regularised(settings)
    arrive(settings, minutes(90, 95))
    assert regularised(settings).observations_written == 10
    assert stored(settings)["ts"].to_list() == [START + m * MINUTE for m in range(90, 110)]


def test_a_series_that_returns_after_days_has_its_gap_filled_with_rows(settings):
    arrive(settings, [*minutes(0, 5), *minutes(0, 9_000, "other", step=10)])
    regularised(settings, START + 6_000 * MINUTE)
    arrive(settings, minutes(8_000, 8_001))
    regularised(settings, START + 9_000 * MINUTE)
    assert stored(settings).filter(pl.col("series_id") == "s")["observed"].to_list() == [True] * 5 + [False] * 7_995 + [True]


def test_a_series_waits_for_three_stamps_and_then_has_all_of_them(settings):
    arrive(settings, minutes(0, 2))
    assert regularised(settings).waiting_series == 1
    arrive(settings, minutes(2, 3))
    report = regularised(settings)
    assert (report.waiting_series, report.observations_written) == (0, 3)


def test_an_interval_in_the_settings_ends_the_waiting_at_the_next_reading(settings):
    arrive(settings, minutes(0, 1))
    regularised(settings)
    arrive(settings, minutes(1, 2))
    decided = settings.model_copy(update={"prepare": PrepareSettings(sample_interval=MINUTE)})
    assert regularised(decided).observations_written == 2


def test_a_grid_once_decided_stays(settings, caplog):
    arrive(settings, minutes(0, 5))
    regularised(settings)
    arrive(settings, minutes(10, 100, step=10))
    regularised(settings.model_copy(update={"prepare": PrepareSettings(sample_interval=10 * MINUTE)}))
    assert Catalog(settings.state_dir).series()["sample_interval_us"].to_list() == [60_000_000]
    assert "ignored for num_series=1" in caplog.text


def test_the_aggregation_of_a_metric_comes_from_the_settings(tmp_path):
    settings = new_lake(
        tmp_path, metrics={"metric": MetricSettings(aggregation="sum")}, prepare=PrepareSettings(sample_interval=5 * MINUTE)
    )
    arrive(settings, minutes(1, 6))
    regularised(settings)
    assert stored(settings)["value"].to_list() == [2.0 + 3.0 + 4.0 + 5.0 + 6.0]
    assert Catalog(settings.state_dir).series()["aggregation"].to_list() == ["sum"]


def test_a_counter_is_the_same_tick_by_tick_as_at_once(tmp_path):
    once, stepwise = new_lake(tmp_path / "once"), new_lake(tmp_path / "stepwise")
    batches = [minutes(0, 7, value=100.0), minutes(7, 9, value=0.0), minutes(20, 23), [("s", START + 8 * MINUTE, 3.0, START + 30 * MINUTE)]]
    for settings in (once, stepwise):
        with_grid(settings, 2 * MINUTE, "counter", "s")
    for batch in batches:
        arrive(stepwise, batch)
        regularised(stepwise)
    arrive(once, [reading for batch in batches for reading in batch])
    regularised(once)
    assert_frame_equal(stored(stepwise), stored(once), check_exact=True)


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


def test_a_lost_catalog_is_made_again_from_the_tables_without_new_readings(settings):
    arrive(settings, [*minutes(0, 30, step=5), *minutes(0, 2, "waiting")])
    regularised(settings)
    before, catalog = stored(settings), Catalog(settings.state_dir).series()
    shutil.rmtree(settings.state_dir)
    assert regularised(settings).waiting_series == 1
    assert_frame_equal(Catalog(settings.state_dir).series(), catalog)
    assert_frame_equal(stored(settings), before, check_exact=True)


def test_a_lost_grid_is_that_of_the_observations_not_of_later_readings(settings):
    arrive(settings, minutes(0, 3))
    regularised(settings)
    arrive(settings, minutes(10, 100, step=10))
    regularised(settings)
    shutil.rmtree(settings.state_dir)
    assert regularised(settings).observations_written == 0
    assert Catalog(settings.state_dir).series()["sample_interval_us"].to_list() == [60_000_000]


def test_stray_stamps_cost_no_rows(settings):
    burst = [("s", START + us * MICROSECOND, 1.0, START) for us in range(10)]
    long_ago = datetime(2001, 1, 2, tzinfo=UTC)
    lost_clock = [("t", long_ago, 1.0, long_ago), *(("t", START + s * SECOND, 1.0, START) for s in range(1, 10))]
    arrive(settings, [*burst, ("s", START + 300 * MINUTE, 1.0, START), *lost_clock])
    regularised(settings)
    assert stored(settings).filter(pl.col("series_id") == "t")["observed"].to_list() == [True] * 10
    assert Catalog(settings.state_dir).series()["sample_interval_us"].to_list() == [1_000_000] * 2


@pytest.mark.parametrize("aggregation", ["mean", "counter"])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (0, 3, 1, 2), (2, 0, 3, 1)])
def test_a_long_hole_is_the_same_in_any_order(tmp_path, monkeypatch, aggregation, order):
    """Shown to fail by giving the tick after a counter's reading a row in a hole, and by not looking for neighbours in a hole."""
    monkeypatch.setattr("pipeline.prepare.regularise.MAX_GAP", 10)
    batches = [minutes(0, 3), minutes(30, 33), minutes(9, 10), minutes(22, 24)]
    once, stepwise = new_lake(tmp_path / "once"), new_lake(tmp_path / "stepwise")
    for settings in (once, stepwise):
        with_grid(settings, MINUTE, aggregation, "s")
    for step, batch in enumerate(order):
        arrive(stepwise, batches[batch])
        regularised(stepwise, START + 8 * (step + 1) * MINUTE)
    arrive(once, [reading for batch in order for reading in batches[batch]])
    for settings in (stepwise, once):
        regularised(settings)
    assert_frame_equal(stored(stepwise), stored(once), check_exact=True)
    assert stored(once)["ts"].to_list() == [START + m * MINUTE for m in (*range(10), *range(22, 33))]


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


def test_progress_is_the_readings_version_and_the_clock(settings):
    arrive(settings, minutes(0, 5))
    report = regularised(settings, START + 60 * MINUTE)
    progress = read_progress(Lake(settings.lake).open(Observations))
    assert progress.readings_version == report.readings_version == Lake(settings.lake).version(Readings)
    assert progress.closed_until == START + 60 * MINUTE


def test_ticks_that_a_wrong_clock_has_closed_ahead_are_told(settings, caplog):
    """Shown to fail by leaving out the warning; ticks close with their first reading until the clock has got there."""
    arrive(settings, minutes(0, 5))
    regularised(settings, START + 500 * MINUTE)
    arrive(settings, minutes(5, 10))
    regularised(settings, START + 496 * MINUTE)
    assert "when a clock was wrong" not in caplog.text
    arrive(settings, minutes(10, 15))
    regularised(settings, START + 60 * MINUTE)
    assert "when a clock was wrong" in caplog.text


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
