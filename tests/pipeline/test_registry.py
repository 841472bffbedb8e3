"""A model comes back from disk and from the registry as it was saved, or with one clear sentence."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import mlflow
import polars as pl
import pytest
import torch
from mlflow.exceptions import MlflowException
from safetensors.torch import load_file, save_file

from models.config import ForecasterConfig, NetworkConfig
from models.forecaster import CausalForecaster
from pipeline.clock import ReplayClock
from pipeline.errors import ModelError, StoreError
from pipeline.forecast.once import forecast_frame
from pipeline.settings import Settings, TrackingSettings
from pipeline.tracking.mlflow_store import connect, store_errors
from pipeline.tracking.model_card import ModelCard, TrainedSeries
from pipeline.tracking.provenance import SourceRevision
from pipeline.tracking.registry import (
    CARD,
    WEIGHTS,
    champion,
    load_model,
    promote_version,
    register,
    save_model,
)
from tests.lakes import empty_mlflow_store

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
CONFIG = ForecasterConfig(
    sample_interval_s=3600, horizon=3, context_length=6, seasons=(4,), half_lives=(8.0,), network=NetworkConfig(num_layers=1, hidden_size=4)
)
MODEL_CARD = ModelCard(
    config=CONFIG,
    series=TrainedSeries.of(["meter-2/power", "meter-1/power"]),
    series_patterns=("meter-*",),
    train_end=NOON,
    validation_end=NOON + timedelta(days=1),
    data_end=NOON + timedelta(days=2),
    observations_version=7,
    source=SourceRevision("abc", dirty=False),
    metrics={"validation/pinball": 0.25},
    created_at=NOON + timedelta(days=3),
    tidecast_version="0.1.0",
    seed=1,
    settings={"train": {"seed": 1}},
)


def forecaster(seed=1):
    torch.manual_seed(seed)
    return CausalForecaster(CONFIG)


@pytest.fixture
def saved(tmp_path):
    save_model(tmp_path / "model", forecaster(), MODEL_CARD)
    return tmp_path / "model"


@pytest.fixture
def settings(tmp_path):
    shutil.copytree(empty_mlflow_store(), tmp_path / "lake" / "mlflow")
    return Settings(lake=str(tmp_path / "lake"))


def rewrite_card(folder, change):
    record = json.loads((folder / CARD).read_text())
    change(record)
    (folder / CARD).write_text(json.dumps(record))


def test_a_loaded_model_is_the_saved_one(saved):
    loaded = load_model(saved)
    expected = forecaster().state_dict()
    assert loaded.card == MODEL_CARD
    assert loaded.identity == f"file-{loaded.weights_sha256[:8]}"
    assert not loaded.model.training
    assert all(torch.equal(value, expected[name]) for name, value in loaded.model.state_dict().items())
    assert loaded.model.state_dict().keys() == expected.keys()


def test_the_dtype_of_the_weights_survives(tmp_path):
    save_model(tmp_path, forecaster().double(), MODEL_CARD)
    assert load_model(tmp_path).model.dtype == torch.float64


def test_loading_does_not_move_the_random_state(saved):
    before = torch.random.get_rng_state()
    load_model(saved)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_metric_that_is_not_a_number_survives_in_valid_json(tmp_path):
    save_model(tmp_path, forecaster(), replace(MODEL_CARD, metrics={"test/mae": float("nan")}))
    assert json.loads((tmp_path / CARD).read_text())["card"]["metrics"] == {"test/mae": None}
    assert str(load_model(tmp_path).card.metrics) == "{'test/mae': nan}"


def test_the_order_of_series_does_not_change_their_summary():
    assert TrainedSeries.of(["b", "a"]) == TrainedSeries.of(["a", "b"])
    assert TrainedSeries.of(["a", "b"]).sha256 != TrainedSeries.of(["a", "c"]).sha256


def test_a_card_refuses_naive_instants():
    with pytest.raises(ValueError, match="naive train_end"):
        replace(MODEL_CARD, train_end=datetime(2026, 1, 1))  # noqa: DTZ001 (what is refused)


def test_a_card_of_another_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match="requires the card of the model itself"):
        save_model(tmp_path, forecaster(), replace(MODEL_CARD, config=replace(CONFIG, horizon=4)))


@pytest.mark.parametrize("name", [WEIGHTS, CARD])
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(ModelError, match=rf"No such file or directory for .*{name}"):
        load_model(saved)


def test_one_flipped_bit_in_the_weights_is_seen(saved):
    content = bytearray((saved / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (saved / WEIGHTS).write_bytes(content)
    with pytest.raises(ModelError, match="requires the weights its card was written with"):
        load_model(saved)


def test_a_save_that_was_cut_short_is_seen(saved, tmp_path):
    save_model(tmp_path / "newer", forecaster(seed=2), MODEL_CARD)
    shutil.copy(tmp_path / "newer" / WEIGHTS, saved / WEIGHTS)
    with pytest.raises(ModelError, match="requires the weights its card was written with"):
        load_model(saved)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda record: record.update(format_version=99), "requires saved models of format 1; got 99"),
        (lambda record: record["card"].pop("seed"), "card that save_model wrote.*seed"),
        (lambda record: record["card"].update(extra=1), "card that save_model wrote.*extra"),
        (lambda record: record["card"].update(metrics=[]), "card that save_model wrote.*AttributeError"),
        (lambda record: record["card"]["config"].update(attention=True), "card that save_model wrote.*attention"),
        (lambda record: record["card"]["config"].update(horizon=0), "card that save_model wrote.*horizon"),
        (lambda record: record["card"]["config"]["network"].update(hidden_size=5), "tensors its card describes; got .* that differ"),
    ],
)
def test_a_card_this_tidecast_cannot_read_is_refused(saved, change, sentence):
    rewrite_card(saved, change)
    with pytest.raises(ModelError, match=sentence):
        load_model(saved)


def test_a_card_that_is_not_json_is_refused(saved):
    (saved / CARD).write_bytes(b'{"format_version": 1, "ca\xff')
    with pytest.raises(ModelError, match="card that save_model wrote"):
        load_model(saved)


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
