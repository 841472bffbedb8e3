"""Every knob of tidecast in one frozen tree, read once at the edge from `tidecast.toml` and `TIDECAST_…` variables.

A section for each stage; a function takes the section it needs. A misspelt knob is an error, never a silent default.
Environment variables nest by two underscores: `TIDECAST_TRAIN__MAX_SECONDS=60`; they win over the file.
"""

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from models.config import NetworkConfig
from pipeline.errors import SettingsError
from pipeline.failpoints import VARIABLE as FAILPOINT_VARIABLE
from pipeline.refused_knobs import refused_knobs

Aggregation = Literal["mean", "last", "sum", "counter"]
PayloadFormat = Literal["json", "ndjson", "line_protocol", "senml", "cloud_events", "sparkplug"]
MQTT_USERNAME, MQTT_PASSWORD = "TIDECAST_MQTT_USERNAME", "TIDECAST_MQTT_PASSWORD"
HTTP_TOKEN = "TIDECAST_HTTP_TOKEN"  # noqa: S105 (a name, no secret)
KAFKA_PASSWORD = "TIDECAST_KAFKA_PASSWORD"  # noqa: S105 (a name, no secret)
# variables that are read where they are used: a secret is no part of the settings
NO_KNOBS = {MQTT_USERNAME, MQTT_PASSWORD, HTTP_TOKEN, KAFKA_PASSWORD, FAILPOINT_VARIABLE}


