"""Law 8: mutating validation and test rows changes no fitted artefact."""

import numpy as np
import torch

from models.config import NetworkConfig
from pipeline.prepare.splits import Split
from pipeline.settings import TrainSettings
from pipeline.train.fit import FitResult, fit, forecaster_config
from tests.laws.panels import HOUR, START, daily_cycle, hourly_panel

SETTINGS = TrainSettings(horizon=6, max_epochs=2, network=NetworkConfig(hidden_size=8, num_layers=1), segment_length=64)
TRAIN_END, VALIDATION_END = 300, 400


def fitted(changed_from: int | None, max_epochs: int = 2) -> FitResult:
    """Train on 500 ticks of which those after `changed_from` were replaced by something else entirely."""
    values_TB = daily_cycle(500, 3)
    if changed_from is not None:
        values_TB[changed_from + 1 :] = np.random.default_rng(9).exponential(1e4, (500 - changed_from - 1, 3))
    settings = SETTINGS.model_copy(update={"max_epochs": max_epochs})
    split = Split(START + TRAIN_END * HOUR, START + VALIDATION_END * HOUR)
    return fit(hourly_panel(values_TB), split, forecaster_config(settings, HOUR), settings)


def same_weights(left: FitResult, right: FitResult) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left.forecaster.parameters(), right.forecaster.parameters(), strict=True))


def test_rows_after_the_validation_period_change_nothing() -> None:
    """Shown to fail by encoding the whole panel before it is split."""
    reference, mutated = fitted(None), fitted(VALIDATION_END)
    assert same_weights(reference, mutated)
    assert reference.curves == mutated.curves


def test_validation_rows_choose_the_epoch_and_nothing_else() -> None:
    """With one epoch there is nothing to choose. Shown to fail by letting training targets run past the border."""
    reference, mutated = fitted(None, max_epochs=1), fitted(TRAIN_END, max_epochs=1)
    assert same_weights(reference, mutated)
    assert reference.curves[0]["validation/pinball"] != mutated.curves[0]["validation/pinball"]


def test_training_rows_do_change_the_weights() -> None:
    """Shown to fail by returning an untrained forecaster: the two above must not pass on a constant."""
    assert not same_weights(fitted(None, max_epochs=1), fitted(TRAIN_END // 2, max_epochs=1))
