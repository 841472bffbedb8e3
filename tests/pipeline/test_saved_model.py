"""A model comes back from disk as it was saved, or with one clear sentence."""

import json
import shutil
from dataclasses import replace
from datetime import datetime

import pytest
import torch

from pipeline.errors import ModelError
from pipeline.tracking.model_card import TrainedSeries
from pipeline.tracking.saved_model import CARD, WEIGHTS, load_model, save_model
from tests.saved_models import CONFIG, MODEL_CARD, forecaster


@pytest.fixture
def saved(tmp_path):
    save_model(tmp_path / "model", forecaster(), MODEL_CARD)
    return tmp_path / "model"


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
