"""The autoregressive highway: every step of the horizon is linear in what the origin knows, past the recurrent stack.

Where the series has a season, only the last one counts value by value; every season of the context counts by one value, the one
at the target's position in it, and by its mean: a tenth of the weights that all values would have, and they generalise further.
Beside these stand the levels of the other normalisers, covariates, and a weekly profile of the target's time. The weights are
fitted by `pipeline.train.regression` before anything else learns. Called by `models.heads`; imports torch alone.

Letters: N origins of any series, H horizon, L context, P ticks of a season, M seasons in the context, A in the horizon, K levels,
V features of past covariates, U of known-future ones, W slots of the profile, C its harmonics, F regressors.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.calendar import WEEK_S, YEAR_S
from models.config import ForecasterConfig
from models.covariates import FUTURE_FEATURES, PAST_FEATURES

FINEST_SLOT_S = 1800
FEWEST_SLOTS = 3  # that hold a harmonic
HARMONICS = {WEEK_S: 42, YEAR_S: 6}  # of the week: down to four hours; a year is seen once or twice


class HighwayInputs(NamedTuple):
    """What the highway reads at N origins, in the normalised units of each."""

    context_NL: Tensor
    """Last `context_length` values, oldest first; 0, the slowest mean, before the series began."""
    levels_NK: Tensor
    """Means of the other normalisers."""
    measured_NV: Tensor
    """Past covariates at the origin, as `models.covariates` encodes them."""
    planned_NHU: Tensor
    """Known-future covariates of every target, likewise."""
    slot_NH: Tensor
    """Slot of the profile that every target lies in, int64."""


class Highway(nn.Module):
    """One linear regression for each step, without an intercept: what it knows nothing about stays where the anchors are."""

    def __init__(self, config: ForecasterConfig) -> None:
        super().__init__()
        self.horizon, self.context_length = config.horizon, config.context_length
        shortest = min(config.seasons, default=config.context_length)
        self.num_seasons = config.context_length // shortest if config.context_length >= 2 * shortest else 0
        self.season = shortest if self.num_seasons else config.context_length
        profile_WC = _profile_basis(config)
        self.profile_WC: Tensor
        self.register_buffer("profile_WC", profile_WC, persistent=False)
        self.blocks = {
            "recent": self.season,
            "levels": len(config.half_lives),
            "measured": PAST_FEATURES * len(config.past_covariates),
            "season means": self.num_seasons,
            "season values": self.num_seasons,
            "planned": FUTURE_FEATURES * len(config.future_covariates),
            "profile": profile_WC.shape[1],
        }
        self.weight_HF = nn.Parameter(torch.zeros(config.horizon, sum(self.blocks.values())))

    def forward(self, inputs: HighwayInputs) -> Tensor:
        """Return what is added to the median of every step (N, H)."""
        common_NF = self._common(inputs)
        sizes = [common_NF.shape[1], *(self.blocks[name] for name in ("season values", "planned", "profile"))]
        common_HF, values_HM, planned_HU, profile_HC = torch.split(self.weight_HF, sizes, dim=1)
        added_NH = common_NF @ common_HF.T
        if self.num_seasons:
            # Steps at one position in the season read the same values: one product for each position, padded to whole seasons.
            positions, ahead = min(self.season, self.horizon), -(-self.horizon // self.season)
            values_PMN = self._seasons(inputs)[:, :positions].transpose(0, 1)
            padded_HM = nn.functional.pad(values_HM, (0, 0, 0, ahead * positions - self.horizon))
            by_position_PAN = torch.bmm(padded_HM.reshape(ahead, positions, self.num_seasons).transpose(0, 1), values_PMN)
            added_NH = added_NH + by_position_PAN.permute(2, 1, 0).flatten(1)[:, : self.horizon]
        if planned_HU.shape[1]:
            added_NH = added_NH + (inputs.planned_NHU * planned_HU).sum(dim=-1)
        if profile_HC.shape[1]:
            added_NH = added_NH + (self.profile_WC @ profile_HC.T).gather(0, inputs.slot_NH)
        return added_NH

    def regressors(self, inputs: HighwayInputs, step: int) -> Tensor:
        """Return the regressors (N, F) of one step, 1 … horizon; times the step's row of weights they are what `forward` adds."""
        parts = [self._common(inputs)]
        if self.num_seasons:
            parts.append(self._seasons(inputs)[:, (step - 1) % self.season].T)
        return torch.cat([*parts, inputs.planned_NHU[:, step - 1], self.profile_WC[inputs.slot_NH[:, step - 1]]], dim=-1)

    def _common(self, inputs: HighwayInputs) -> Tensor:
        """Return the regressors that all steps share (N, F)."""
        common = [inputs.context_NL[:, -self.season :], inputs.levels_NK, inputs.measured_NV]
        if self.num_seasons:
            common.append(self._seasons(inputs).mean(dim=1).T)
        return torch.cat(common, dim=-1)

    def _seasons(self, inputs: HighwayInputs) -> Tensor:
        """Return the context's whole seasons (M, P, N), oldest first; the first step's position is the first of each."""
        return inputs.context_NL.T[-self.num_seasons * self.season :].reshape(self.num_seasons, self.season, -1)


def profile_slot(time_s: Tensor, config: ForecasterConfig) -> Tensor:
    """Return the slot of the profile, int64, that each instant (seconds since the epoch) lies in."""
    period, num_slots = _profile_slots(config)
    return (time_s % period) * num_slots // period


def _profile_slots(config: ForecasterConfig) -> tuple[int, int]:
    """Return the profile's period in seconds and its number of slots; one slot means none."""
    interval_s = max(config.sample_interval_s, FINEST_SLOT_S)
    for period in (WEEK_S, YEAR_S):
        if config.calendar and period / interval_s >= FEWEST_SLOTS:
            return period, round(period / interval_s)
    return WEEK_S, 1


def _profile_basis(config: ForecasterConfig) -> Tensor:
    """Return the harmonics (W, C) at the middle of each slot."""
    period, num_slots = _profile_slots(config)
    order_C = torch.arange(1, min(HARMONICS[period], (num_slots - 1) // 2) + 1)
    angles_WC = 2 * math.pi / num_slots * (torch.arange(num_slots, dtype=torch.float64) + 0.5).unsqueeze(1) * order_C
    return torch.cat([angles_WC.sin(), angles_WC.cos()], dim=-1).to(torch.get_default_dtype())
