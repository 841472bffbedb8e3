"""The backtest is the live engine over past origins, honest about what was known and what the model has seen."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipeline.errors import DataError
from pipeline.evaluate.backtest import BacktestRequest, backtest
from pipeline.evaluate.scoring import MODEL, UNCALIBRATED
from pipeline.forecast.rolling import forecast
from pipeline.query.frames import query_forecasts
from tests.lakes import CONFIG, HOUR, START, TestLake, hourly_readings, random_weights

READINGS = hourly_readings(100)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> TestLake:
    """A champion whose validation period ended at hour 72, and 100 hours of readings."""
    lake = TestLake.at(tmp_path_factory.mktemp("backtest"))
    lake.register(random_weights())
    lake.ingest(READINGS)
    return lake


def test_origins_start_where_validation_ended(lake: TestLake) -> None:
    report = backtest(lake.settings, BacktestRequest(), lake.clock)
    assert (report.start, report.end) == (START + 72 * HOUR, START + 99 * HOUR)
    assert report.origins == 2 * (27 - CONFIG.horizon + 1)
    assert report.notes == ()
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in report.pictures)


def test_origins_that_were_trained_on_are_called_so(lake: TestLake) -> None:
    report = backtest(lake.settings, BacktestRequest(start=START + 40 * HOUR), lake.clock)
    assert "these scores flatter the model" in report.notes[0]
    report = backtest(lake.settings, BacktestRequest(start=START + 60 * HOUR), lake.clock)
    assert "these scores are validation scores" in report.notes[0]


def test_a_statistical_baseline_says_at_how_many_origins_it_was_fitted(lake: TestLake) -> None:
    report = backtest(lake.settings, BacktestRequest(statistical=True), lake.clock)
    assert report.notes[0].startswith("MSTL was refitted at 16 of 16 sampled origins")
    assert set(report.overall) == {MODEL, UNCALIBRATED, "seasonal naive", "last value", "MSTL"}


def test_the_backtest_scores_what_was_issued_live(tmp_path: Path) -> None:
    lake = TestLake.at(tmp_path)
    lake.register(random_weights())
    for hours in range(90, 100):
        lake.ingest(READINGS.filter(pl.col("ts") < START + hours * HOUR))
        forecast(lake.settings, lake.clock)
    lake.ingest(READINGS)
    report = backtest(lake.settings, BacktestRequest(start=START + 89 * HOUR), lake.clock)
    issued = query_forecasts(lake.settings.lake, start=START + 89 * HOUR, end=START + (99 - CONFIG.horizon) * HOUR, latest=False)
    scored = issued.join(READINGS.select("series_id", "ts", "value"), on=["series_id", "ts"])
    train = READINGS.filter(pl.col("ts") <= START + 48 * HOUR).group_by("series_id").agg(deviation=pl.col("value").std(ddof=0))
    errors = scored.join(train, on="series_id").select(((pl.col("value") - pl.col("q0.5")) / pl.col("deviation")).abs())
    np.testing.assert_allclose(report.overall[MODEL]["mae"], errors.to_series().mean(), rtol=1e-5)
    widths = scored.join(train, on="series_id").select((pl.col("q0.9") - pl.col("q0.1")) / pl.col("deviation"))
    np.testing.assert_allclose(report.overall[MODEL]["width_80"], widths.to_series().mean(), rtol=1e-5)  # calibrated, both
    assert report.overall[UNCALIBRATED]["width_80"] != report.overall[MODEL]["width_80"]


def test_late_and_corrected_readings_change_the_truth_and_no_earlier_forecast(tmp_path: Path) -> None:
    """The correction arrives after the last origin: inputs stay, so only the errors against the new truth may differ."""
    plain, corrected = TestLake.at(tmp_path / "plain"), TestLake.at(tmp_path / "corrected")
    late = READINGS.filter(pl.col("ts") == START + 75 * HOUR).with_columns(
        value=pl.col("value") + 50, received_at=pl.lit(START) + 200 * HOUR, seq=pl.col("seq") + 1000
    )
    widths = []
    for lake, readings in ((plain, READINGS), (corrected, pl.concat([READINGS, late]))):
        lake.register(random_weights())
        lake.ingest(readings)
        widths.append(backtest(lake.settings, BacktestRequest(), lake.clock).overall[MODEL])
    assert widths[0]["width_80"] == widths[1]["width_80"]
    assert widths[0]["mae"] != widths[1]["mae"]


def test_a_stride_below_one_is_refused() -> None:
    with pytest.raises(DataError, match="a stride of at least 1 tick; got 0"):
        BacktestRequest(stride=0)


def test_a_lake_without_the_models_interval_is_refused(tmp_path: Path) -> None:
    lake = TestLake.at(tmp_path)
    lake.register(random_weights())
    minutely = READINGS.with_columns(ts=pl.lit(START) + (pl.col("ts") - START) / 60)
    lake.ingest(minutely.with_columns(received_at=pl.col("ts") + timedelta(seconds=1)))
    with pytest.raises(DataError, match="a sample interval of 3600 s; got none"):
        backtest(lake.settings, BacktestRequest(), lake.clock)
