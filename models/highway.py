"""The autoregressive highway: every step of the horizon is linear in what the origin knows, past the recurrent stack.

Where the series has a season, the last season counts value by value, and what lies further back as one value of each season
(the one at the target's place) and one mean of each: a tenth of the weights that all values would have, and they generalise
further. Beside these stand the levels of the other normalisers, covariates, and a weekly profile of the target's time. The
weights are fitted by `pipeline.train.regression` before anything else learns. Called by `models.heads`; imports torch alone.

Letters: N origins of any series, H horizon, L context, P ticks of a season, M seasons in the context, K levels, V features of past
covariates, U of known-future ones, W slots of the profile, C its harmonics, F regressors.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.calendar import WEEK_S, YEAR_S
from models.config import ForecasterConfig
from models.covariates import FUTURE_FEATURES, PAST_FEATURES

FINEST_SLOT_S = 1800
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

    def select(self, index: Tensor) -> "HighwayInputs":
        """Return the inputs of some of the origins."""
        return HighwayInputs(*(part[index] for part in self))


class Highway(nn.Module):
    """One linear regression for each step, without an intercept: what it knows nothing about stays where the anchors are."""

    def __init__(self, config: ForecasterConfig) -> None:
        super().__init__()
        self.horizon, self.context_length = config.horizon, config.context_length
        shortest = min(config.seasons, default=config.context_length)
        self.num_seasons = config.context_length // shortest if config.context_length >= 2 * shortest else 0
        self.season = shortest if self.num_seasons else config.context_length
        self.blocks = {
            "recent": self.season,
            "levels": len(config.half_lives),
            "measured": PAST_FEATURES * len(config.past_covariates),
            "season means": self.num_seasons,
            "season values": self.num_seasons,
            "planned": FUTURE_FEATURES * len(config.future_covariates),
            "profile": 0,
        }
        profile_WC = _profile_basis(config)
        self.blocks["profile"] = profile_WC.shape[1]
        self.profile_WC: Tensor
        self.register_buffer("profile_WC", profile_WC, persistent=False)
        self.weight_HF = nn.Parameter(torch.zeros(config.horizon, sum(self.blocks.values())))

    def forward(self, inputs: HighwayInputs) -> Tensor:
        """Return what is added to the median of every step (N, H)."""
        common_NF, seasons_PNM = self._regressors(inputs)
        common_HF, values_HM, planned_HU, profile_HC = self._split_weights(common_NF.shape[1])
        added_NH = common_NF @ common_HF.T
        if self.num_seasons:
            places, reps = seasons_PNM.shape[0], -(-self.horizon // self.season)
            padded = nn.functional.pad(values_HM, (0, 0, 0, reps * places - self.horizon)).reshape(reps, places, self.num_seasons)
            by_place_PNR = torch.bmm(seasons_PNM, padded.permute(1, 2, 0))
            added_NH = added_NH + by_place_PNR.permute(1, 2, 0).flatten(1)[:, : self.horizon]
        if planned_HU.shape[1]:
            added_NH = added_NH + (inputs.planned_NHU * planned_HU).sum(dim=-1)
        if profile_HC.shape[1]:
            added_NH = added_NH + (self.profile_WC @ profile_HC.T).gather(0, inputs.slot_NH)
        return added_NH

    def regressors(self, inputs: HighwayInputs, step: int) -> Tensor:
        """Return the regressors (N, F) of one step, 1 … horizon; times the step's row of weights they are what `forward` adds."""
        common_NF, seasons_PNM = self._regressors(inputs)
        parts = [common_NF]
        if self.num_seasons:
            parts.append(seasons_PNM[(step - 1) % self.season])
        return torch.cat([*parts, inputs.planned_NHU[:, step - 1], self.profile_WC[inputs.slot_NH[:, step - 1]]], dim=-1)

    def _regressors(self, inputs: HighwayInputs) -> tuple[Tensor, Tensor]:
        """Return the regressors that all steps share (N, F), and the values of each season by their place in it (P, N, M)."""
        common = [inputs.context_NL[:, -self.season :], inputs.levels_NK, inputs.measured_NV]
        if not self.num_seasons:
            return torch.cat(common, dim=-1), inputs.context_NL
        whole_NMP = inputs.context_NL[:, -self.num_seasons * self.season :].reshape(-1, self.num_seasons, self.season)
        seasons_PNM = whole_NMP[..., : min(self.season, self.horizon)].permute(2, 0, 1)
        return torch.cat([*common, whole_NMP.mean(dim=-1)], dim=-1), seasons_PNM

    def _split_weights(self, num_common: int) -> tuple[Tensor, ...]:
        sizes = [num_common, *(self.blocks[name] for name in ("season values", "planned", "profile"))]
        return torch.split(self.weight_HF, sizes, dim=1)


def profile_slot(time_s: Tensor, config: ForecasterConfig) -> Tensor:
    """Return the slot of the profile, int64, that each instant (seconds since the epoch) lies in."""
    period, num_slots = _profile_slots(config)
    return (time_s % period) * num_slots // period


def _profile_slots(config: ForecasterConfig) -> tuple[int, int]:
    """Return the profile's period in seconds and its number of slots; one slot means none."""
    interval_s = max(config.sample_interval_s, FINEST_SLOT_S)
    if config.calendar:
        for period in (WEEK_S, YEAR_S):
            if 2 * interval_s < period:
                return period, round(period / interval_s)
    return WEEK_S, 1


def _profile_basis(config: ForecasterConfig) -> Tensor:
    """Return the harmonics (W, C) at the middle of each slot."""
    period, num_slots = _profile_slots(config)
    order_C = torch.arange(1, min(HARMONICS[period], (num_slots - 1) // 2) + 1)
    angles_WC = 2 * math.pi / num_slots * (torch.arange(num_slots, dtype=torch.float64) + 0.5).unsqueeze(1) * order_C
    return torch.cat([angles_WC.sin(), angles_WC.cos()], dim=-1).to(torch.get_default_dtype())
