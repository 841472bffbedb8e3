"""The time budget, early stopping and the best weights, alike for every peer that a Lightning trainer trains.

The libraries import two distributions of one code, `lightning` and `pytorch_lightning`, whose callbacks are different classes:
`watched` makes a watch of either. Time is CPU time, which on one thread and an idle machine is wall-clock time, and which other
work on the machine does not shorten.
"""

import copy
import math
import time
from collections.abc import Mapping
from typing import Protocol, cast

PATIENCE = 10  # validations without a better one


class Trainer(Protocol):
    """What is used of a Lightning trainer."""

    global_step: int
    should_stop: bool
    sanity_checking: bool
    callback_metrics: Mapping[str, float]


class Module(Protocol):
    """What is used of a Lightning module; `step_size` is neuralforecast's spacing of windows."""

    step_size: int

    def state_dict(self) -> dict[str, object]:
        """Return the weights."""

    def load_state_dict(self, weights: dict[str, object]) -> object:
        """Put weights back."""


class TrainingWatch:
    """Stops a trainer when its CPU time is up or its validation loss stops falling, and puts the best weights back.

    Attributes:
        steps: optimiser steps taken.
        cut_off: whether the time ran out before anything else ended the training.
        how: how training ended, in words.
    """

    def __init__(self, seconds: float, monitor: str, max_steps: int, validation_stride: int | None = None) -> None:
        self.seconds, self.monitor, self.max_steps, self.validation_stride = seconds, monitor, max_steps, validation_stride
        self.started = time.process_time()
        self.steps, self.cut_off, self.how = 0, False, "finished"
        self._best, self._best_step, self._since_best = math.inf, 0, 0
        self._weights: dict[str, object] | None = None

    def __deepcopy__(self, memo: dict[int, object]) -> "TrainingWatch":
        """Stay one: libraries copy the models they are given, and with them their callbacks."""
        return self

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        """Stop when the time is up."""
        self.steps = trainer.global_step
        if time.process_time() - self.started >= self.seconds:
            self.cut_off, trainer.should_stop = True, True

    def on_validation_start(self, _: Trainer, module: Module) -> None:
        """Thin out the validation windows of a library whose own option would thin out the training too."""
        if self.validation_stride is not None:
            module.step_size = self.validation_stride

    def on_validation_end(self, trainer: Trainer, module: Module) -> None:
        """Keep the weights if they are the best so far; stop when they have not been for long."""
        if self.validation_stride is not None:
            module.step_size = 1
        if trainer.sanity_checking:
            return
        loss = float(trainer.callback_metrics[self.monitor])
        self._since_best += 1
        if loss < self._best:
            self._best, self._best_step, self._since_best = loss, trainer.global_step, 0
            self._weights = copy.deepcopy(module.state_dict())
        if self._since_best >= PATIENCE:
            trainer.should_stop = True

    def on_train_end(self, _: Trainer, module: Module) -> None:
        """Put the best weights back and say how it ended."""
        if self._weights is not None:
            module.load_state_dict(self._weights)
        taken = f"{self.steps} of at most {self.max_steps} steps"
        kept = f"weights of step {self._best_step}" if self._weights is not None else "last weights, never validated"
        if self.cut_off:
            self.how = f"stopped at {self.seconds:g} s after {taken}; {kept}"
        elif self._since_best >= PATIENCE:
            self.how = f"early stopping after {taken}; {kept}"
        else:
            self.how = f"finished {taken}; {kept}"


def watched(callback: type, seconds: float, *, monitor: str, max_steps: int, validation_stride: int | None = None) -> TrainingWatch:
    """Return a watch that is also a callback of the given distribution of Lightning.

    Args:
        callback: its `Callback` class.
        seconds: CPU seconds that training may take, counted from now.
        monitor: name of the validation loss.
        max_steps: the most optimiser steps, for the record.
        validation_stride: ticks between validation windows, for neuralforecast.
    """
    return cast(TrainingWatch, type("Watch", (TrainingWatch, callback), {})(seconds, monitor, max_steps, validation_stride))
