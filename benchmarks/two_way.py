"""The stack that tidecast refuses, built once to measure what it does: the same layers, each read forwards and backwards.

Called by `benchmarks.causality`. Letters as in `models.stacked_lstm`; E = D / 2, the width of each direction.
"""

import torch
from torch import Tensor, nn

from models.stacked_lstm import StackedRecurrence


class TwoWayStack(nn.Module):
    """A residual stack like the causal one it is made from, but each layer is a forward and a backward LSTM of half the width.

    Called with a stretch of ticks, the backward halves read it from its end. Called tick by tick, as a live forecaster is,
    they have nothing to read but the tick itself; the forward halves carry their state from call to call.
    """

    def __init__(self, causal: StackedRecurrence) -> None:
        super().__init__()
        width, depth = causal.config.hidden_size, causal.config.num_layers
        self.half_width = width // 2
        self.embed, self.norms, self.dropout = causal.embed, causal.norms, causal.dropout
        self.ahead = nn.ModuleList(nn.LSTM(width, self.half_width) for _ in range(depth))
        self.back = nn.ModuleList(nn.LSTM(width, self.half_width) for _ in range(depth))

    def forward(self, features_TBF: Tensor, h_LBE: Tensor, c_LBE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Read T ticks both ways; returns the top at every tick (T, B, D) and the forward halves' states after the last."""
        stream_TBD = self.embed(features_TBF)
        hidden, cell = [], []
        for level, (ahead, back) in enumerate(zip(self.ahead, self.back, strict=True)):
            inputs_TBD = self.norms[level](stream_TBD)
            forwards_TBE, (h_1BE, c_1BE) = ahead(inputs_TBD, (h_LBE[level : level + 1].contiguous(), c_LBE[level : level + 1].contiguous()))
            backwards_TBE, _ = back(inputs_TBD.flip(0))
            stream_TBD = stream_TBD + self.dropout(torch.cat([forwards_TBE, backwards_TBE.flip(0)], dim=-1))
            hidden.append(h_1BE)
            cell.append(c_1BE)
        return self.norms[-1](stream_TBD), torch.cat(hidden), torch.cat(cell)

    def initial_state(self, num_series: int) -> tuple[Tensor, Tensor]:
        """Return zero states (L, B, E) of the forward halves."""
        zeros_LBE = next(self.parameters()).new_zeros((len(self.ahead), num_series, self.half_width))
        return zeros_LBE, zeros_LBE.clone()
