"""Late readings: a replay from a snapshot is a replay from the first tick, whatever was revised when."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.forecast.engine import StreamEngine
from pipeline.forecast.ladder import rewind
from pipeline.forecast.snapshots import PERIODS, Snapshots, thinned
from pipeline.forecast.state import WHOLLY, Rung, StreamState
from tests.lakes import HOUR, START, random_weights

FORECASTER = random_weights()
SERIES = ("a", "b", "c")
FIRST = int(START.timestamp()) // 3600
Step = tuple[int, dict[int, int]]  # ticks to go on, and how far behind the front each series is then revised


def first_ticks(series: Sequence[str]) -> dict[str, int]:
    return dict.fromkeys(series, FIRST)


def read_on(state: StreamState, values_TB: NDArray[np.float64], stop: int) -> None:
    """Advance every series to row `stop`, each from where it is."""
    for slot in range(len(SERIES)):
        rows = np.arange(int(state.tick_B[slot]) + 1 - FIRST, stop)
        if len(rows):
            slots_B = np.array([slot])
            part = state.select(slots_B)
            engine = StreamEngine(FORECASTER, part.carried, part.calibration)
            list(engine.advance(values_TB[rows][:, slots_B], 3600 * (FIRST + rows)[:, None]))
            part.tick_B[:] = FIRST + stop - 1
            state.put(slots_B, part)


def from_the_first_tick(values_TB: NDArray[np.float64], stop: int) -> StreamState:
    empty = StreamState.empty("1-abc", FORECASTER, calibrate=True)
    state = empty.with_series(list(SERIES), np.full(len(SERIES), FIRST - 1), FORECASTER)
    read_on(state, values_TB, stop)
    return state


def assert_same_state(left: StreamState, right: StreamState) -> None:
    """In float64 the two differ by the order of sums in products of matrices of other shapes, and by nothing else."""
    assert left.tick_B.tolist() == right.tick_B.tolist()
    assert left.calibration is not None
    assert right.calibration is not None
    ours = {**vars(left.carried), **left.calibration.arrays()}
    theirs = {**vars(right.carried), **right.calibration.arrays()}
    for name, array in ours.items():
        np.testing.assert_allclose(np.asarray(array), np.asarray(theirs[name]), rtol=1e-9, atol=1e-12, err_msg=name)


steps = st.lists(st.tuples(st.integers(1, 40), st.dictionaries(st.integers(0, 2), st.integers(0, 60), max_size=2)), min_size=1, max_size=6)


@given(steps)
@settings(max_examples=12, deadline=None)
def test_a_replay_from_the_ladder_equals_a_replay_from_the_first_tick(steps: list[Step]) -> None:
    """Shown to fail by `<=` in `_taken_back`, and by a ladder that forgets calibration."""
    rng = np.random.default_rng(len(steps))
    values_TB = rng.normal(size=(1 + sum(step for step, _ in steps), 3)).cumsum(0)
    with TemporaryDirectory() as folder:
        snapshots, stop = Snapshots(Path(folder)), 1
        state = from_the_first_tick(values_TB, stop)
        for version, (num_ticks, revised) in enumerate(steps):
            state.observations_version = version
            state = snapshots.save(state, HOUR, None)
            stop += num_ticks
            read_on(state, values_TB, stop)
            changed = {SERIES[slot]: FIRST + max(0, stop - 1 - back) for slot, back in revised.items()}
            for slot, back in revised.items():
                values_TB[max(0, stop - 1 - back), slot] += 1.0
            rewind(state, changed, first_ticks, FORECASTER, snapshots)
            read_on(state, values_TB, stop)
            assert_same_state(state, from_the_first_tick(values_TB, stop))


def test_a_late_reading_goes_back_no_further_than_the_newest_snapshot_before_it(tmp_path: Path) -> None:
    """Shown to fail by a `rewind` that forgets earlier changes."""
    values_TB, snapshots = np.random.default_rng(1).normal(size=(100, 3)), Snapshots(tmp_path)
    state = from_the_first_tick(values_TB, 50)
    for version, stop in enumerate((50, 60, 70)):
        read_on(state, values_TB, stop)
        state.observations_version = version
        state = snapshots.save(state, HOUR, None)
    rewind(state, {"a": FIRST + 65, "b": FIRST + 59, "c": WHOLLY}, first_ticks, FORECASTER, snapshots)
    assert (state.tick_B - FIRST).tolist() == [59, 49, -1]
    read_on(state, values_TB, 80)
    rewind(state, {"a": FIRST + 75}, first_ticks, FORECASTER, snapshots)  # the snapshot of 70 has the old value of tick 65
    assert (state.tick_B - FIRST).tolist() == [59, 79, 79]


def test_a_lost_snapshot_costs_time_alone(tmp_path: Path) -> None:
    values_TB, snapshots = np.random.default_rng(1).normal(size=(100, 3)), Snapshots(tmp_path)
    state = from_the_first_tick(values_TB, 50)
    state.observations_version = 1
    state = snapshots.save(state, HOUR, None)
    (tmp_path / "snapshots" / state.rungs[0].name).unlink()
    rewind(state, {"b": FIRST + 60}, first_ticks, FORECASTER, snapshots)
    assert (state.tick_B - FIRST).tolist() == [49, -1, 49]


def test_the_ladder_is_short_and_always_has_a_snapshot_of_each_age() -> None:
    rungs: list[Rung] = []
    minute = timedelta(minutes=1)
    for tick in range(0, 30 * 24 * 60, 7):
        rungs.append(Rung(f"at-{tick}", tick))
        kept = thinned(rungs, minute)
        rungs = [rung for rung in rungs if rung in kept]
        ages = [(tick - rung.frontier) * minute for rung in rungs]
        begun = [period for period in PERIODS if tick * minute >= 2 * period]
        assert all(any(period - 7 * minute <= age <= 2 * period for age in ages) for period in begun)
        assert len(rungs) <= 8
