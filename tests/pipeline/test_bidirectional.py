"""Every way to a forecaster that reads backwards in time ends in one and the same sentence, which names the alternatives."""

import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from models.config import BIDIRECTIONAL_REFUSED, ForecasterConfig, NetworkConfig
from models.offline import RecurrentLayers, WindowForecaster
from models.stacked_lstm import StackedRecurrence
from pipeline.errors import ModelError, SettingsError
from pipeline.settings import Settings, load_settings
from pipeline.tracking.saved_model import CARD, load_model, save_model
from tests.lakes import card_of, random_weights

SENTENCE = re.escape(BIDIRECTIONAL_REFUSED)


def by_toml(folder: Path) -> None:
    (folder / "tidecast.toml").write_text("[train.network]\nbidirectional = true\n")
    load_settings(folder / "tidecast.toml")


def by_saved_configuration(folder: Path) -> None:
    saved = json.loads(json.dumps(ForecasterConfig(sample_interval_s=3600).to_dict()))
    ForecasterConfig.from_dict({**saved, "network": {**saved["network"], "bidirectional": True}})


def by_saved_model(folder: Path) -> None:
    forecaster = random_weights()
    save_model(folder, forecaster, card_of(forecaster))
    (folder / CARD).write_text((folder / CARD).read_text().replace('"bidirectional": false', '"bidirectional": true'))
    load_model(folder)


WAYS: dict[str, tuple[Callable[[Path], object], type[Exception]]] = {
    "network configuration": (lambda _: NetworkConfig(bidirectional=True), ValueError),
    "settings in Python": (lambda _: Settings(train={"network": {"bidirectional": True}}), ValueError),  # type: ignore[arg-type]
    "settings file": (by_toml, SettingsError),
    "overrides": (lambda _: load_settings(train={"network": {"bidirectional": True}}), SettingsError),
    "saved configuration": (by_saved_configuration, ValueError),
    "saved model": (by_saved_model, ModelError),
    "the stack itself": (lambda _: StackedRecurrence(5, NetworkConfig(bidirectional=True)), ValueError),
    "textbook forecaster": (lambda _: WindowForecaster(RecurrentLayers(1, 4, bidirectional=True), horizon=3), ValueError),
}


@pytest.mark.parametrize("way", WAYS)
def test_bidirectional_is_refused_in_one_sentence(way: str, tmp_path: Path) -> None:
    """Shown to fail by dropping the check in `NetworkConfig.__post_init__`."""
    go, error = WAYS[way]
    with pytest.raises(error, match=SENTENCE):
        go(tmp_path)


def test_the_environment_is_refused_in_the_same_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDECAST_TRAIN__NETWORK__BIDIRECTIONAL", "true")
    with pytest.raises(SettingsError, match=SENTENCE):
        load_settings()


def test_the_sentence_names_things_that_exist() -> None:
    """Shown to fail by renaming `fill_history`."""
    names = re.findall(r"(?:models|pipeline)\.[\w.]+\w", BIDIRECTIONAL_REFUSED)
    found = [getattr(importlib.import_module(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in names]
    assert [thing.__name__ for thing in found] == ["SequenceClassifier", "fill_history"]
    (page,) = re.findall(r"docs/\w+\.md", BIDIRECTIONAL_REFUSED)
    assert (Path(__file__).parents[2] / page).is_file()