class Section(BaseModel):
    """A frozen part of the settings that refuses unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MetricSettings(Section):
    """What is known of one metric: how its readings become one observation, and the unit they are stored in."""

    aggregation: Aggregation = "mean"
    unit: str | None = None


class IngestSettings(Section):
    """How readings are judged when they come in."""

    # a tick closes this long after its label
    allowed_lateness: timedelta = Field(default=timedelta(minutes=1), ge=timedelta(0), le=timedelta(days=365))
    # nothing of a series for longer is a silence: what then comes of its closed ticks is late. Longer than most outages of a network
    # or restarts of a gateway, shorter than a shift
    idle_timeout: timedelta = Field(default=timedelta(hours=1), ge=timedelta(seconds=1), le=timedelta(days=365))
    # a stamp further behind its own arrival is a reset clock, or a backfill, which looks the same; a century takes both
    max_age: timedelta = Field(default=timedelta(days=30), ge=timedelta(minutes=1), le=timedelta(days=36_500))
    # a stamp further ahead of our clock is a broken clock
    max_future: timedelta = Field(default=timedelta(minutes=5), ge=timedelta(0), le=timedelta(days=3650))
    earliest_year: int = Field(default=2001, ge=1, le=9998)  # 1970 and 2000 are what a device without a clock battery sends
    batch_rows: int = Field(default=500_000, ge=1)  # rows per Delta commit
    # a device that names itself anew with each message would fill the registry without end; what one machine is built for
    max_series: int = Field(default=1_000_000, ge=1)


class MqttSettings(Section):
    """Which messages `tidecast listen mqtt` takes, and from which broker."""

    url: str = "localhost"  # mqtt://host:port or mqtts://host:port; without a scheme all but this machine is encrypted
    topics: tuple[str, ...] = Field(default=("#",), min_length=1)  # what cannot be read is quarantined, so that nothing is missed unseen
    client_id: str | None = Field(default=None, min_length=1)  # the broker keeps messages under it while the listener is away
    session_expiry: timedelta = Field(default=timedelta(days=7), ge=timedelta(seconds=1), le=timedelta(days=3650))
    receive_maximum: int = Field(default=5_000, ge=1_000, le=65_535)  # messages on their way to the disk; brokers send 20 by default
    ca: Path | None = None  # PEM; None: those that the machine trusts
    cert: Path | None = None  # PEM, of this client
    key: Path | None = None  # PEM; None: it is in `cert`
    sparkplug_rebirth: bool = False  # ask edge nodes whose births are missing for them: that commands devices, so somebody must want it

    @field_validator("topics")
    @classmethod
    def _topics_are_filters(cls, topics: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [topic for topic in topics if not _is_filter(topic)]
        if wrong:
            raise ValueError(
                f"topics requires filters such as site/+/power or site/#, whose + and # stand for whole levels and # for the last, "
                f"or $share/GROUP/FILTER; got {', '.join(map(repr, wrong[:5]))}"
            )
        return topics

    @model_validator(mode="after")
    def _who_asks_for_births_hears_all(self) -> "MqttSettings":
        if self.sparkplug_rebirth and (shared := [topic for topic in self.topics if topic.startswith("$share/")]):
            raise ValueError(
                f"sparkplug_rebirth requires topics whose every message comes to this listener; got {shared[0]!r}, which is shared"
            )
        return self


def _is_filter(topic: str) -> bool:
    """Whether a broker may be asked for it (MQTT 5, sections 4.7 and 4.8.2)."""
    shared = re.fullmatch(r"\$share/([^/+#]+)/(.+)", topic, re.DOTALL)
    if topic.startswith("$share/") and shared is None:
        return False
    levels = (shared[2] if shared else topic).split("/")
    wild = all(level in ("+", "#") or not re.search(r"[+#]", level) for level in levels)
    return topic != "" and "\0" not in topic and len(topic.encode(errors="replace")) <= 65_535 and wild and "#" not in levels[:-1]


class KafkaSettings(Section):
    """Which topics `tidecast listen kafka` reads, and from where."""

    servers: str = "localhost:9092"  # host:port, several with commas between them
    topics: tuple[str, ...] = ()
    group: str = Field(default="tidecast", min_length=1)
    name: str | None = Field(default=None, min_length=1, pattern=r"^[^/]+$")  # of the cluster, in the lake's offsets; None: its own id
    properties: dict[str, str] = {}  # of librdkafka, such as security.protocol; no passwords


def _is_pointer(text: str) -> str:
    if text and not text.startswith("/"):
        raise ValueError(f"a JSON pointer requires a slash before each level; got {text!r}. Begin with a slash: `/header/sent`")
    if re.search(r"~(?![01])", text):
        raise ValueError(f"a JSON pointer requires ~1 for a slash and ~0 for a tilde inside a name; got {text!r}")
    return text


# RFC 6901: the empty text is the whole message
Pointer = Annotated[str, AfterValidator(_is_pointer)]
IN_TOPIC = ("device_id", "metric")  # what a route's topic may name


class Route(Section):
    """How the messages of some topics are read; what it leaves open is found by its usual name, as in files."""

    topic: str = "#"  # with + and # as in MQTT; {device_id} and {metric} are read out of it, {_any} is not
    format: PayloadFormat | None = None  # None: by content type, else by the bytes
    ts: Pointer | None = None
    device_id: Pointer | None = None
    metric: Pointer | None = None
    value: Pointer | None = None
    metrics: Pointer | None = None  # an object whose members are metric: value
    unit: Pointer | None = None
    quality: Pointer | None = None
    seq: Pointer | None = None
    received_at: Pointer | None = None  # a gateway's own stamp of arrival
    epoch_unit: Literal["s", "ms", "us", "ns"] | None = None  # None: each number by its magnitude; line protocol: ns
    stamp_on_arrival: bool = False  # a reading that says no time was measured when it came
    device_tag: str | None = None  # of line protocol

    @field_validator("topic")
    @classmethod
    def _topic_is_a_template(cls, topic: str) -> str:
        names = re.findall(r"\{(\w+)\}", topic)
        rest = re.sub(r"\{\w+\}", "", topic).removesuffix("#")
        if not topic or len(set(names)) < len(names) or re.search(r"[{}#]|[^/]\+|\+[^/]", rest) or re.search(r"[^/]#$", topic):
            raise ValueError(f"topic requires levels such as site/+/{{device_id}}/{{metric}}, with # only at its end; got {topic!r}")
        others = sorted(name for name in set(names) - set(IN_TOPIC) if name[0] != "_")
        if others:  # a misspelt {device} would leave every message without a series
            raise ValueError(
                f"topic requires one of {', '.join(f'{{{name}}}' for name in IN_TOPIC)} in braces; got {{{others[0]}}}. "
                f"What nobody reads is a +, or a name that begins with _: {{_{others[0]}}}"
            )
        return topic

    @model_validator(mode="after")
    def _one_way_to_name_a_value(self) -> "Route":
        if self.metrics is not None and (self.value is not None or self.metric is not None or "{metric}" in self.topic):
            raise ValueError("metrics names the metrics by the members of an object; got a pointer or a topic that names one as well")
        return self


class ListenSettings(Section):
    """How live sources are taken in."""

    drain_interval: timedelta = Field(default=timedelta(seconds=10), ge=timedelta(seconds=1), le=timedelta(hours=1))  # between commits
    # messages stay in the inbox this long after the lake has them: a tail that a power failure tore off is made again from them
    keep_messages: timedelta = Field(default=timedelta(hours=24), ge=timedelta(0), le=timedelta(days=365))
    max_inbox_bytes: int = Field(default=2 * 1024**3, ge=1024**2)  # beyond it nothing more is acknowledged
    max_message_bytes: int = Field(default=10 * 1024**2, ge=1024)  # a longer one is refused (HTTP) or quarantined cut short
    settle: timedelta = Field(default=timedelta(seconds=5), ge=timedelta(0), le=timedelta(hours=1))  # a file that stood still is whole
    mqtt: MqttSettings = MqttSettings()
    kafka: KafkaSettings = KafkaSettings()
    routes: tuple[Route, ...] = ()  # the first whose topic fits reads a message


class PrepareSettings(Section):
    """How readings become observations on the grid."""

    # None: inferred for each series from its own spacing
    sample_interval: timedelta | None = Field(default=None, ge=timedelta(milliseconds=1), le=timedelta(days=366))


class CovariateSettings(Section):
    """What a forecaster reads beside the target, by name."""

    past: tuple[str, ...] = ()  # metrics of the same device, measured when the target is
    future: tuple[str, ...] = ()  # metrics of the same device's plans, known a horizon ahead
    static: tuple[str, ...] = ()  # attributes of the device


class TrainSettings(Section):
    """How a model is fitted."""

    horizon: int = Field(default=24, ge=1)  # steps
    context_length: int | None = Field(default=None, ge=1)  # ticks the highway reads; None: four of the longest season, at most 672
    seasons: tuple[Annotated[int, Field(ge=2)], ...] | None = None  # ticks, ascending; None: a day and a week, where they fit
    network: NetworkConfig = NetworkConfig()
    covariates: CovariateSettings = CovariateSettings()
    validation_fraction: float = Field(default=0.15, gt=0, lt=0.9)
    test_fraction: float = Field(default=0.15, ge=0, lt=0.9)  # never read while training, for an honest backtest
    max_seconds: float = Field(default=300.0, gt=0)
    max_epochs: int = Field(default=200, ge=1)
    patience: int = Field(default=4, ge=1)  # epochs without a better validation loss that end a phase of the training
    highway_first: bool = True  # fit the highway by regression before the stack learns
    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=1e-3, ge=0)
    gradient_clip: float = Field(default=1.0, gt=0)  # global norm
    batch_size: int = Field(default=32, ge=1)  # segments
    segment_length: int = Field(default=256, ge=8)  # ticks a segment scores, after its burn-in
    burn_in: int = Field(default=64, ge=0)  # ticks that warm the state up, unscored
    seed: int = Field(default=0, ge=0, lt=2**32)  # what NumPy takes
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"

    @field_validator("seasons")
    @classmethod
    def _seasons_ascend(cls, seasons: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if seasons is not None and list(seasons) != sorted(set(seasons)):
            raise ValueError(f"seasons require ascending lags, each once; got {list(seasons)}")
        return seasons


class ForecastSettings(Section):
    """How forecasts are issued."""

    calibrate: bool = True  # hedge them and set their width, by what came true before; where it changes, states are rebuilt
    # a series that is silent for longer, while others are not, is forecast no more until it comes back; a century is never
    retire_after: timedelta = Field(default=timedelta(days=90), ge=timedelta(minutes=1), le=timedelta(days=36_500))
    # a follower that dies reads again what came since its last snapshot
    snapshot_interval: timedelta = Field(default=timedelta(minutes=5), ge=timedelta(0), le=timedelta(days=1))


class TrackingSettings(Section):
    """Where MLflow keeps runs and models."""

    uri: str | None = None  # None: sqlite in the lake's folder
    experiment: str = "tidecast"
    model_name: str = "tidecast"  # the registered model


class Settings(BaseSettings):
    """All settings; load with `load_settings`."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix="TIDECAST_", env_nested_delimiter="__")

    lake: str = "data/lake"  # a folder or an s3:// URI
    state: str | None = None  # a local folder for SQLite and snapshots; None: <lake>/state, or data/state for a remote lake
    ingest: IngestSettings = IngestSettings()
    listen: ListenSettings = ListenSettings()
    metrics: dict[str, MetricSettings] = {}
    prepare: PrepareSettings = PrepareSettings()
    train: TrainSettings = TrainSettings()
    forecast: ForecastSettings = ForecastSettings()
    tracking: TrackingSettings = TrackingSettings()

    @field_validator("lake")
    @classmethod
    def _lake_is_a_folder_or_s3(cls, lake: str) -> str:
        unknown = "://" in lake and not lake.startswith(("s3://", "file://"))
        if unknown or not lake.removeprefix("file://").strip():  # an empty word would be the working folder
            raise ValueError(f"lake requires a folder, a file:// or an s3:// URI; got {lake!r}")
        return lake.removeprefix("file://")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (pydantic's signature)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (pydantic's signature)
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read arguments first, then the environment, then `tidecast.toml`."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @property
    def is_remote(self) -> bool:
        """Whether the lake is in an object store."""
        return is_remote(self.lake)

    @property
    def state_dir(self) -> Path:
        """The local folder of the SQLite catalog and the state snapshots."""
        if self.state is not None:
            return Path(self.state)
        return Path("data/state") if self.is_remote else Path(self.lake) / "state"

    @property
    def tracking_uri(self) -> str:
        """The MLflow tracking URI."""
        if self.tracking.uri is not None:
            return self.tracking.uri
        return f"sqlite:///{(self.state_dir.parent / 'mlflow' / 'mlflow.db').resolve()}"

    @property
    def artifacts_dir(self) -> Path | None:
        """Where a local MLflow store keeps artifacts; None where a server decides."""
        return None if self.tracking.uri is not None else (self.state_dir.parent / "mlflow" / "artifacts").resolve()


