"""The laws 1 to 4 and 7, asked of a forecaster of ours: its weights in float64, made-up readings with gaps.

Called by `pipeline.verify.verify`.

Letters: B series, T ticks, C columns (the target, then past covariates), P past covariates, S = T + horizon, O origins, H
horizon, Q quantile levels.
"""

import copy
from datetime import timedelta
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.batch import CarriedState, Covariates
from models.causality import Finding, Forecast, stream_equals_batch
from models.forecaster import CausalForecaster
from pipeline.evaluate.scoring import MODEL, Period, score_forecaster
from pipeline.prepare.sequences import Panel
from pipeline.verify.made_up import START_TICK, made_up_panel, noise_covariates
from pipeline.verify.tensors import BATCHES, NUM_SERIES, findings_of_tensors

MOST_TICKS = 600  # a longer season falls back to the last value
NUM_ORIGINS = 40
LEVEL, GAPS = 100.0, 0.1  # readings far from zero, a tenth of them missing
ROUNDING = 1e-9  # of a metric


class Carried(NamedTuple):
    """What a step carries: the forecaster's state and how many ticks it has read."""

    state: CarriedState
    num_ticks: int


class OwnForecaster:
    """A forecaster of ours, with its carried state: inputs (B, T, C), the target and its past covariates; NaN is not observed."""

    def __init__(self, forecaster: CausalForecaster) -> None:
        self.forecaster = copy.deepcopy(forecaster).double().eval()
        self.config = forecaster.config
        self.num_ticks = min(self.config.history_length + 32, MOST_TICKS)

    def inputs(self) -> Tensor:
        """Return made-up readings with gaps; the first of each series is there."""
        generator = torch.Generator().manual_seed(0)
        shape = NUM_SERIES, self.num_ticks, 1 + len(self.config.past_covariates)
        inputs_BTC = LEVEL + torch.randn(shape, generator=generator, dtype=torch.float64).cumsum(1)
        missing_BTC = torch.rand(shape, generator=generator) < GAPS
        missing_BTC[:, 0] = False
        return torch.where(missing_BTC, torch.nan, inputs_BTC)

    def forecast(self, *, training: bool = False) -> Forecast:
        """Return the forecaster as a function, served or with the dropout of training, the same at each call."""

        def asked(inputs_BTC: Tensor) -> Tensor:
            forecaster = copy.deepcopy(self.forecaster).train(training)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                origins_O = torch.arange(inputs_BTC.shape[1])
                quantiles_OBHQ, _ = self._advance(forecaster, forecaster.initial_state(len(inputs_BTC)), inputs_BTC, 0, origins_O)
            return quantiles_OBHQ.transpose(0, 1)

        return asked

    def stream(self, inputs_BTC: Tensor) -> Finding:
        """Ask law 4."""
        return stream_equals_batch(self.forecast(), self.step, inputs_BTC)

    def step(self, inputs_BC: Tensor, before: Carried | None) -> tuple[Tensor, Carried]:
        """Read one tick and forecast; returns quantiles (B, H, Q) and what is carried on."""
        state, num_ticks = before or Carried(self.forecaster.initial_state(len(inputs_BC)), 0)
        quantiles_1BHQ, after = self._advance(self.forecaster, state, inputs_BC.unsqueeze(1), num_ticks, None)
        return quantiles_1BHQ[0], Carried(after, num_ticks + 1)

    def _advance(
        self, forecaster: CausalForecaster, state: CarriedState, inputs_BTC: Tensor, first: int, origins_O: Tensor | None
    ) -> tuple[Tensor, CarriedState]:
        values_TB, past_TBP = inputs_BTC[..., 0].T, inputs_BTC[..., 1:].transpose(0, 1)
        tick_T1 = START_TICK + torch.arange(first, first + len(values_TB), dtype=torch.float64).unsqueeze(1)  # float32 misses seconds
        time_TB = (tick_T1 * self.config.sample_interval_s).long().expand_as(values_TB)
        covariates = self._covariates(past_TBP, first) if self.config.has_covariates else None
        return forecaster.advance(state, values_TB, ~values_TB.isnan(), time_TB, origins_O, covariates)

    def _covariates(self, past_TBP: Tensor, first: int) -> Covariates:
        """Return past covariates beside a plan and attributes that are the same however many ticks are asked for."""
        num_ticks, num_series, _ = past_TBP.shape
        tick_S11 = torch.arange(first, first + num_ticks + self.config.horizon, dtype=torch.float64)[:, None, None]
        future_SBU = (0.7 * tick_S11 + torch.arange(len(self.config.future_covariates))).sin().expand(-1, num_series, -1)
        return Covariates.of(past_TBP, future_SBU, past_TBP.new_ones(num_series, len(self.config.static_covariates)))


def findings_of_forecaster(forecaster: CausalForecaster) -> list[Finding]:
    """Ask the laws 1 to 4 and 7 of a forecaster, which is left as it is."""
    own = OwnForecaster(forecaster)
    *findings, by_batch = findings_of_tensors(own)
    return [*findings, by_batch if by_batch.verdict == "broken" else _metrics_by_batch(own.forecaster)]


def _metrics_by_batch(forecaster: CausalForecaster) -> Finding:
    """Ask law 7 where it is about metrics: score made-up series in batches of several sizes, and count the points."""
    config, num_ticks = forecaster.config, NUM_ORIGINS + 2 * forecaster.config.horizon + 50
    values_TB = LEVEL + np.random.default_rng(0).normal(size=(num_ticks, NUM_SERIES)).cumsum(0)
    values_TB[1:][np.random.default_rng(1).random((num_ticks - 1, NUM_SERIES)) < GAPS] = np.nan
    panel = made_up_panel(values_TB, timedelta(seconds=config.sample_interval_s), noise_covariates(config, num_ticks, NUM_SERIES))
    first = num_ticks - config.horizon - NUM_ORIGINS
    targets_OH = np.arange(first, first + NUM_ORIGINS)[:, None] + np.arange(1, config.horizon + 1)
    known = int(np.isfinite(values_TB[targets_OH]).sum())
    period = Period(start=panel.label(0, first), end=panel.end, train_end=panel.label(0, first))
    scores = {size: _scored(forecaster, panel, period, size) for size in (NUM_SERIES, *BATCHES)}
    mae, _ = scores[NUM_SERIES]
    for size, (batched_mae, num_points) in scores.items():
        if num_points != known or not np.isclose(batched_mae, mae, rtol=ROUNDING, atol=0):
            seen = f"in batches of {size} series the MAE is {batched_mae:.9g} over {num_points} of {known} known points"
            return Finding(law=7, verdict="broken", seen=f"{seen}, in one batch {mae:.9g}")
    seen = f"batches of {', '.join(map(str, BATCHES))} and {NUM_SERIES} series; {known:,} known points, none dropped"
    return Finding(law=7, verdict="holds", seen=seen)


def _scored(forecaster: CausalForecaster, panel: Panel, period: Period, size: int) -> tuple[float, int]:
    """Score a panel in batches of so many series; return the MAE and the number of points."""
    parts = [panel.columns(np.arange(start, min(start + size, NUM_SERIES))) for start in range(0, NUM_SERIES, size)]
    first, *others = (score_forecaster(forecaster, part, part, period, baselines=False).standardised[MODEL] for part in parts)
    for other in others:
        first.merge(other)
    metrics = first.overall().row(0, named=True)
    return metrics["mae"], metrics["num_points"]
