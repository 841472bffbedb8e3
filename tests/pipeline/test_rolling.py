"""Rolling forecasts: every closed tick once, whatever is repeated, killed, late or damaged."""

import shutil
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipeline.errors import ModelError
from pipeline.forecast.rolling import RollingForecasts, forecast
from pipeline.query.frames import query_forecasts
from pipeline.schemas import Forecasts
from pipeline.settings import ForecastSettings
from pipeline.store.catalog import Catalog
from pipeline.store.lake import Lake
from tests.lakes import HOUR, START, TestLake, hourly_readings, random_weights

READINGS = hourly_readings(100)
KEY = ["series_id", "origin"]


def until(hours: int, readings: pl.DataFrame = READINGS) -> pl.DataFrame:
    return readings.filter(pl.col("ts") < START + hours * HOUR)


def issued(lake: TestLake) -> pl.DataFrame:
    """Return all forecasts, sorted by key."""
    return Lake(lake.settings.lake).scan(Forecasts).collect().sort(*KEY)


def assert_same_forecasts(left: pl.DataFrame, right: pl.DataFrame) -> None:
    assert left.select(KEY).equals(right.select(KEY))
    np.testing.assert_allclose(np.stack(left["quantiles"].to_list()), np.stack(right["quantiles"].to_list()), rtol=1e-5)


@pytest.fixture
def lake(tmp_path: Path) -> TestLake:
    """A champion and the first 90 hours."""
    lake = TestLake.at(tmp_path)
    lake.register(random_weights())
    lake.ingest(until(90))
    return lake


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """Forecasts of the last ten ticks, made in one run over everything."""
    lake = TestLake.at(tmp_path_factory.mktemp("undisturbed"))
    lake.register(random_weights())
    lake.ingest(READINGS)
    forecast(lake.settings, lake.clock, origins=11)
    return issued(lake)


def test_first_run_forecasts_every_series_from_its_last_tick(lake: TestLake) -> None:
    report = forecast(lake.settings, lake.clock)
    assert (report.series, report.ticks, report.rows_written) == (2, 180, 2)
    assert issued(lake)["origin"].unique().to_list() == [START + 89 * HOUR]
    assert issued(lake)["quantiles"].list.len().to_list() == [54, 54]


def test_second_run_does_nothing(lake: TestLake) -> None:
    forecast(lake.settings, lake.clock)
    version = Lake(lake.settings.lake).version(Forecasts)
    assert forecast(lake.settings, lake.clock).rows_written == 0
    assert Lake(lake.settings.lake).version(Forecasts) == version


def test_new_ticks_continue_the_state_and_equal_one_run_over_everything(lake: TestLake, undisturbed: pl.DataFrame) -> None:
    forecast(lake.settings, lake.clock)
    lake.ingest(until(95))
    forecast(lake.settings, lake.clock)
    lake.ingest(READINGS)
    report = forecast(lake.settings, lake.clock)
    assert (report.ticks, report.rows_written) == (10, 10)
    assert_same_forecasts(issued(lake), undisturbed)


