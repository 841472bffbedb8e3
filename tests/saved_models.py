"""One small model and its card, for the tests of what is saved and what is registered."""

from datetime import UTC, datetime, timedelta

import torch

from models.config import ForecasterConfig, NetworkConfig
from models.forecaster import CausalForecaster
from pipeline.tracking.model_card import ModelCard, TrainedSeries
from pipeline.tracking.provenance import SourceRevision

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
