"""Law 8: mutating validation and test rows changes no fitted artefact."""

from dataclasses import replace

import numpy as np
import torch

from models.config import NetworkConfig
from pipeline.prepare.covariates import CovariateNames, PanelCovariates
from pipeline.prepare.splits import Split
from pipeline.settings import TrainSettings
from pipeline.train.fit import FitResult, fit, forecaster_config
from tests.laws.panels import HOUR, START, daily_cycle, hourly_panel

SETTINGS = TrainSettings(
    horizon=6, max_epochs=2, highway_first=False, network=NetworkConfig(hidden_size=8, num_layers=1), segment_length=64
)
TRAIN_END, VALIDATION_END = 300, 400


def fitted(changed_from: int | None, max_epochs: int = 2) -> FitResult:
    """Train on 500 ticks of which those after `changed_from` were replaced by something else entirely."""
    values_TB = daily_cycle(500, 3)
    if changed_from is not None:
        values_TB[changed_from + 1 :] = np.random.default_rng(9).exponential(1e4, (500 - changed_from - 1, 3))
    settings = SETTINGS.model_copy(update={"max_epochs": max_epochs})
    split = Split(START + TRAIN_END * HOUR, START + VALIDATION_END * HOUR)
    return fit(hourly_panel(values_TB), split, forecaster_config(settings, HOUR), settings)


def fitted_with_covariates(seed: int, changed_from: int) -> FitResult:
    """Train on 400 ticks of three series and a fourth that begins after the border, covariates after `changed_from` drawn anew."""
    known_SBV, rng = np.random.default_rng(1).normal(size=(406, 4, 2)), np.random.default_rng(seed)
    known_SBV[changed_from + 1 :] = rng.exponential(1e4, known_SBV[changed_from + 1 :].shape)
    area_BJ = np.array([[10.0], [20.0], [30.0], [rng.exponential(1e4)]])
    covariates = PanelCovariates(CovariateNames(("wind",), ("tariff",), ("area",)), known_SBV[:400, :, :1], known_SBV[..., 1:], area_BJ)
    panel = replace(hourly_panel(daily_cycle(400, 4)), covariates=covariates)
    panel = replace(panel, first_tick_B=panel.first_tick_B + np.array([0, 0, 0, TRAIN_END + 10]))
    settings = SETTINGS.model_copy(update={"max_epochs": 1})
    split = Split(START + TRAIN_END * HOUR, START + (VALIDATION_END - 10) * HOUR)
    return fit(panel, split, forecaster_config(settings, HOUR, panel.covariates), settings)


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


def test_covariates_of_later_ticks_and_later_series_change_nothing() -> None:
    """Shown to fail by standardising static covariates over all series of the panel."""
    reference, mutated = fitted_with_covariates(1, TRAIN_END), fitted_with_covariates(2, TRAIN_END)
    assert same_weights(reference, mutated)
    assert torch.equal(reference.forecaster.static_mean_J, mutated.forecaster.static_mean_J)
    assert not same_weights(reference, fitted_with_covariates(2, TRAIN_END // 2))


def test_training_rows_do_change_the_weights() -> None:
    """Shown to fail by returning an untrained forecaster: the two above must not pass on a constant."""
    assert not same_weights(fitted(None, max_epochs=1), fitted(TRAIN_END // 2, max_epochs=1))
