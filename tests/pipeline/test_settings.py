"""What the settings refuse: knobs that no stage could work with, each named in one sentence."""

from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.errors import SettingsError
from pipeline.settings import MqttSettings, load_settings


@pytest.mark.parametrize(
    ("section", "knob", "values"),
    [
        ("ingest", "allowed_lateness", ["-PT1S", "P366D"]),
        ("ingest", "max_future", ["-PT1S", "P3651D"]),
        ("ingest", "earliest_year", [0, 9999]),
        ("prepare", "sample_interval", ["PT0S", "-PT1H", "PT0.0009S", "P367D"]),
        ("train", "context_length", [0, -1]),
        ("train", "seasons", [[1], [168, 24], [24, 24]]),
        ("train", "seed", [-1, 2**32]),
    ],
)
def test_a_knob_beyond_its_bounds_is_named(section: str, knob: str, values: list[object]) -> None:
    """Shown to fail by taking the bounds away."""
    for value in values:
        with pytest.raises(SettingsError, match=rf"known knobs with valid values; got {section}\.{knob}"):
            load_settings(**{section: {knob: value}})


def test_the_bounds_themselves_are_taken() -> None:
    limits = {"allowed_lateness": timedelta(0), "max_future": timedelta(days=3650), "earliest_year": 9998}
    settings = load_settings(ingest=limits, prepare={"sample_interval": timedelta(milliseconds=1)}, train={"seasons": [2, 3], "seed": 0})
    assert settings.ingest.model_dump(include=set(limits)) == limits
    assert settings.train.seasons == (2, 3)


@pytest.mark.parametrize("lake", ["", " ", "file://", "gs://bucket"])
def test_a_lake_is_a_place(lake: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Shown to fail by refusing unknown schemes only: an empty variable made a lake of the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIDECAST_LAKE", lake)
    with pytest.raises(SettingsError, match="lake requires a folder, a file:// or an s3:// URI"):
        load_settings()
    with pytest.raises(SettingsError, match="lake requires a folder, a file:// or an s3:// URI"):
        load_settings(lake=lake)


@pytest.mark.parametrize(
    "topic",
    ["", "site#", "a/#/b", "a+/b", "a/+b", "a\0b", "a" * 65_536, "$share/", "$share/g", "$share//a", "$share/g/", "$share/g+/a"],
)
def test_a_topic_that_no_broker_may_be_asked_for_is_refused(topic: str) -> None:
    with pytest.raises(ValidationError, match="topics requires filters"):
        MqttSettings(topics=("a", topic))


def test_the_filters_of_mqtt_are_taken() -> None:
    topics = ("#", "+", "/", "a//b", "+/+/#", "site/+/power", "$SYS/#", "$share/g/#", "$share/g/site/+/power")
    assert MqttSettings(topics=topics).topics == topics
