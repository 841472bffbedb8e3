"""Law 10: no training target lies after a validation origin, and no validation origin before a training target."""

from collections.abc import Iterator

import pytest
import torch

from models.config import ForecasterConfig, NetworkConfig
from pipeline.prepare.splits import Split
from pipeline.settings import TrainSettings
from pipeline.train.datamodule import SegmentDataModule
from pipeline.train.fit import forecaster_config
from tests.laws.panels import HOUR, START, daily_cycle, hourly_panel

BORDER = START + 300 * HOUR
SETTINGS = TrainSettings(horizon=12, network=NetworkConfig(hidden_size=4), segment_length=64, burn_in=16, batch_size=16)


@pytest.fixture(scope="module")
def data() -> SegmentDataModule:
    """Return segments of 500 ticks split at the border."""
    return SegmentDataModule(hourly_panel(daily_cycle(500, 3)), Split(BORDER, START + 400 * HOUR), config(), SETTINGS)


def config() -> ForecasterConfig:
    return forecaster_config(SETTINGS, HOUR)


def target_times(data: SegmentDataModule, epochs: int) -> Iterator[torch.Tensor]:
    """Yield the label of every training target that is scored, seconds since the epoch."""
    ahead_H = 3600 * torch.arange(1, config().horizon + 1)
    for _ in range(epochs):
        for batch in data.train_dataloader():
            times_OBH = batch.sequence.time_TB[batch.origins_O].unsqueeze(-1) + ahead_H
            started_OB1 = (batch.sequence.age_TB[batch.origins_O] >= 0).unsqueeze(-1)
            yield times_OBH[batch.observed_OBH & started_OB1]


def test_training_targets_end_at_the_border(data: SegmentDataModule) -> None:
    """Shown to fail by splitting the panel one horizon late."""
    latest = max(int(times.max()) for times in target_times(data, epochs=3))
    assert latest == int(BORDER.timestamp())


def test_validation_origins_begin_at_the_border(data: SegmentDataModule) -> None:
    """Shown to fail by starting the validation batch one tick early."""
    batch = data.validation
    assert int(batch.sequence.time_TB[batch.origins_O].min()) == int(BORDER.timestamp())


def test_every_tick_trains(data: SegmentDataModule) -> None:
    """Shown to fail by segments that start only at multiples of their length after the burn-in."""
    seen = torch.cat(list(target_times(data, epochs=3))).unique()
    assert len(seen) == 300
