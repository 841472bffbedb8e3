"""The engine over some ticks, and what it carries on: for the laws about the carried state."""

from dataclasses import fields

import numpy as np
import torch

from models.batch import CarriedState
from models.forecaster import CausalForecaster
from pipeline.forecast.engine import StreamEngine
from pipeline.prepare.covariates import PanelCovariates
from tests.models.conftest import Ticks


def advance(
    forecaster: CausalForecaster,
    carried: CarriedState,
    ticks: Ticks,
    covariates: PanelCovariates | None = None,
    *,
    every_tick: bool = True,
) -> tuple[np.ndarray, CarriedState]:
    """Run the engine over some ticks; return quantiles (O, B, H, Q), of every tick or of the last alone, and the state after."""
    values_TB = torch.where(ticks.observed_TB, ticks.values_TB, torch.nan).numpy()
    engine = StreamEngine(forecaster, carried)
    origins_O = np.arange(len(values_TB)) if every_tick else None
    blocks = list(engine.advance(values_TB, ticks.time_TB.numpy(), origins_O, covariates))
    return np.concatenate([block.quantiles_OBHQ for block in blocks]), engine.carried


def assert_same_state(left: CarriedState, right: CarriedState) -> None:
    """Compare every part of two states to 1e-10."""
    for field in fields(CarriedState):
        torch.testing.assert_close(getattr(left, field.name), getattr(right, field.name), rtol=0, atol=1e-10)
