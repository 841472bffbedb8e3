"""The finalists: the best settings of each cell, trained anew with seeds that no choice has seen, and what they lose on held-out origins.

Called by `pipeline.study.depth`. Each training leaves a file in the study's folder, so that a study that was killed goes on after it.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.study.held_out import held_out, origin_losses
from pipeline.study.knobs import Value, with_knobs
from pipeline.study.memory import LayerMemory, layer_memory
from pipeline.study.search import Search, best_validation
from pipeline.tracking.provenance import fingerprint
from pipeline.train.fit import fit, forecaster_config

Floats = NDArray[np.float64]
LAST_PART = 5  # the curve is flat where its last fifth brought less than FLAT
FLAT = 0.01


@dataclass(frozen=True)
class Final:
    """One training of a cell's best settings.

    Attributes:
        cell: which search's.
        seed: of the training.
        knobs: the best of the search.
    """

    cell: int
    seed: int
    knobs: dict[str, Value]


@dataclass(frozen=True)
class FinalResult:
    """What came of one training.

    Attributes:
        losses_SO: CRPS at the held-out origins, in standard deviations of the training part.
        curves: a row for each epoch.
        memory: of each layer.
        seconds: that it took.
    """

    losses_SO: Floats
    curves: tuple[dict[str, float], ...]
    memory: LayerMemory
    seconds: float

    @property
    def crps(self) -> float:
        """The mean over all held-out origins."""
        return float(np.nanmean(self.losses_SO))

    @property
    def validation(self) -> float:
        """The best validation loss."""
        return best_validation(self.curves)

    @property
    def late_gain(self) -> float:
        """By what share the last fifth of the epochs bettered the validation loss: near 0, training had come to its end."""
        early = best_validation(self.curves[: len(self.curves) - max(1, len(self.curves) // LAST_PART)])
        return 1 - self.validation / early

    @property
    def clipped(self) -> float:
        """The share of steps whose gradient was clipped."""
        return float(np.mean([row["train/clipped"] for row in self.curves]))


def final_path(search: Search, final: Final) -> Path:
    """Return the file of one training; other knobs make another."""
    return search.folder / "finals" / f"{search.name}-{fingerprint(final.knobs)[:6]}-seed-{final.seed}.npz"


def run_final(searches: Sequence[Search], final: Final) -> Final:
    """Train a finalist, score it on the held-out origins and measure its layers' memory; do nothing where that was done."""
    search = searches[final.cell]
    path = final_path(search, final)
    if path.exists():
        return final
    started = time.perf_counter()
    settings = with_knobs(search.settings, {**final.knobs, "seed": final.seed})
    config = forecaster_config(settings, search.panel.interval, search.panel.covariates)
    result = fit(search.panel, search.split, config, settings)
    period = held_out(search.panel, search.split, config.horizon, len(config.quantile_levels))
    losses_SO = origin_losses(result.forecaster, search.panel, period)
    memory = layer_memory(result.forecaster, search.panel.truncated(search.split.validation_end))
    path.parent.mkdir(parents=True, exist_ok=True)
    half_done = path.with_suffix(".part.npz")
    seconds = time.perf_counter() - started
    np.savez(half_done, losses_SO=losses_SO, curves=json.dumps(result.curves), seconds=seconds, **memory._asdict())
    half_done.rename(path)
    return final


def load_final(search: Search, final: Final) -> FinalResult:
    """Read what `run_final` left."""
    with np.load(final_path(search, final), allow_pickle=False) as stored:
        memory = LayerMemory(*(stored[name] for name in LayerMemory._fields))
        return FinalResult(stored["losses_SO"], tuple(json.loads(str(stored["curves"]))), memory, float(stored["seconds"]))
