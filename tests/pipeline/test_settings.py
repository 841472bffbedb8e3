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
    ("table", "sentence"),
    [
        (
            '[[listen.routes]]\ntopic = "lab/{device}/{metric}"',
            r"one of {device_id}, {metric} in braces; got {device}\. ",
        ),
        ('[[listen.routes]]\nts = "header/sent"', r"got 'header/sent'\. Begin with a slash: `/header/sent`"),
        ('[[listen.routes]]\nts = "/a~b"', "~1 for a slash and ~0 for a tilde inside a name; got '/a~b'"),
        ('[[listen.routes]]\ndevice = "/id"', r"listen.routes.0.device: no such knob\. Did you mean device_id\?"),
        ("[metrics.unit]\nunits = 'kW'", r"metrics.unit.units: no such knob\. Did you mean unit\?"),
        ("[train.network]\nlayers = 2", r"train.network.layers: no such knob\. Did you mean num_layers\?"),
        ("[prepare]\nxyz = 2", "prepare.xyz: no such knob; there are sample_interval"),
        ("[listening]\nxyz = 2", r"listening: no such knob\. Did you mean listen\?"),
        ("[ingest]\nbatch_rows = 0", "ingest.batch_rows: Input should be greater than or equal to 1"),
        ("lake = [", r"requires valid TOML; got .+/tidecast\.toml: "),
    ],
)
def test_a_refusal_says_what_to_write_instead(table: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "tidecast.toml").write_text(table)
    with pytest.raises(SettingsError, match=sentence):
        load_settings(tmp_path / "tidecast.toml")


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
