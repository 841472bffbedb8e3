"""The causal stack: the hidden state of layer l-1 at time t is the input of layer l at time t.

Every layer reads forward in time only and hands a full sequence up, so one call over T ticks equals T calls over one
tick with the state carried. Called by `models.forecaster`.

Letters: T ticks, B series, F features, L layers, D hidden.
"""

import math

import torch
from torch import Tensor, nn

from models.config import NetworkConfig


class StackedRecurrence(nn.Module):
    """A stack of one-way LSTM or GRU layers, plain or pre-norm residual, with its state given and returned.

    Residual: y_l = y_{l-1} + Dropout(RNN_l(Norm(y_{l-1}))), a final norm (pre-norm after Xiong et al. 2020; residual
    stacks of LSTMs: Wu et al. 2016, section 3.1). Plain: the textbook stack with dropout between layers.
    """

    def __init__(self, num_features: int, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        residual = config.wiring == "residual"
        self.embed = nn.Linear(num_features, width) if residual else nn.Identity()
        first = width if residual else num_features
        skipped = num_features if config.input_skips else 0
        cell = nn.LSTM if config.cell == "lstm" else nn.GRU
        layers = [cell((first if level == 0 else width) + (skipped if level > 0 else 0), width) for level in range(config.num_layers)]
        self.layers = nn.ModuleList(layers)
        self.norms = nn.ModuleList(nn.LayerNorm(width) if residual else nn.Identity() for _ in range(config.num_layers + 1))
        self.dropout = nn.Dropout(config.dropout)
        for level, layer in enumerate(layers):
            _initialise(layer, memory=2.0 ** (3 + 2 * level))

    def forward(self, features_TBF: Tensor, h_LBD: Tensor, c_LBD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Read T ticks.

        Args:
            features_TBF: inputs of every tick.
            h_LBD: hidden state of every layer before the first tick.
            c_LBD: cell state likewise; of zero width for GRU.

        Returns:
            The top layer's output at every tick (T, B, D) and the states after the last.
        """
        stream = self.embed(features_TBF)
        hidden, cell = [], []
        for level, layer in enumerate(self.layers):
            inputs = self.norms[level](stream)
            if self.config.input_skips and level > 0:
                inputs = torch.cat([inputs, features_TBF], dim=-1)
            output, h_1BD, c_1BD = _run(layer, inputs, h_LBD[level : level + 1], c_LBD[level : level + 1])
            hidden.append(h_1BD)
            cell.append(c_1BD)
            stream = self._join(stream, output, level)
        top_TBD: Tensor = self.norms[-1](stream)
        return top_TBD, torch.cat(hidden), torch.cat(cell)

    def _join(self, stream: Tensor, output: Tensor, level: int) -> Tensor:
        if self.config.wiring == "residual":
            branch: Tensor = self.dropout(output)
            return stream + branch
        if level == self.config.num_layers - 1:
            return output
        dropped: Tensor = self.dropout(output)
        return dropped

    def initial_state(self, num_series: int) -> tuple[Tensor, Tensor]:
        """Return zero states (L, B, D) in the weights' dtype and device; the cell state of GRU layers has zero width."""
        weight = next(self.layers.parameters())
        shape = (self.config.num_layers, num_series, self.config.hidden_size)
        cell_width = self.config.hidden_size if self.config.cell == "lstm" else 0
        return weight.new_zeros(shape), weight.new_zeros((*shape[:2], cell_width))


def _run(layer: nn.Module, inputs: Tensor, h_1BD: Tensor, c_1BD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if isinstance(layer, nn.LSTM):
        output, (h_1BD, c_1BD) = layer(inputs, (h_1BD.contiguous(), c_1BD.contiguous()))
        return output, h_1BD, c_1BD
    output, h_1BD = layer(inputs, h_1BD.contiguous())
    return output, h_1BD, c_1BD


def _initialise(layer: nn.LSTM | nn.GRU, memory: float) -> None:
    """Give a layer orthogonal recurrences and a time scale of its own.

    PyTorch's default forget gate of about 0.5 remembers two steps; chrono initialisation draws the forget bias from
    log U(1, T_max - 1) and sets the input bias to its negative. Source: Tallec and Ollivier 2018, equation 16.
    """
    width = layer.hidden_size
    for name, parameter in layer.named_parameters():
        if name.startswith("weight_hh"):
            for gate in torch.split(parameter.data, width):
                nn.init.orthogonal_(gate)
        elif name.startswith("weight_ih"):
            nn.init.uniform_(parameter, -1 / math.sqrt(width), 1 / math.sqrt(width))
        else:
            nn.init.zeros_(parameter)
    if isinstance(layer, nn.LSTM):  # gates in PyTorch's order: input, forget, cell, output
        forget = torch.empty(width).uniform_(1.0, memory - 1.0).log_()
        bias = dict(layer.named_parameters())["bias_hh_l0"].data
        bias[width : 2 * width] = forget
        bias[:width] = -forget