def is_remote(place: str) -> bool:
    """Return whether a lake, a table or a file of one is in an object store: it is then a URI, and no path."""
    return "://" in place


def _first_field(variable: str) -> str:
    return variable.removeprefix("TIDECAST_").split("__")[0].lower()


def load_settings(path: Path | None = None, **overrides: object) -> Settings:
    """Read the settings tree once.

    Args:
        path: a TOML file; by default `tidecast.toml` in the working folder, where there is one.
        **overrides: top-level fields that win over environment and file.

    Raises:
        SettingsError: naming each offending knob.
    """
    if path is not None and not path.is_file():
        raise SettingsError(f"--settings requires a TOML file; got {path}, which is none. Check the path.")
    ours = {name for name in os.environ if name.startswith("TIDECAST_")} - NO_KNOBS
    unknown = sorted(name for name in ours if _first_field(name) not in Settings.model_fields)
    if unknown:
        raise SettingsError(
            f"TIDECAST_… variables require one of the knobs {', '.join(Settings.model_fields)}; got {', '.join(unknown[:5])}. "
            "Unset or correct it; docs/settings.md lists them."
        )

    file = path or Path("tidecast.toml")

    class FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=file)

    try:
        return FromFile(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        got = refused_knobs(error, Settings)
        raise SettingsError(f"The settings require known knobs with valid values; got {got}. See docs/settings.md.") from error
    except ValueError as error:  # a TOML file that does not parse
        raise SettingsError(f"The settings file requires valid TOML; got {file}: {error}. Correct it.") from error
