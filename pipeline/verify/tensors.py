"""The laws that need tensors alone, asked in the same way of a forecaster of ours and of anybody's module.

Called by `pipeline.verify.forecaster` and `pipeline.verify.module`, which say how each is asked.
"""

from typing import Protocol

from torch import Tensor

from models.causality import Finding, Forecast, batch_independence, future_perturbation, gradient, outputs, prefix, worse

NUM_SERIES, BATCHES = 9, (1, 2, 7)  # so that a last batch is smaller than the others


class Subject(Protocol):
    """What can be asked: by a copy in float64, with the same random numbers at each call, and nothing kept between calls."""

    def inputs(self) -> Tensor:
        """Return made-up readings of `NUM_SERIES` series, (B, T) or (B, T, columns)."""

    def forecast(self, *, training: bool = False) -> Forecast:
        """Return the forecaster as a function, served or as it is while training."""

    def stream(self, inputs_BT: Tensor) -> Finding:
        """Ask law 4."""


def findings_of_tensors(subject: Subject) -> list[Finding]:
    """Ask the laws 1 to 4 and 7.

    Raises:
        ValueError: when there is not one forecast for every tick.
    """
    inputs_BT, served, in_training = subject.inputs(), subject.forecast(), subject.forecast(training=True)
    outputs(served, inputs_BT)  # of the form that is required, or nothing below means anything
    num_ticks = inputs_BT.shape[1]
    origins = (num_ticks // 4, num_ticks // 2, num_ticks - 2)
    return [
        worse(future_perturbation(served, inputs_BT, origins), future_perturbation(in_training, inputs_BT, origins)),
        worse(gradient(served, inputs_BT, origins), gradient(in_training, inputs_BT, origins)),
        prefix(served, inputs_BT, origins),
        subject.stream(inputs_BT),
        batch_independence(served, inputs_BT, BATCHES),
    ]
