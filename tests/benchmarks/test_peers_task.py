"""What runs in the peers' environment reads no future, keeps to its budget, and says how its training ended."""

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.accuracy.task import load_ltsf
from benchmarks.peers.exchange import Budget, exchange_of
from benchmarks.peers.peer_task import PeerResult, PeerTask
from benchmarks.peers.training_watch import PATIENCE, TrainingWatch, watched
from tests.benchmarks.accuracy_tables import BORDERS, wide_file

HORIZON, STRIDE = 6, 5


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    exchange_of(load_ltsf(wide_file(tmp_path), HORIZON, borders=BORDERS), Budget(stride=STRIDE)).write(tmp_path / "exchange")
    return tmp_path / "exchange"


def test_the_folder_is_read_as_it_was_written(folder: Path) -> None:
    """Shown to fail by borders that count from 1."""
    task = PeerTask.read(folder)
    one = task.series[0]
    assert (one.num_train, one.num_validation, task.frequency, task.season) == (BORDERS[1], BORDERS[2], "h", 24)
    np.testing.assert_array_equal(one.origins, np.arange(BORDERS[2] - 1, BORDERS[3] - HORIZON, STRIDE))
    assert len(one.frame) == one.origins[-1] + 1


def test_filling_a_gap_reads_no_later_value(folder: Path) -> None:
    """Shown to fail by interpolating."""
    one = PeerTask.read(folder).series[0]
    changed = one.frame.copy()
    changed.iloc[106:] = 1e6
    pd.testing.assert_frame_equal(one.filled[:106], replace(one, frame=changed).filled[:106])  # row 105 is a gap
    assert one.filled.notna().all(axis=None)


def test_validation_windows_lie_in_the_validation_period(folder: Path) -> None:
    """Shown to fail by an origin one row later."""
    task = PeerTask.read(folder)
    origins = np.array([origin for _, origin in task.validation_windows(task.series)])
    assert origins.min() + 1 == BORDERS[1]
    assert origins.max() + HORIZON + 1 == BORDERS[2]


def test_a_short_series_is_lengthened_in_front_without_values(folder: Path) -> None:
    """Shown to fail by leaving its origins where they were."""
    task = PeerTask.read(folder)
    one = task.series[0]
    longer = one.extended(one.num_train + 10, task.offset)
    np.testing.assert_array_equal(longer.frame.index[longer.origins], one.frame.index[one.origins])
    assert (len(longer.frame) - len(one.frame), longer.num_train - one.num_train, longer.observed[:10].any()) == (10, 10, False)
    assert pd.infer_freq(longer.frame.index) == task.frequency


