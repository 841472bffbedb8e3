"""The decoder: nine quantiles of every step of the horizon, straight from the state of one origin.

The median is a gated mix of anchors (`models.anchors` and the mean), plus an autoregressive highway (`models.highway`), plus what
the recurrent state and the calendar of the target add. The other quantiles are steps away from the median, so they never cross.
While the state is zero only anchors and highway speak: training fits the highway first.

Letters: N origins of any series, D hidden, H horizon, A anchors, C calendar features, Q quantile levels,
R rank of the calendar term.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from models.anchors import num_anchors
from models.config import ForecasterConfig
from models.highway import Highway, HighwayInputs

CALENDAR_RANK = 8
# What a step of the optimiser moves the preference for an anchor by, in steps of the other weights: a softmax needs whole units
# to prefer one to another, where a weight of the highway needs tenths.
ANCHOR_GAIN = 20.0
SOFTPLUS_SHIFT = -1.5
SMALLEST_STEP = 1e-3  # between two quantiles at the start, in normalised units


class QuantileDecoder(nn.Module):
    """Decodes N origins into monotone quantiles in normalised units."""

    def __init__(self, config: ForecasterConfig, num_calendar: int) -> None:
        super().__init__()
        self.horizon, self.num_levels = config.horizon, len(config.quantile_levels)
        self.median_index = config.quantile_levels.index(0.5)
        width, num_gates = config.network.hidden_size, num_anchors(config) + 1
        self.dropout = nn.Dropout(config.network.dropout)
        self.anchor_bias_HA = nn.Parameter(torch.zeros(config.horizon, num_gates))
        self.anchor_gate = nn.Linear(width, num_gates, bias=False)
        self.highway = Highway(config)
        self.head = nn.Linear(width, config.horizon * self.num_levels)
        self.calendar_state = nn.Linear(width, 2 * CALENDAR_RANK)
        self.calendar_basis = nn.Sequential(nn.Linear(num_calendar, 32), nn.GELU(), nn.Linear(32, CALENDAR_RANK))
        for module in (self.anchor_gate, self.head, self.calendar_state):
            nn.init.zeros_(module.weight)
        nn.init.zeros_(self.head.bias)
        nn.init.zeros_(self.calendar_state.bias)

    def forward(self, state_ND: Tensor, inputs: HighwayInputs, anchors: Sequence[Tensor], basis_NHR: Tensor) -> Tensor:
        """Return quantiles (N, H, Q), ascending in Q, in the normalised units of each origin.

        Args:
            state_ND: top of the stack at the origin.
            inputs: of the highway.
            anchors: of `models.anchors`, (N, 1) or (N, H) each, in the same units; the slowest mean is 0 there, and the last gate.
            basis_NHR: `calendar_basis` of every target time.
        """
        dropped_ND = self.dropout(state_ND)
        free_NQH = self.head(dropped_ND).unflatten(-1, (self.num_levels, self.horizon))
        weights_NR2 = self.calendar_state(dropped_ND).unflatten(-1, (CALENDAR_RANK, 2))
        seasonal_N2H = (basis_NHR @ weights_NR2).movedim(-1, 1)
        median_NH = self.mix(state_ND, anchors) + self.highway(inputs) + free_NQH[:, self.median_index] + seasonal_N2H[:, 0]
        return self._spread(median_NH, free_NQH, seasonal_N2H[:, 1])

    def mix(self, state_ND: Tensor, anchors: Sequence[Tensor]) -> Tensor:
        """Return the anchors mixed as the state prefers them (N, H)."""
        preference_ANH = (ANCHOR_GAIN * self.anchor_bias_HA).T.unsqueeze(1) + self.anchor_gate(state_ND).T.unsqueeze(-1)
        gates_ANH = preference_ANH.softmax(dim=0)  # over a last axis of so few it would take eight times as long
        mixed_NH: Tensor = gates_ANH[0] * anchors[0]
        for gate_NH, anchor in zip(gates_ANH[1:-1], anchors[1:], strict=True):
            mixed_NH = mixed_NH + gate_NH * anchor
        return mixed_NH

    def start_mix(self, share_HA: Tensor) -> None:
        """Let every step start with these shares of the anchors (H, A), all above 0, the slowest mean's the last."""
        preference_HA = share_HA.log()
        self.anchor_bias_HA.data.copy_((preference_HA - preference_HA.mean(dim=-1, keepdim=True)) / ANCHOR_GAIN)

    def start_spread(self, quantiles_QH: Tensor) -> None:
        """Let the quantiles start as far from the median as these are from theirs (Q, H), ascending in Q; NaN leaves a step as it is."""
        steps_QH = torch.diff(quantiles_QH, dim=0).clamp(min=SMALLEST_STEP).to(self.head.bias.dtype)
        free_QH = self.head.bias.data.view(self.num_levels, self.horizon)
        others = [level for level in range(self.num_levels) if level != self.median_index]
        free_QH[others] = torch.where(steps_QH.isnan(), free_QH[others], steps_QH.expm1().log() - SOFTPLUS_SHIFT)

    def _spread(self, median_NH: Tensor, free_NQH: Tensor, widening_NH: Tensor) -> Tensor:
        # softplus(-1.5) = 0.2: four steps to either side start near the 0.8 of a broad normal forecast.
        # Sums are written out level by level: a cumulative sum over an axis of four is ten times slower.
        steps_NQH = softplus(free_NQH + (widening_NH + SOFTPLUS_SHIFT).unsqueeze(1))
        quantiles = [median_NH]
        for level in range(self.median_index - 1, -1, -1):
            quantiles.insert(0, quantiles[0] - steps_NQH[:, level])
        for level in range(self.median_index + 1, self.num_levels):
            quantiles.append(quantiles[-1] + steps_NQH[:, level])
        return torch.stack(quantiles, dim=1).movedim(1, -1)
