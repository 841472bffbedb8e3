"""The snapshots of a state folder: the newest one of each model, and a ladder of older ones for late readings.

Called by `pipeline.forecast.rolling` and `pipeline.forecast.ladder`. A snapshot is on disk before the catalog points to it: a crash in
between leaves the previous one in force.
"""

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np

from pipeline.errors import StoreError
from pipeline.forecast.leadership import Leadership
from pipeline.forecast.state import UNTOUCHED, Rung, StreamState
from pipeline.store.snapshot_pointers import SnapshotPointer, SnapshotPointers

logger = logging.getLogger(__name__)

NEWEST = 2  # kept whatever their age: the one in force, and the one that a reader may just be loading
# In event time. The first snapshot of the current and of the previous period is kept: one is then always between one and two periods old,
# and there are eight files at the most.
PERIODS = (timedelta(hours=1), timedelta(days=1), timedelta(days=7))


@dataclass(frozen=True)
class Snapshots:
    """The folder of a lake's snapshots.

    Attributes:
        state_dir: the state folder, which holds them and the catalog.
    """

    state_dir: Path

    def newest(self, model: str) -> StreamState | None:
        """Return the state that the catalog points to; None where there is none, or it is damaged.

        Args:
            model: `LoadedModel.identity`.
        """
        pointer = SnapshotPointers(self.state_dir).of(model)
        if pointer is None:
            return None
        try:
            return StreamState.resume(self._folder / pointer.name)
        except StoreError as error:
            logger.warning("rebuilding the state of every series: %s", error)
            return None

    def read(self, rung: Rung) -> StreamState | None:
        """Return an older state; None where it is gone or damaged."""
        try:
            return StreamState.resume(self._folder / rung.name)
        except StoreError as error:
            logger.warning("left out an older snapshot: %s", error)
            return None

    def save(self, state: StreamState, interval: timedelta, leadership: Leadership | None) -> StreamState:
        """Write a snapshot, point to it, and delete the older ones that the ladder does not need.

        Args:
            state: the state, with the versions that it has read.
            interval: spacing of its ticks.
            leadership: this process's lease; None where no other process writes.

        Returns:
            The state with its new snapshot on its ladder.

        Raises:
            LeaseLostError: when another process has taken over: the pointer stays where it is.
            StoreError: when the catalog cannot be written.
        """
        version = state.observations_version
        if version is None:  # nothing was read
            return state
        name = f"model-{state.model_version}-observations-{version}.safetensors"
        state = _with_rung(state, Rung(name, int(state.tick_B.max(initial=0))), interval)
        state.snapshot(self._folder / name)
        with leadership.held() if leadership is not None else nullcontext():
            SnapshotPointers(self.state_dir).set(SnapshotPointer(state.model_version, name, version))
            kept = {rung.name for rung in state.rungs}
            for file in self._folder.glob(f"model-{state.model_version}-observations-*"):
                if file.name not in kept:  # half-written ones too
                    file.unlink(missing_ok=True)
        return state

    @property
    def _folder(self) -> Path:
        return SnapshotPointers(self.state_dir).folder


def _with_rung(state: StreamState, rung: Rung, interval: timedelta) -> StreamState:
    """Put a rung of the state itself on its ladder, and take off the rungs that are not needed any more."""
    before = [(old, row) for old, row in zip(state.rungs, state.changed_RB, strict=True) if old.name != rung.name]
    untouched_B = np.full(len(state.series_ids), UNTOUCHED)
    ladder = [*before, (rung, untouched_B)]
    kept = thinned([old for old, _ in ladder], interval)
    rows = [row for old, row in ladder if old in kept]
    return replace(state, rungs=tuple(old for old, _ in ladder if old in kept), changed_RB=np.stack(rows))


def thinned(rungs: Sequence[Rung], interval: timedelta) -> set[Rung]:
    """Return which snapshots to keep: the newest, and for each period the first of this period and of the one before.

    Args:
        rungs: oldest first.
        interval: spacing of their ticks.
    """
    kept = set(rungs[-NEWEST:])
    for period in PERIODS:
        first: dict[int, Rung] = {}
        for rung in rungs:
            first.setdefault(rung.frontier * interval // period, rung)
        kept |= {first[number] for number in sorted(first)[-2:]}
    return kept