def test_a_run_that_dies_before_its_snapshot_is_repeated_without_a_trace(
    lake: TestLake, undisturbed: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    forecast(lake.settings, lake.clock)
    lake.ingest(READINGS)
    monkeypatch.setattr(RollingForecasts, "snapshot", _killed)
    with pytest.raises(KeyboardInterrupt):
        forecast(lake.settings, lake.clock)
    monkeypatch.undo()
    assert forecast(lake.settings, lake.clock).rows_written == 0
    assert_same_forecasts(issued(lake), undisturbed)


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_damaged_snapshot_is_rebuilt_from_observations(lake: TestLake, undisturbed: pl.DataFrame) -> None:
    version = forecast(lake.settings, lake.clock).model_version
    (snapshot,) = (lake.settings.state_dir / "snapshots").glob(f"model-{version}-*.safetensors")
    snapshot.write_bytes(snapshot.read_bytes()[:100])
    lake.ingest(READINGS)
    forecast(lake.settings, lake.clock)
    assert_same_forecasts(issued(lake), undisturbed)


def test_a_late_reading_replays_its_series_and_leaves_issued_forecasts_alone(lake: TestLake) -> None:
    gap = until(90).filter((pl.col("ts") != START + 80 * HOUR) | (pl.col("series_id") != "north/temperature"))
    other = TestLake.at(lake.folder / "other")
    other.register(random_weights())
    other.ingest(gap)
    forecast(other.settings, other.clock)
    before = issued(other)
    other.ingest(until(90).with_columns(received_at=pl.col("ts") + 10 * HOUR))
    other.ingest(until(91))
    assert forecast(other.settings, other.clock).replayed == 1
    lake.ingest(until(91))
    forecast(lake.settings, lake.clock, origins=2)
    assert issued(other).filter(origin=START + 89 * HOUR).equals(before)
    assert_same_forecasts(issued(other).filter(origin=START + 90 * HOUR), issued(lake).filter(origin=START + 90 * HOUR))


def test_a_series_that_pauses_is_forecast_on_and_one_that_stopped_is_not(tmp_path: Path) -> None:
    lake = TestLake.at(tmp_path)
    lake.register(random_weights())
    pauses, stopped = READINGS.filter(pl.col("series_id").str.starts_with("north")), hourly_readings(100, ("west/temperature",))
    south = READINGS.filter(pl.col("series_id").str.starts_with("south"))
    lake.ingest(pl.concat([until(80, pauses), until(20, stopped), south]))
    forecast(lake.settings, lake.clock)
    found = dict(issued(lake).select("series_id", pl.struct("origin", "status")).iter_rows())
    assert found["north/temperature"] == {"origin": START + 99 * HOUR, "status": "degraded"}
    assert found["west/temperature"] == {"origin": START + 19 * HOUR, "status": "silent"}
    assert found["south/temperature"] == {"origin": START + 99 * HOUR, "status": "ok"}


def test_a_new_series_is_forecast_from_its_first_reading_as_a_cold_start(lake: TestLake) -> None:
    forecast(lake.settings, lake.clock)
    late_comer = hourly_readings(3, ("east/temperature",)).with_columns(pl.col("ts", "received_at") + 88 * HOUR)
    lake.ingest(late_comer)
    forecast(lake.settings, lake.clock)
    rows = issued(lake).filter(series_id="east/temperature").select("origin", "status").sort("origin").rows()
    assert rows == [(START + hour * HOUR, "cold_start") for hour in (89, 90)]  # the fleet's newest tick when it became known, and on


def test_a_new_champion_starts_anew_and_both_forecasts_stay(lake: TestLake) -> None:
    forecast(lake.settings, lake.clock)
    lake.register(random_weights(seed=1))
    report = forecast(lake.settings, lake.clock)
    assert (report.model_version, report.rows_written) == ("2", 2)
    assert issued(lake)["model_version"].str.starts_with("1-").sum() == 2


def test_an_absurd_reading_is_quarantined_and_never_reaches_a_state(lake: TestLake) -> None:
    absurd = until(91).filter(pl.col("ts") == START + 90 * HOUR).with_columns(value=pl.lit(3.4e38))
    assert lake.ingest(absurd).reasons == {"implausible_value": 2}
    forecast(lake.settings, lake.clock)
    assert issued(lake)["origin"].unique().to_list() == [START + 89 * HOUR]


def test_a_lake_that_was_moved_goes_on_where_it_was(lake: TestLake, undisturbed: pl.DataFrame) -> None:
    forecast(lake.settings, lake.clock)
    moved = lake.folder / "elsewhere"
    (lake.folder / "lake").rename(moved)
    lake.settings = lake.settings.model_copy(update={"lake": str(moved)})
    lake.ingest(READINGS)
    assert forecast(lake.settings, lake.clock).ticks == 20
    assert_same_forecasts(issued(lake), undisturbed)


def test_a_lost_snapshot_skips_no_origin(lake: TestLake, undisturbed: pl.DataFrame) -> None:
    forecast(lake.settings, lake.clock)
    shutil.rmtree(lake.settings.state_dir / "snapshots")
    lake.ingest(READINGS)
    forecast(lake.settings, lake.clock)
    assert_same_forecasts(issued(lake), undisturbed)


def test_other_weights_under_the_same_version_start_anew(lake: TestLake) -> None:
    """A registry that was made anew counts from 1 again; the state and the forecasts of the old version 1 are not its own."""
    forecast(lake.settings, lake.clock)
    tracking = lake.settings.tracking.model_copy(update={"model_name": f"other-{lake.settings.tracking.model_name}"})
    lake.settings = lake.settings.model_copy(update={"tracking": tracking})
    assert lake.register(random_weights(seed=1)) == "1"
    report = forecast(lake.settings, lake.clock)
    assert (report.model_version, report.rows_written, report.ticks) == ("1", 2, 180)
    assert issued(lake)["model_version"].n_unique() == 2


def test_a_stamp_from_long_ago_does_not_make_the_state_walk_to_today(lake: TestLake) -> None:
    stray = until(1).with_columns(ts=pl.lit(START).dt.replace(year=2002), received_at=pl.lit(START).dt.replace(year=2002))
    lake.ingest(stray)
    report = forecast(lake.settings, lake.clock)
    assert (report.ticks, report.rows_written) == (180, 2)


def test_turning_calibration_off_rebuilds_the_state_and_changes_later_forecasts_alone(lake: TestLake, undisturbed: pl.DataFrame) -> None:
    forecast(lake.settings, lake.clock)
    calibrated = issued(lake)
    lake.settings = lake.settings.model_copy(update={"forecast": ForecastSettings(calibrate=False)})
    lake.ingest(READINGS)
    assert forecast(lake.settings, lake.clock).ticks == 200
    plain = issued(lake)
    assert_same_forecasts(plain.filter(origin=START + 89 * HOUR), calibrated)
    later = pl.col("origin") > START + 89 * HOUR
    assert (np.stack(plain.filter(later)["quantiles"].to_list()) != np.stack(undisturbed.filter(later)["quantiles"].to_list())).any()


def test_without_a_champion_the_error_says_to_train(tmp_path: Path) -> None:
    lake = TestLake.at(tmp_path)
    lake.ingest(until(10))
    with pytest.raises(ModelError, match="Run `tidecast train` first"):
        forecast(lake.settings, lake.clock)


def test_ticks_that_have_not_closed_wait(tmp_path: Path) -> None:
    lake = TestLake.at(tmp_path, now=START + 50 * HOUR + timedelta(seconds=30))
    lake.register(random_weights())
    lake.ingest(until(51))
    forecast(lake.settings, lake.clock)
    assert issued(lake)["origin"].unique().to_list() == [START + 49 * HOUR]


def test_a_lake_in_a_folder_with_a_space_works_all_the_way(tmp_path: Path) -> None:
    lake = TestLake.at(tmp_path / "my data")
    lake.register(random_weights())
    lake.ingest(until(40))
    forecast(lake.settings, lake.clock)
    lake.ingest(until(41))
    assert forecast(lake.settings, lake.clock).rows_written == 2
    assert query_forecasts(lake.settings.lake, series=["north/*"]).height == 6


def test_a_retired_series_is_forecast_no_more_until_it_is_taken_back(tmp_path):
    """Shown to fail by forecasting whatever the catalog holds."""
    lake = TestLake.at(tmp_path)
    lake.ingest(hourly_readings(40))
    lake.register(random_weights())
    forecast(lake.settings, lake.clock)
    catalog = Catalog(lake.settings.state_dir)
    catalog.retire(["north/temperature"], lake.clock.now())
    lake.ingest(hourly_readings(42))
    assert forecast(lake.settings, lake.clock).rows_written == 2
    catalog.unretire(["north/temperature"])
    lake.ingest(hourly_readings(43))
    assert forecast(lake.settings, lake.clock).rows_written == 2


def test_what_was_corrected_while_a_series_was_retired_is_replayed_when_it_is_back(tmp_path: Path) -> None:
    """Shown to fail by asking for changes of the served series alone: the state went on with the value from before the correction."""
    late = until(90).filter(pl.col("ts") == START + 80 * HOUR).with_columns(pl.col("value") + 10, received_at=START + 91 * HOUR)
    after = []
    for retires in (False, True):
        lake = TestLake.at(tmp_path / str(retires))
        lake.register(random_weights())
        catalog = Catalog(lake.settings.state_dir)
        lake.ingest(until(90))
        forecast(lake.settings, lake.clock)
        catalog.retire(["north/temperature"] if retires else [], lake.clock.now())
        lake.ingest(late)
        forecast(lake.settings, lake.clock)
        catalog.unretire(["north/temperature"])
        lake.ingest(until(92))
        forecast(lake.settings, lake.clock)
        after.append(issued(lake).filter(origin=START + 91 * HOUR))
    assert_same_forecasts(*after)
