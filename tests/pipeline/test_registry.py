"""A model comes back from the registry as it was saved, or with one clear sentence."""

import os
import shutil
import subprocess
import sys
from datetime import datetime, timedelta

import mlflow
import polars as pl
import pytest
import torch
from mlflow.exceptions import MlflowException
from safetensors.torch import load_file, save_file

from pipeline.clock import ReplayClock
from pipeline.errors import ModelError, StoreError
from pipeline.forecast.once import forecast_frame
from pipeline.settings import Settings, TrackingSettings
from pipeline.tracking.mlflow_store import connect, store_errors
from pipeline.tracking.registry import champion, promote_version, register
from pipeline.tracking.saved_model import WEIGHTS, load_model, save_model
from tests.lakes import empty_mlflow_store
from tests.saved_models import MODEL_CARD, NOON, forecaster


@pytest.fixture
def saved(tmp_path):
    save_model(tmp_path / "model", forecaster(), MODEL_CARD)
    return tmp_path / "model"


@pytest.fixture
def settings(tmp_path):
    shutil.copytree(empty_mlflow_store(), tmp_path / "lake" / "mlflow")
    return Settings(lake=str(tmp_path / "lake"))


def test_without_a_champion_nothing_is_created(tmp_path):
    with pytest.raises(ModelError, match="Run `tidecast train` first"):
        champion(Settings(lake=str(tmp_path / "lake")))
    assert not (tmp_path / "lake").exists()


def test_the_champion_is_the_version_that_was_promoted(settings, saved):
    clock = ReplayClock(NOON)
    first = register(settings, saved, clock)
    second = register(settings, saved, clock, promote=False)
    loaded = champion(settings)
    assert (first, second, loaded.version) == ("1", "2", "1")
    assert loaded.card == MODEL_CARD
    weights = load_file(saved / WEIGHTS)
    assert all(torch.equal(value, weights[name]) for name, value in loaded.model.state_dict().items())


def test_every_promotion_is_written_down_and_can_be_taken_back(settings, saved):
    clock = ReplayClock(NOON)
    register(settings, saved, clock)
    clock.advance(timedelta(hours=1))
    register(settings, saved, clock)
    clock.advance(timedelta(hours=1))
    promote_version(settings, "1", clock)
    model = connect(settings).get_registered_model("tidecast")
    assert {alias: str(version) for alias, version in model.aliases.items()} == {"champion": "1", "previous_champion": "2"}
    noon, one, two = (f"champion.2026-01-01T{hour}:00:00.000000Z" for hour in (12, 13, 14))
    assert model.tags == {noon: "1", one: "2", two: "1"}
    assert connect(settings).get_model_version("tidecast", "1").tags["promoted_from"] == "2"


def test_a_password_of_the_store_is_not_repeated_with_what_went_wrong(settings):
    """Shown to fail by the sentence of MLflow as it is: it names the address that it asked, whole."""
    secret = settings.model_copy(update={"tracking": TrackingSettings(uri="http://joe:s3cret-enough@127.0.0.1:9")})
    with pytest.raises(StoreError, match="got MlflowException: API request to http://joe:") as told, store_errors(secret):
        raise MlflowException("API request to http://joe:s3cret-enough@127.0.0.1:9/api failed")
    assert "s3cret-enough" not in str(told.value)


def test_a_version_that_does_not_exist_is_refused(settings):
    with pytest.raises(ModelError, match="requires one of the versions of 'tidecast'; got '9'"):
        promote_version(settings, "9", ReplayClock(NOON))


def test_a_champion_whose_files_are_gone_is_refused(settings, saved):
    register(settings, saved, ReplayClock(NOON))
    shutil.rmtree(settings.artifacts_dir)
    with pytest.raises(ModelError, match="requires its files at"):
        champion(settings)


def test_what_cannot_be_loaded_is_not_registered(settings, saved):
    save_file({"other": torch.zeros(1)}, saved / WEIGHTS)
    with pytest.raises(ModelError):
        register(settings, saved, ReplayClock(NOON))
    assert connect(settings).search_registered_models() == []


def test_registering_leaves_the_callers_mlflow_alone(settings, saved):
    register(settings, saved, ReplayClock(NOON))
    assert not mlflow.is_tracking_uri_set()


LOAD_IN_A_FRESH_PROCESS = """
import sys
import pandas as pd
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
from mlflow.pyfunc import load_model
history = pd.read_parquet(sys.argv[2])
load_model("models:/tidecast@champion").predict(history).to_parquet(sys.argv[3])
assert not {"lightning", "pytorch_lightning", "prefect"} & set(sys.modules), "serving imports torch alone"
"""


def test_mlflow_serves_the_same_forecast_without_pickle_or_lightning(settings, saved, tmp_path):
    register(settings, saved, ReplayClock(NOON))
    ds = pl.datetime_range(datetime(2026, 1, 1), datetime(2026, 1, 2), "1h", eager=True)  # noqa: DTZ001 (MLflow's datetime is naive)
    history = pl.DataFrame({"unique_id": "meter-1/power", "ds": ds, "y": (pl.int_range(len(ds), eager=True) % 4).cast(pl.Float64)})
    history.to_pandas().to_parquet(tmp_path / "history.parquet")
    command = [sys.executable, "-c", LOAD_IN_A_FRESH_PROCESS, settings.tracking_uri]
    environment = {**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    subprocess.run([*command, tmp_path / "history.parquet", tmp_path / "served.parquet"], env=environment, check=True)
    expected = forecast_frame(load_model(saved), history).with_columns(pl.col("cutoff", "ds").dt.replace_time_zone(None))
    assert pl.read_parquet(tmp_path / "served.parquet").equals(expected)
