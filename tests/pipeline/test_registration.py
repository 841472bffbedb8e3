"""What the catalog learns of a series from its readings: once decided it stays, and what was lost is told again by the tables."""

import shutil

import pytest
from polars.testing import assert_frame_equal

from pipeline.settings import MetricSettings, PrepareSettings
from pipeline.store.catalog import Catalog
from tests.arrivals import MINUTE, arrive, minutes, new_lake, regularised, stored


@pytest.fixture
def settings(tmp_path):
    return new_lake(tmp_path)


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
