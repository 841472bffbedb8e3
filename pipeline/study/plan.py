"""What a study of depth will do, decided once and kept in its folder: cells, epochs and borders.

Called by `pipeline.study.depth`. Two epochs of every cell are timed, and all trainings get as many as the time then allows: so all may
see as many training origins, whatever an epoch of theirs costs. A training that ends earlier does so by the same rule in every cell.
"""

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Self

from pipeline.errors import SettingsError
from pipeline.prepare.splits import check_borders
from pipeline.settings import TrainSettings
from pipeline.study.cells import DEPTHS, REFERENCE_DEPTH, Cell, matched_cells
from pipeline.study.held_out import held_out
from pipeline.study.inputs import StudyInputs
from pipeline.study.knobs import with_knobs
from pipeline.study.workers import run_jobs
from pipeline.train.fit import fit, forecaster_config

PROBE_EPOCHS = 2
PLANNED_SHARE = 0.8  # of the time; the rest is for ranges that must be widened, the layers' memory and the comparison
LEAST_EPOCHS = 5
NO_LIMIT_S = 1e9  # a training that the clock cuts short has seen fewer origins than the others


@dataclass(frozen=True, kw_only=True)
class DepthRequest:
    """What a study of depth is asked to do.

    Attributes:
        series: glob patterns; None for every series.
        train_end, validation_end: borders; None: by the settings' fractions. What comes after is for the comparison alone.
        trials: of each cell.
        seeds: of each cell's finalist.
        minutes: for the whole; decides the epochs.
        epochs: that every training may have; None: as many as the minutes allow.
        workers: processes that train side by side.
        depths: to compare; 2, which the others are compared with, among them.
    """

    series: tuple[str, ...] | None = None
    train_end: datetime | None = None
    validation_end: datetime | None = None
    trials: int = 5
    seeds: int = 4
    minutes: float = 28.0
    epochs: int | None = None
    workers: int = 2
    depths: tuple[int, ...] = DEPTHS

    def __post_init__(self) -> None:
        """Refuse what cannot be compared, and borders that are naive or not in order.

        Raises:
            SettingsError: where there is nothing to compare with, and for a naive border.
            DataError: when the borders are not in order.
        """
        check_borders("A study of depth", self.train_end, self.validation_end)
        if REFERENCE_DEPTH not in self.depths or not set(self.depths) <= set(DEPTHS):
            raise SettingsError(f"A study of depth requires depths of {DEPTHS} with {REFERENCE_DEPTH} among them; got {self.depths}.")


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """What is the same for all cells, and the cells.

    Attributes:
        cells: every depth and wiring.
        epochs: that every training may have.
        seconds: of one epoch of each cell, as it was when the plan was made.
        train_end, validation_end, data_end: borders of the periods.
    """

    cells: tuple[Cell, ...]
    epochs: int
    seconds: tuple[float, ...]
    train_end: datetime
    validation_end: datetime
    data_end: datetime

    def duration(self, cells: Iterable[int], trainings: int, workers: int) -> timedelta:
        """Return how long some of the cells, by index, take at most for so many trainings each."""
        return timedelta(seconds=sum(self.seconds[cell] for cell in cells) * trainings * self.epochs / workers)

    def save(self, path: Path) -> None:
        """Write the plan as JSON, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        half_done = path.with_suffix(".part")
        half_done.write_text(json.dumps(asdict(self), indent=2, default=datetime.isoformat), encoding="utf-8")
        half_done.rename(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        borders = {name: datetime.fromisoformat(stored[name]) for name in ("train_end", "validation_end", "data_end")}
        cells = tuple(Cell(**cell) for cell in stored["cells"])
        return cls(**{**stored, **borders, "cells": cells, "seconds": tuple(stored["seconds"])})


def make_plan(inputs: StudyInputs, settings: TrainSettings, request: DepthRequest) -> StudyPlan:
    """Match the cells' widths, time two epochs of each, and divide the time.

    Raises:
        DataError: when there is nothing to compare on.
        SettingsError: when the time is too short for `LEAST_EPOCHS`.
    """
    config = forecaster_config(settings, inputs.panel.interval, inputs.panel.covariates)
    held_out(inputs.panel, inputs.split, config.horizon, len(config.quantile_levels))  # better refused now than after half an hour
    cells = matched_cells(config, request.depths)
    timed = dict(run_jobs(partial(_time_epochs, inputs, settings), cells, request.workers))
    seconds = tuple(timed[cell] for cell in cells)
    round_s = sum(seconds) * (request.trials + request.seeds) / request.workers
    epochs = request.epochs or int(request.minutes * 60 * PLANNED_SHARE / round_s)
    if epochs < LEAST_EPOCHS and request.epochs is None:
        needed = LEAST_EPOCHS * round_s / 60 / PLANNED_SHARE
        raise SettingsError(
            f"tidecast study depth requires time for {LEAST_EPOCHS} epochs of {len(cells) * (request.trials + request.seeds)} trainings, "
            f"{needed:.0f} minutes here; got {request.minutes:g}. Raise --minutes, or lower --trials, --seeds or the series."
        )
    return StudyPlan(
        cells=tuple(cells),
        epochs=epochs,
        seconds=seconds,
        train_end=inputs.split.train_end,
        validation_end=inputs.split.validation_end,
        data_end=inputs.panel.end,
    )


def cell_settings(settings: TrainSettings, cell: Cell, epochs: int) -> TrainSettings:
    """Return the settings of a cell: its architecture, and no limit but so many epochs, all of which train the stack.

    Fitting the highway first would spend them on what has no depth.
    """
    return with_knobs(settings, {**cell.knobs, "max_epochs": epochs, "max_seconds": NO_LIMIT_S, "highway_first": False})


def _time_epochs(inputs: StudyInputs, settings: TrainSettings, cell: Cell) -> tuple[Cell, float]:
    """Return a cell and the seconds that one of its epochs takes."""
    brief, panel = cell_settings(settings, cell, PROBE_EPOCHS), inputs.panel
    started = time.perf_counter()
    fit(panel, inputs.split, forecaster_config(brief, panel.interval, panel.covariates), brief)
    return cell, (time.perf_counter() - started) / PROBE_EPOCHS
