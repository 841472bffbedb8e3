"""Late readings: a series whose past has changed goes back to the newest snapshot that has not read it, and is replayed from there.

A state is never patched: h and c depend on every value before them. What calibration remembers is in the snapshot too. Called by
`pipeline.forecast.rolling`.
"""

import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from models.forecaster import CausalForecaster
from pipeline.forecast.snapshots import Snapshots
from pipeline.forecast.state import Rung, StreamState

logger = logging.getLogger(__name__)

Ints = NDArray[np.int64]


def rewind(
    state: StreamState,
    changed_from: Mapping[str, int],
    first_ticks: Callable[[Sequence[str]], Mapping[str, int]],
    forecaster: CausalForecaster,
    snapshots: Snapshots,
) -> None:
    """Take series back, in place, to before what has changed of them: to a snapshot, or to before their first tick.

    Args:
        state: the fleet's state; it remembers the changes for as long as its ladder has snapshots from before them.
        changed_from: the earliest tick that has changed, for each series concerned.
        first_ticks: returns the first tick of each of the given series that was observed.
        forecaster: makes fresh states.
        snapshots: where the snapshots of the ladder are.
    """
    slots = state.slots()
    slots_B = np.array(sorted(slots[series] for series in changed_from if series in slots), dtype=np.int64)
    changed_B = np.array([changed_from[state.series_ids[slot]] for slot in slots_B], dtype=np.int64)
    state.changed_RB[:, slots_B] = np.minimum(state.changed_RB[:, slots_B], changed_B)
    for row in reversed(range(len(state.rungs))):
        if len(slots_B) == 0:
            return
        slots_B = _taken_back(state, slots_B, row, snapshots)
    firsts = first_ticks([state.series_ids[slot] for slot in slots_B])
    begin = {slots[series]: tick for series, tick in firsts.items()}
    restart(state, np.array(list(begin), dtype=np.int64), np.array(list(begin.values()), dtype=np.int64), forecaster)


def restart(state: StreamState, slots_B: Ints, first_tick_B: Ints, forecaster: CausalForecaster) -> None:
    """Make the state of some series fresh, in place, just before their first tick."""
    if len(slots_B) == 0:
        return
    names = [state.series_ids[slot] for slot in slots_B]
    empty = StreamState.empty(state.model_version, forecaster, calibrate=state.calibration is not None)
    state.put(slots_B, empty.with_series(names, first_tick_B - 1, forecaster))


def _taken_back(state: StreamState, slots_B: Ints, row: int, snapshots: Snapshots) -> Ints:
    """Take back to a rung the series of which it holds a good state; return the others."""
    rung: Rung = state.rungs[row]
    older = snapshots.read(rung)
    if older is None or (older.calibration is None) != (state.calibration is None):
        return slots_B
    found = older.slots()
    there_B = np.array([found.get(state.series_ids[slot], -1) for slot in slots_B], dtype=np.int64)
    tick_B = np.where(there_B >= 0, older.tick_B[there_B] if len(older.tick_B) else 0, 0)
    is_good_B = (there_B >= 0) & (tick_B < state.changed_RB[row, slots_B])
    if is_good_B.any():
        state.put(slots_B[is_good_B], older.select(there_B[is_good_B]))
        logger.info("took series back num_series=%d snapshot=%s", int(is_good_B.sum()), rung.name)
    left_B: Ints = slots_B[~is_good_B]
    return left_B
