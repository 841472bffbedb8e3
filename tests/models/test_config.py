"""The network's configuration refuses what cannot be a causal forecaster."""

import json

import pytest

from models.config import ForecasterConfig, NetworkConfig


def test_bidirectional_is_refused_and_the_error_names_the_alternatives() -> None:
    with pytest.raises(ValueError, match=r"read the target forward in time only.*gap filling in history"):
        NetworkConfig(bidirectional=True)


@pytest.mark.parametrize("wrong", [{"num_layers": 0}, {"hidden_size": 0}, {"dropout": 1.0}, {"cell": "rnn"}, {"wiring": "dense"}])
def test_impossible_networks_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="A network requires"):
        NetworkConfig(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        {"sample_interval_s": 0.0},
        {"horizon": 0},
        {"seasons": (24, 24)},
        {"seasons": (1,)},
        {"half_lives": ()},
        {"quantile_levels": (0.1, 0.9)},
        {"quantile_levels": (0.5, 0.1)},
    ],
)
def test_impossible_forecasters_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="A forecaster requires"):
        ForecasterConfig(**{"sample_interval_s": 3600.0, **wrong})  # type: ignore[arg-type]


def test_configuration_survives_json() -> None:
    config = ForecasterConfig(sample_interval_s=300, seasons=(288, 2016), network=NetworkConfig(cell="gru", num_layers=3))
    assert ForecasterConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_history_reaches_back_to_the_longest_lag() -> None:
    assert ForecasterConfig(sample_interval_s=3600, context_length=48, seasons=(24, 168)).history_length == 168
    assert ForecasterConfig(sample_interval_s=3600, context_length=48, seasons=(24,)).history_length == 47
