"""Hedging: each forecast is mixed with two naive ones, as much as their errors have been smaller than the network's of late.

A network knows what its training has shown it. After a level shift, or where a series turns into a random walk, the last value or the
recent mean may be much better; a mixture is about as good as the best of its parts. For each series and each representative lead,

    advantage   D = Σ η (network's loss − naive loss) / network's mean loss / h, forgotten over the longer of `MEMORY` and h ticks
    weight      of a naive forecaster  ∝ exp(D − RELUCTANCE), of the network ∝ 1;  quantiles are averaged

where a loss is the mean pinball loss of three levels and neighbouring errors of lead h count 1/h, since they repeat each other. Source:
Freund and Schapire 1997, "A decision-theoretic generalization of on-line learning", section 2. The naive forecasters are a random walk
and the mean of about the last H observations; their quantiles are normal, as wide as their own errors. Only matured forecasts count,
and nothing is shared between series. What was tried, with figures: docs/decisions.md. Called by `pipeline.forecast.calibrate`; NumPy alone.

Letters: O origins (consecutive ticks), B series, H horizon, Q quantile levels, S representative leads, R places, K naive forecasters,
J what is kept of each forecast (three quantiles of the network, K medians), or those three alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Self

import numpy as np

from pipeline.forecast.maturing import Flags, Floats, Ints, Places, SeriesArrays, at_every_step

NUM_NAIVE = 2
MEMORY = 100  # ticks, in which an error loses half of its say; longer for leads that are longer
RATE = 2.0  # η
RELUCTANCE = 3.0  # a naive forecaster starts with a twentieth of the network's weight
UNKNOWN = -50.0  # advantage of a naive forecaster that was never judged
MOST_RELATIVE = 3.0  # network's mean losses: one absurd reading must not decide
DEVIATION = np.sqrt(np.pi / 2)  # of a normal distribution, in mean absolute errors


@dataclass
class HedgeState(SeriesArrays):
    """What hedging remembers of B series; the last axis of every array is the series."""

    ticks_B: Ints
    """Ticks hedged so far, int64."""
    count_B: Ints
    """Observations so far, int64."""
    last_B: Floats
    """Last observation; NaN before the first."""
    level_B: Floats
    """Mean of the recent observations."""
    judged_SB: Ints
    """Matured forecasts of each lead, int64."""
    loss_SB: Floats
    """Mean loss of the network."""
    error_KSB: Floats
    """Mean absolute error of each naive forecaster."""
    advantage_KSB: Floats
    issued_JRB: Floats
    """What waits to mature, J = 3 + K: three quantiles of the network and the naive medians; NaN where there is none."""

    @classmethod
    def fresh(cls, horizon: int, num_series: int) -> Self:
        """Return the state of series of which nothing was forecast."""
        places = Places(horizon)
        leads = (len(places.leads_S1), num_series)
        return cls(
            ticks_B=np.zeros(num_series, np.int64),
            count_B=np.zeros(num_series, np.int64),
            last_B=np.full(num_series, np.nan),
            level_B=np.zeros(num_series),
            judged_SB=np.zeros(leads, np.int64),
            loss_SB=np.zeros(leads),
            error_KSB=np.zeros((NUM_NAIVE, *leads)),
            advantage_KSB=np.zeros((NUM_NAIVE, *leads)),
            issued_JRB=np.full((3 + NUM_NAIVE, places.num_places, num_series), np.nan),
        )


class Hedge:
    """Mixes forecasts with naive ones, tick by tick; all at once and one by one give the same.

    >>> hedge = Hedge(horizon=1, quantile_levels=(0.1, 0.5, 0.9), num_series=1)
    >>> far_off = np.tile([9.0, 10.0, 11.0], (500, 1, 1, 1))
    >>> came_true = np.random.default_rng(0).normal(size=(500, 1))
    >>> hedge.advance(far_off, came_true)[-1, 0, 0].round(1).tolist()
    [-1.7, -0.1, 1.4]
    """

    def __init__(self, horizon: int, quantile_levels: Sequence[float], num_series: int = 0, *, state: HedgeState | None = None) -> None:
        self.state = HedgeState.fresh(horizon, num_series) if state is None else state
        self._columns_Q = [0, list(quantile_levels).index(0.5), len(quantile_levels) - 1]
        self._levels_J = np.array(quantile_levels)[self._columns_Q]
        self._normal_Q = np.array([NormalDist().inv_cdf(level) for level in quantile_levels])
        self._places = Places(horizon)
        leads_S1, strides_S1 = self._places.leads_S1, self._places.strides_S1
        self._say_S1 = RATE * strides_S1 / leads_S1
        self._kept_S1 = 0.5 ** (strides_S1 / np.maximum(MEMORY, leads_S1))
        self._level_rate = 1 - 0.5 ** (1 / horizon)
        self._to_steps_SH = at_every_step(horizon)

    def advance(self, quantiles_OBHQ: Floats, actual_OB: Floats) -> Floats:
        """Learn from the value of each tick, then mix the forecast of that tick.

        Args:
            quantiles_OBHQ: the network's, at consecutive ticks, none left out.
            actual_OB: value of the tick itself, which is step h of the forecast of h ticks ago; NaN where not observed.

        Returns:
            Mixed quantiles, likewise.
        """
        mixed_OBHQ = np.empty_like(quantiles_OBHQ)
        with np.errstate(over="ignore", invalid="ignore"):  # a forecast that is not finite stays so, and teaches nothing
            for quantiles_BHQ, actual_B, mixed_BHQ in zip(quantiles_OBHQ, actual_OB, mixed_OBHQ, strict=True):
                self._learn(actual_B)
                self._mix(quantiles_BHQ, mixed_BHQ)
        return mixed_OBHQ

    def _learn(self, actual_B: Floats) -> None:
        """Judge what was issued for this tick by its value."""
        state = self.state
        places_SB, due_SB = self._places.due(state.ticks_B)
        issued_JSB = state.issued_JRB[:, places_SB, np.arange(len(actual_B))]
        observed_B = np.isfinite(actual_B)
        judged_SB = due_SB & observed_B & np.isfinite(issued_JSB).all(axis=0)
        self._judge(np.where(judged_SB, issued_JSB, 0.0), np.where(observed_B, actual_B, 0.0), judged_SB)
        state.count_B = state.count_B + observed_B
        state.last_B = np.where(observed_B, actual_B, state.last_B)
        rate_B = np.maximum(1 / np.maximum(state.count_B, 1), self._level_rate)
        state.level_B = np.where(observed_B, state.level_B + rate_B * (state.last_B - state.level_B), state.level_B)

    def _mix(self, quantiles_BHQ: Floats, out_BHQ: Floats) -> None:
        """Average the quantiles of the network and of the naive forecasters, which are normal, by their weights."""
        naive_KB = self._naive_medians()
        self._remember(quantiles_BHQ, naive_KB)
        weight_KBH = self._weights()
        error_KBH = self.state.error_KSB.swapaxes(1, 2) @ self._to_steps_SH
        centre_BH = (weight_KBH * np.nan_to_num(naive_KB)[..., None]).sum(axis=0)
        spread_BH = DEVIATION * (weight_KBH * error_KBH).sum(axis=0)
        np.multiply((1 - weight_KBH.sum(axis=0))[..., None], quantiles_BHQ, out=out_BHQ)
        out_BHQ += spread_BH[..., None] * self._normal_Q
        out_BHQ += centre_BH[..., None]

    def _judge(self, issued_JSB: Floats, actual_B: Floats, judged_SB: Flags) -> None:
        """Take the errors of what has come true into the advantages, then into the mean errors that they are measured in."""
        state = self.state
        quantiles_JSB, naive_KSB = issued_JSB[:3], issued_JSB[3:]
        loss_SB = self._loss(actual_B - quantiles_JSB)
        error_KSB = np.abs(actual_B - naive_KSB)
        widths_J = self._normal_Q[self._columns_Q]
        spread_JKSB = DEVIATION * state.error_KSB * widths_J[:, None, None, None]
        naive_loss_KSB = self._loss((actual_B - naive_KSB) - spread_JKSB)
        known_SB = judged_SB & (state.judged_SB > 0) & (state.loss_SB > 0)  # the first error of all gives the widths
        better_KSB = np.divide(loss_SB - naive_loss_KSB, state.loss_SB, out=np.zeros_like(error_KSB), where=known_SB)
        better_KSB = self._say_S1 * better_KSB.clip(-MOST_RELATIVE, MOST_RELATIVE)
        state.advantage_KSB = np.where(judged_SB, self._kept_S1 * state.advantage_KSB + better_KSB, state.advantage_KSB)
        state.judged_SB = state.judged_SB + judged_SB
        rate_SB = np.where(judged_SB, np.maximum(1 / np.maximum(state.judged_SB, 1), 1 - self._kept_S1), 0.0)
        state.loss_SB = state.loss_SB + rate_SB * (loss_SB - state.loss_SB)
        state.error_KSB = state.error_KSB + rate_SB * (error_KSB - state.error_KSB)

    def _loss(self, error_JX: Floats) -> Floats:
        """Return the mean pinball loss of three levels, the first axis, of value less quantile; X is any further axes."""
        levels = self._levels_J.reshape(-1, *(1,) * (error_JX.ndim - 1))
        loss_X: Floats = np.maximum(levels * error_JX, (levels - 1) * error_JX).mean(axis=0)
        return loss_X

    def _naive_medians(self) -> Floats:
        return np.stack([self.state.last_B, np.where(self.state.count_B > 0, self.state.level_B, np.nan)])

    def _weights(self) -> Floats:
        """Return the weights of the naive forecasters at every step (K, B, H); next to none before one of their errors is known."""
        advantage_KSB = np.where(self.state.judged_SB > 0, self.state.advantage_KSB, UNKNOWN)
        exponent_KBH = advantage_KSB.swapaxes(1, 2) @ self._to_steps_SH - RELUCTANCE
        most_BH = np.maximum(exponent_KBH.max(axis=0), 0.0)
        share_KBH = np.exp(exponent_KBH - most_BH)
        weight_KBH: Floats = share_KBH / (np.exp(-most_BH) + share_KBH.sum(axis=0))
        return weight_KBH

    def _remember(self, quantiles_BHQ: Floats, naive_KB: Floats) -> None:
        state = self.state
        places_SB, kept_SB = self._places.at(np.broadcast_to(state.ticks_B, state.judged_SB.shape))
        leads, columns = np.nonzero(kept_SB)
        places = places_SB[kept_SB]
        steps = self._places.leads_S1[leads, 0] - 1
        state.issued_JRB[:3, places, columns] = quantiles_BHQ[columns, steps][:, self._columns_Q].T
        state.issued_JRB[3:, places, columns] = naive_KB[:, columns]
        state.ticks_B = state.ticks_B + 1
