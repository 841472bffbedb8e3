"""Real lakes for tests: readings of a small hourly fleet, a registered model with fixed weights, and a clock."""

import atexit
import shutil
import tempfile
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import torch

from models.config import ForecasterConfig, NetworkConfig
from models.forecaster import CausalForecaster
from pipeline.clock import ReplayClock
from pipeline.ingest.ingest import IngestOptions, IngestReport, ingest_paths
from pipeline.prepare.regularise import regularise
from pipeline.settings import Settings, TrackingSettings
from pipeline.tracking.mlflow_store import connect
from pipeline.tracking.model_card import ModelCard, TrainedSeries
from pipeline.tracking.provenance import SourceRevision
from pipeline.tracking.registry import register
from pipeline.tracking.saved_model import save_model

HOUR = timedelta(hours=1)
START = datetime(2026, 3, 2, tzinfo=UTC)
CONFIG = ForecasterConfig(
    sample_interval_s=3600, horizon=6, context_length=30, seasons=(24,), network=NetworkConfig(hidden_size=8, num_layers=2)
)


def random_weights(seed: int = 0, config: ForecasterConfig = CONFIG) -> CausalForecaster:
    """Return a float64 forecaster whose every weight has an effect; the same for the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        forecaster = CausalForecaster(config).double().eval()
        with torch.no_grad():
            for parameter in forecaster.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return forecaster


def hourly_readings(num_hours: int, series: tuple[str, ...] = ("north/temperature", "south/temperature")) -> pl.DataFrame:
    """Return series_id, ts, value, received_at (a second later), seq: one reading an hour, random walks."""
    rng = np.random.default_rng(5)
    frames = [
        pl.DataFrame(
            {
                "series_id": [name] * num_hours,
                "ts": [START + hour * HOUR for hour in range(num_hours)],
                "value": 20 + rng.normal(size=num_hours).cumsum(),
                "seq": range(num_hours),
            }
        )
        for name in series
    ]
    return pl.concat(frames).with_columns(received_at=pl.col("ts") + timedelta(seconds=1))


def card_of(forecaster: CausalForecaster) -> ModelCard:
    """Return the card of a forecaster that was trained on four days of one series."""
    return ModelCard(
        config=forecaster.config,
        series=TrainedSeries.of(["north/temperature"]),
        series_patterns=None,
        train_end=START + 48 * HOUR,
        validation_end=START + 72 * HOUR,
        data_end=START + 96 * HOUR,
        observations_version=1,
        source=SourceRevision(None, None),
        metrics={},
        created_at=START + 1000 * HOUR,
        tidecast_version="0",
        seed=0,
        settings={},
    )


@cache
def empty_mlflow_store() -> Path:
    """Return the folder of an MLflow database without a run, made once for the session: making one takes seconds, copying it none."""
    settings = Settings(lake=tempfile.mkdtemp(prefix="tidecast-mlflow-"))
    atexit.register(shutil.rmtree, settings.lake, ignore_errors=True)
    connect(settings)
    return Path(settings.lake) / "mlflow"


@cache
def _mlflow_folder() -> Path:
    """Return the MLflow store that all lakes of a session share; each has a model name of its own."""
    folder = Path(tempfile.mkdtemp(prefix="tidecast-mlflow-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return shutil.copytree(empty_mlflow_store(), folder, dirs_exist_ok=True)


@dataclass
class TestLake:
    """A lake in a folder, with its settings and a clock that stands still."""

    __test__ = False  # pytest: this is no test class

    settings: Settings
    clock: ReplayClock
    folder: Path
    files: int = 0

    @classmethod
    def at(cls, folder: Path, now: datetime = START + 1000 * HOUR) -> "TestLake":
        """Return an empty lake below a folder."""
        tracking = TrackingSettings(uri=f"sqlite:///{_mlflow_folder()}/mlflow.db", model_name=f"model-{uuid.uuid4().hex}")
        return cls(Settings(lake=str(folder / "lake"), tracking=tracking), ReplayClock(now), folder)

    def ingest(self, readings: pl.DataFrame) -> IngestReport:
        """Write readings to a file, ingest it and regularise."""
        self.files += 1
        path = self.folder / f"readings-{self.files}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        readings.write_parquet(path)
        report = ingest_paths(self.settings, [path], IngestOptions(), self.clock)
        regularise(self.settings, self.clock)
        return report

    def environment(self) -> dict[str, str]:
        """Return the variables that lead a command to this lake, its models and its settings of training."""
        tracking, train = self.settings.tracking, self.settings.train
        return {
            "TIDECAST_LAKE": self.settings.lake,
            "TIDECAST_TRACKING__URI": str(tracking.uri),
            "TIDECAST_TRACKING__MODEL_NAME": tracking.model_name,
            "TIDECAST_TRAIN": train.model_dump_json(exclude_unset=True),
        }

    def register(self, forecaster: CausalForecaster) -> str:
        """Make a forecaster the champion and return its version."""
        save_model(self.folder / "model", forecaster, card_of(forecaster))
        return register(self.settings, self.folder / "model", self.clock)
