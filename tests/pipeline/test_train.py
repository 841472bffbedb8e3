"""A training leaves one MLflow run with everything that made it and came of it, and a champion that serves."""

import json
from pathlib import Path

import polars as pl
import pytest
from mlflow import MlflowClient

from models.config import NetworkConfig
from pipeline.errors import DataError
from pipeline.evaluate.backtest import BacktestRequest, backtest
from pipeline.evaluate.scoring import MODEL
from pipeline.forecast.rolling import forecast
from pipeline.settings import TrainSettings
from pipeline.tracking.registry import champion, champion_version
from pipeline.train.train import TrainReport, TrainRequest, train
from tests.lakes import HOUR, START, TestLake, hourly_readings

SMALL = TrainSettings(horizon=6, max_epochs=2, segment_length=32, burn_in=8, network=NetworkConfig(hidden_size=8, num_layers=1))


def small_lake(folder: Path) -> TestLake:
    """Return a lake with 300 hours of two series, set to train briefly."""
    lake = TestLake.at(folder)
    lake.settings = lake.settings.model_copy(update={"train": SMALL})
    lake.ingest(hourly_readings(300))
    return lake


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[TestLake, TrainReport]:
    """A lake after one training."""
    lake = small_lake(tmp_path_factory.mktemp("train"))
    return lake, train(lake.settings, TrainRequest(), lake.clock)


def test_the_run_holds_parameters_curves_scores_by_lead_and_pictures(trained: tuple[TestLake, TrainReport]) -> None:
    lake, report = trained
    client = MlflowClient(lake.settings.tracking_uri)
    run = client.get_run(report.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["model.network.hidden_size"] == "8"
    assert run.data.params["train.seed"] == "0"
    assert run.data.tags["data.observations.version"] == "1"
    assert {"git_sha", "git_dirty", "config.hash"} <= set(run.data.tags)
    assert len(client.get_metric_history(report.run_id, "validation/pinball")) == report.epochs == 2
    assert [m.step for m in client.get_metric_history(report.run_id, "test_by_lead/coverage_80")] == [1, 2, 3, 4, 5, 6]
    paths = {file.path for folder in ("validation", "test") for file in client.list_artifacts(report.run_id, folder)}
    assert {"test/fans.png", "test/leads.png", "test/by_lead.json", "validation/overall.json"} <= paths


def test_the_model_is_the_champion_and_forecasts(trained: tuple[TestLake, TrainReport]) -> None:
    lake, report = trained
    model = champion(lake.settings)
    assert (model.version, report.promoted) == (report.model_version, True)
    assert model.card.validation_end == report.validation_end
    assert json.dumps(report.to_dict())
    assert forecast(lake.settings, lake.clock).rows_written == 2


def test_a_model_that_is_not_promoted_leaves_the_champion(tmp_path: Path) -> None:
    lake = small_lake(tmp_path)
    first = train(lake.settings, TrainRequest(), lake.clock)
    second = train(lake.settings, TrainRequest(promote=False), lake.clock)
    assert second.model_version != first.model_version
    assert champion_version(lake.settings) == first.model_version


def test_borders_are_taken_as_given(tmp_path: Path) -> None:
    lake = small_lake(tmp_path)
    report = train(lake.settings, TrainRequest(train_end=START + 200 * HOUR, validation_end=START + 250 * HOUR), lake.clock)
    assert (report.train_end, report.validation_end) == (START + 200 * HOUR, START + 250 * HOUR)
    assert report.data_end == START + 299 * HOUR


def test_the_same_seed_gives_the_same_scores(trained: tuple[TestLake, TrainReport], tmp_path: Path) -> None:
    lake = small_lake(tmp_path)
    assert train(lake.settings, TrainRequest(), lake.clock).metrics == trained[1].metrics


def test_the_scores_of_a_training_are_those_of_a_backtest_though_readings_were_corrected_since(tmp_path: Path) -> None:
    """Shown to fail by scoring with the panel that was trained on as inputs."""
    lake = small_lake(tmp_path)
    spoilt = pl.col("ts").is_between(START + 262 * HOUR, START + 266 * HOUR)
    corrected = hourly_readings(300).filter(spoilt).with_columns(pl.col("value") + 50, pl.col("seq") + 1000)
    lake.ingest(corrected.with_columns(received_at=pl.lit(START) + 400 * HOUR))
    report = train(lake.settings, TrainRequest(), lake.clock)
    honest = backtest(lake.settings, BacktestRequest(), lake.clock)
    assert (honest.start, honest.end) == (report.validation_end, report.data_end)
    for metric in ("mae", "width_80"):
        assert report.metrics[f"test/{metric}"] == pytest.approx(honest.overall[MODEL][metric], rel=1e-6)


def test_a_period_that_is_too_short_to_be_scored_says_what_would_do(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Shown to fail by leaving it to the scores, which know one period of the history only."""
    lake = small_lake(tmp_path)
    lake.settings = lake.settings.model_copy(update={"train": SMALL.model_copy(update={"horizon": 48})})
    report = train(lake.settings, TrainRequest(), lake.clock)
    said = "period requires at least 48 ticks, the horizon, to be scored; got %d of 299 in all. Lower --horizon, set --train-end"
    warned = [message for message in caplog.messages if said % 45 in message]  # what else is logged depends on the tests before
    assert ["or ingest 319 in all." in message for message in warned] == [True, True]
    assert report.metrics == {}
    assert "Not scored: neither period holds a whole horizon." in report.to_markdown()


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (TrainRequest(series=("nope/*",)), "There are north/temperature, south/temperature"),
        (TrainRequest(train_end=START + 5 * HOUR), "more ticks before 2026-03-02 05:00 UTC than its horizon of 6; got 6"),
    ],
)
def test_what_cannot_be_trained_is_said_in_a_sentence(trained: tuple[TestLake, TrainReport], request_: TrainRequest, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        train(trained[0].settings, request_, trained[0].clock)