def test_rows_of_a_result_are_its_quantiles_in_order_of_time_and_level(folder: Path) -> None:
    """Shown to fail by leaving crossed quantiles as they are, and by times one step early."""
    task = PeerTask.read(folder)
    descending = np.linspace(9, 1, 9)
    shape = (task.series[0].origins.size, HORIZON, 9)
    result = PeerResult({one.name: np.broadcast_to(descending, shape) for one in task.series}, "none", {}, "", "", 0.0, 0.0, False, "")
    frame = result.to_frame(task)
    assert len(frame) == len(task.series) * shape[0] * HORIZON
    np.testing.assert_array_equal(frame.filter(like="q0.").iloc[0], np.arange(1, 10))
    steps = ((frame["ds"] - frame["cutoff"]) / pd.Timedelta(hours=1)).to_numpy()
    np.testing.assert_array_equal(steps, np.tile(np.arange(1, HORIZON + 1), len(frame) // HORIZON))


def test_the_spacing_of_validation_windows_is_coprime_to_the_season(folder: Path) -> None:
    """Shown to fail by the plain quotient, which is 6."""
    one = PeerTask.read(folder).series[0]
    task = replace(PeerTask.read(folder), series=(replace(one, num_validation=one.num_train + 3_000),))
    assert task.validation_stride == 7


@pytest.mark.parametrize(("frequency", "ticks", "periods"), [("h", 300, ["day"]), ("h", 400, ["day", "week"]), ("MS", 30, ["year"])])
def test_a_period_that_training_does_not_hold_twice_is_no_feature(folder: Path, frequency: str, ticks: int, periods: list[str]) -> None:
    """Shown to fail by all periods always: a time of year tells the weeks of one autumn apart, and no week of the winter is among them."""
    one = PeerTask.read(folder).series[0]
    task = replace(PeerTask.read(folder), frequency=frequency, series=(replace(one, num_train=ticks),))
    assert task.periods == periods
    assert list(task.calendar(one.frame.index)) == [f"{f}_{name}" for name in periods for f in ("sin", "cos")]
    assert replace(task, has_calendar=False).periods == []


@dataclass
class Network:
    """A module whose only weight is the number of the step it was last changed at; it is changed in place, as tensors are."""

    weights: dict[str, int] = field(default_factory=lambda: {"step": 0})
    step_size: int = 1

    def state_dict(self) -> dict[str, int]:  # noqa: D102 (Lightning's word)
        return self.weights

    def load_state_dict(self, weights: dict[str, int]) -> None:  # noqa: D102 (Lightning's word)
        self.weights.update(weights)


@dataclass
class Trainer:
    """A trainer that trains as Lightning's does as far as a watch sees: a step, a validation, and a look at `should_stop`."""

    losses: list[float]
    global_step: int = 0
    should_stop: bool = False
    sanity_checking: bool = False
    callback_metrics: dict[str, float] = field(default_factory=dict)

    def fit(self, module: Network, watch: TrainingWatch) -> None:
        """Take a step and validate for each loss, until it is told to stop."""
        for loss in self.losses:
            self.global_step += 1
            module.weights["step"] = self.global_step
            watch.on_train_batch_end(self, module)
            watch.on_validation_start(self, module)
            self.callback_metrics["val_loss"] = loss
            watch.on_validation_end(self, module)
            if self.should_stop:
                break
        watch.on_train_end(self, module)


def trained(losses: list[float], seconds: float = 1e9) -> tuple[Network, TrainingWatch]:
    module, watch = Network(), watched(object, seconds, monitor="val_loss", max_steps=len(losses))
    Trainer(losses).fit(module, watch)
    return module, watch


def test_the_best_weights_are_put_back() -> None:
    """Shown to fail by keeping a reference to the weights instead of a copy of the best."""
    module, watch = trained([3.0, 1.0, 2.0])
    assert (module.weights["step"], watch.cut_off, watch.how) == (2, False, "finished 3 of at most 3 steps; weights of step 2")


def test_training_stops_when_validation_gets_no_better() -> None:
    """Shown to fail by one step more of patience."""
    module, watch = trained([1.0, *[2.0] * 100])
    assert (module.weights["step"], watch.steps, watch.cut_off) == (1, 1 + PATIENCE, False)
    assert watch.how.startswith("early stopping after 11 of at most 101 steps")


def test_a_peer_that_runs_out_of_time_stops_and_says_so() -> None:
    """Shown to fail by reporting early stopping first."""
    module, watch = trained([2.0, 1.0], seconds=0.0)
    assert (module.weights["step"], watch.cut_off) == (1, True)
    assert watch.how == "stopped at 0 s after 1 of at most 2 steps; weights of step 1"


def test_a_watch_survives_the_copy_that_a_library_makes_of_its_model() -> None:
    """Shown to fail without `__deepcopy__`: the copy is told of the training, and the record stays empty."""
    watch = watched(object, 1.0, monitor="val_loss", max_steps=1)
    assert copy.deepcopy({"callbacks": [watch]})["callbacks"][0] is watch


def test_thinned_validation_windows_leave_training_windows_alone() -> None:
    """Shown to fail by not setting the step size back."""
    module, watch = Network(), watched(object, 1e9, monitor="val_loss", max_steps=1, validation_stride=7)
    watch.on_validation_start(Trainer([]), module)
    during = module.step_size
    watch.on_validation_end(Trainer([], sanity_checking=True), module)
    assert (during, module.step_size) == (7, 1)
