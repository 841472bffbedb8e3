"""The textbook recurrent networks over closed windows: every reading of a window exists when the window is read.

Here live the models that a reader of the LSTM literature expects to find and compare, and the two uses to which a layer
that reads backwards in time can honestly be put. Called by users, by `models.gap_filling`, by
`pipeline.offline.fill` and by `benchmarks`.

| textbook model | here |
|---|---|
| single-layer LSTM with a feedforward output | `WindowForecaster(RecurrentLayers(1, 64), horizon=24)` |
| stacked LSTM | `WindowForecaster(RecurrentLayers(1, 64, num_layers=3), horizon=24)` |
| stacked GRU | `WindowForecaster(RecurrentLayers(1, 64, num_layers=3, cell="gru"), horizon=24)` |
| sequence to label | `SequenceClassifier(RecurrentLayers(1, 32), num_classes=2)` |
| the same, read both ways | `SequenceClassifier(RecurrentLayers(1, 32, bidirectional=True), num_classes=2)` |
| filling gaps, read both ways | `models.gap_filling.GapFiller` |

Letters: T ticks of a window, B windows, F features, D hidden, E = D or, read both ways, 2 D, H horizon, C classes.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from models.config import BIDIRECTIONAL_REFUSED


class RecurrentLayers(nn.Module):
    """A plain stack of recurrent layers: the hidden state of layer l-1 at tick t is the input of layer l at tick t.

    Every lower layer hands its full sequence up. Read both ways, the input of a layer is what both directions of the
    layer below say of the tick (Schuster and Paliwal 1997, "Bidirectional Recurrent Neural Networks").

    >>> layers = RecurrentLayers(3, 8, num_layers=2, bidirectional=True)
    >>> layers(torch.zeros(5, 4, 3)).shape
    torch.Size([5, 4, 16])
    """

    def __init__(
        self,
        num_features: int,
        hidden_size: int,
        *,
        num_layers: int = 1,
        cell: Literal["lstm", "gru"] = "lstm",
        bidirectional: bool = False,
    ) -> None:
        """Build the stack.

        Args:
            num_features: of each tick.
            hidden_size: width of every layer and direction.
            num_layers: depth.
            cell: recurrent cell of every layer.
            bidirectional: read backwards in time too.

        Raises:
            ValueError: when there is no layer, or the cell is unknown.
        """
        super().__init__()
        if num_layers < 1 or hidden_size < 1 or cell not in ("lstm", "gru"):
            raise ValueError(
                "Recurrent layers require num_layers >= 1, hidden_size >= 1 and cell lstm|gru; "
                f"got {num_layers}, {hidden_size} and {cell!r}. Choose others."
            )
        self.hidden_size, self.bidirectional = hidden_size, bidirectional
        self.output_size = 2 * hidden_size if bidirectional else hidden_size
        kind = nn.LSTM if cell == "lstm" else nn.GRU
        widths = [num_features, *[self.output_size] * (num_layers - 1)]
        self.layers = nn.ModuleList(kind(width, hidden_size, bidirectional=bidirectional) for width in widths)

    def forward(self, inputs_TBF: Tensor) -> Tensor:
        """Return the top layer's output at every tick (T, B, E), from zero states."""
        stream_TBE = inputs_TBF
        for layer in self.layers:
            stream_TBE, _ = layer(stream_TBE)
        return stream_TBE

    def summary(self, inputs_TBF: Tensor) -> Tensor:
        """Return what each direction says when it has read the whole window (B, E): the last tick forwards, the first backwards."""
        top_TBE: Tensor = self(inputs_TBF)
        if not self.bidirectional:
            return top_TBE[-1]
        return torch.cat([top_TBE[-1, :, : self.hidden_size], top_TBE[0, :, self.hidden_size :]], dim=-1)


class WindowForecaster(nn.Module):
    """The textbook forecaster: a window in, the next H values out of one feedforward layer on the last hidden state.

    It carries no state and normalises nothing: give it windows in comparable units. What `tidecast` serves is
    `models.forecaster.CausalForecaster`; this is what that is compared with.

    >>> WindowForecaster(RecurrentLayers(1, 8), horizon=24)(torch.zeros(96, 4, 1)).shape
    torch.Size([4, 24])
    """

    def __init__(self, layers: RecurrentLayers, horizon: int) -> None:
        """Put an output of `horizon` values on the layers.

        Raises:
            ValueError: when the layers read backwards in time.
        """
        super().__init__()
        if layers.bidirectional:
            raise ValueError(BIDIRECTIONAL_REFUSED)
        self.layers = layers
        self.output = nn.Linear(layers.output_size, horizon)

    def forward(self, window_TBF: Tensor) -> Tensor:
        """Return the H values after each window (B, H)."""
        ahead_BH: Tensor = self.output(self.layers.summary(window_TBF))
        return ahead_BH


class SequenceClassifier(nn.Module):
    """Labels closed windows of readings: the state of a device, the kind of a fault.

    >>> classifier = SequenceClassifier(RecurrentLayers(2, 8, bidirectional=True), num_classes=3)
    >>> classifier(torch.zeros(96, 4, 2)).shape
    torch.Size([4, 3])
    """

    def __init__(self, layers: RecurrentLayers, num_classes: int) -> None:
        super().__init__()
        self.layers = layers
        self.output = nn.Linear(layers.output_size, num_classes)

    def forward(self, window_TBF: Tensor) -> Tensor:
        """Return the logits of each window's classes (B, C)."""
        logits_BC: Tensor = self.output(self.layers.summary(window_TBF))
        return logits_BC


def minimise(
    module: nn.Module,
    draw_loss: Callable[[], Tensor],
    *,
    num_steps: int,
    learning_rate: float = 2e-3,
    validate: Callable[[], float] | None = None,
    validate_every: int = 50,
) -> float:
    """Train a module in place: AdamW, gradients clipped to norm 1, the learning rate rising for a twentieth of the steps, then falling.

    Args:
        module: what is trained; left in evaluation mode.
        draw_loss: returns the loss of a fresh batch, a scalar with gradients.
        num_steps: batches.
        learning_rate: at its highest.
        validate: returns the loss on data that is not trained on; the weights with the lowest one, those given included, are kept.
        validate_every: steps between two validations.

    Returns:
        The lowest validation loss; the last training loss where nothing validates.
    """
    optimiser = torch.optim.AdamW(module.parameters(), lr=learning_rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=num_steps + 1, pct_start=0.05)
    best, best_weights = _validated(module, validate), _weights(module)
    last = best
    for step in range(1, num_steps + 1):
        last = _descended(module, draw_loss, optimiser)
        schedule.step()
        if validate is not None and (step % validate_every == 0 or step == num_steps):
            score = _validated(module, validate)
            if score < best:
                best, best_weights = score, _weights(module)
    if validate is not None:
        module.load_state_dict(best_weights)
    module.eval()
    return last if validate is None else best


def _descended(module: nn.Module, draw_loss: Callable[[], Tensor], optimiser: torch.optim.Optimizer) -> float:
    """Take one step down the loss of a fresh batch; return that loss."""
    module.train()
    optimiser.zero_grad()
    loss = draw_loss()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    optimiser.step()
    return float(loss.detach())


def _validated(module: nn.Module, validate: Callable[[], float] | None) -> float:
    if validate is None:
        return float("inf")
    module.eval()
    with torch.no_grad():
        return validate()


def _weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
