"""What `tidecast verify` finds: in modules of strangers, in our own forecaster when it is made to leak, and in the batches of training."""

import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.batch import Sequence
from models.forecaster import CausalForecaster
from pipeline.errors import ModelError
from pipeline.prepare.splits import Split
from pipeline.settings import TrainSettings
from pipeline.verify import short_training
from pipeline.verify.forecaster import findings_of_forecaster
from pipeline.verify.laws import LAWS
from pipeline.verify.made_up import made_up_panel
from pipeline.verify.module import ForeignModule, find_module, findings_of_module
from pipeline.verify.skill import Trial, judge
from pipeline.verify.training import split_gap_of_batches
from pipeline.verify.verify import verify
from tests import leaks
from tests.lakes import CONFIG, START, TestLake, random_weights

LEAKS = Path(leaks.__file__)
HOUR = timedelta(hours=1)
ENOUGH, NO_TIME = 60.0, 1e-3  # seconds: for every step of a short training, for one


def verdicts(name: str, max_seconds: float) -> dict[int, str]:
    """Return the verdict on each law for a module of tests/leaks.py."""
    return {finding.law: finding.verdict for finding in findings_of_module(find_module(f"{LEAKS}:{name}"), max_seconds=max_seconds)}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of the steps is enough for these modules."""
    monkeypatch.setattr(short_training, "NUM_STEPS", 100)


def test_a_causal_module_passes_all_that_it_can_be_asked() -> None:
    """Shown to fail by comparing law 5 with a naive forecast of 1 where nothing is better than 0."""
    found = verdicts("Causal", ENOUGH)
    assert set(found) == set(LAWS)
    assert found.pop(6) == "not applicable"
    assert set(found.values()) == {"holds"}


@pytest.mark.parametrize(
    ("name", "laws"),
    [
        ("Bidirectional", {1, 2, 3, 5}),
        ("CentredConvolution", {1, 2, 3, 5}),
        ("TargetAmongCovariates", {1, 2, 3, 6}),
    ],
)
def test_a_leak_is_found_where_it_is_and_where_it_pays(name: str, laws: set[int]) -> None:
    """Shown to fail by never finding skill, and by giving law 6 noise in place of the target."""
    assert {law for law, verdict in verdicts(name, ENOUGH).items() if verdict == "broken"} == laws


def test_past_covariates_read_as_such_break_nothing() -> None:
    """Shown to fail by putting the column of the control in place of the target's."""
    found = verdicts("PastCovariates", ENOUGH)
    assert (found[5], found[6]) == ("holds", "holds")
    assert "broken" not in found.values()


@pytest.mark.parametrize(
    ("name", "laws"),
    [
        ("BatchNormOverTime", {1, 2}),
        ("WindowNormalisation", {1, 2, 3}),
        ("MixesSeries", {7}),
        ("HiddenState", {4}),
        ("TrainsAcrossTheBorder", {10}),
        ("Constant", {1, 2}),
    ],
)
def test_what_needs_no_training_is_found_without(name: str, laws: set[int]) -> None:
    """Shown to fail by asking in evaluation mode alone, and by letting targets reach nine ticks past the border."""
    found = verdicts(name, NO_TIME)
    assert {law for law, verdict in found.items() if verdict == "broken"} == laws
    assert found[5] == "not applicable"  # nothing was learned in no time: that is said, and no pass


def test_asking_leaves_a_module_and_the_random_numbers_alone() -> None:
    """Shown to fail by turning the module itself into float64 instead of a copy."""
    module = leaks.BatchNormOverTime()
    before, seed = {name: value.clone() for name, value in module.state_dict().items()}, torch.get_rng_state()
    findings_of_module(module, max_seconds=NO_TIME)
    for name, value in module.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), seed)
    assert torch.get_default_dtype() == torch.float32


def test_one_question_does_not_change_the_answer_to_the_next() -> None:
    """Batch statistics move while training. Shown to fail by calling the asked module itself, not a copy for each call."""
    foreign = ForeignModule(leaks.BatchNormOverTime())
    inputs_BT, served = foreign.inputs(), foreign.forecast()
    before = served(inputs_BT)
    foreign.forecast(training=True)(inputs_BT)
    assert torch.equal(served(inputs_BT), before)


def test_a_file_may_import_its_neighbours_and_name_an_instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown to fail by importing the file without its folder on the path."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    (tmp_path / "a_neighbour.py").write_text("HORIZON = 3\n")
    (tmp_path / "mine.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom torch import nn\nfrom a_neighbour import HORIZON\n"
        "@dataclass\nclass Size:\n    horizon: int = HORIZON\nmodel = nn.Linear(1, Size().horizon)\n"
    )
    assert find_module(f"{tmp_path}/mine.py:model").out_features == 3


@pytest.mark.parametrize(
    ("subject", "sentence"),
    [
        ("nowhere.py:Model", "FileNotFoundError"),
        ("no.such.module:Model", "ModuleNotFoundError"),
        (f"{LEAKS}:Absent", "has no attribute 'Absent'"),
        (f"{LEAKS}:HORIZON", "a int"),
        (f"{LEAKS}:LastTickOnly", r"one forecast issued at every tick; got \(9, 4\)"),
        (f"{LEAKS}:Raises", r"got, in forward of \(9, 96\), IndexError: .*leaks.py"),
        ("moon", "got 'moon'"),
    ],
)
def test_what_cannot_be_asked_is_a_sentence(subject: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=sentence):
        verify(TestLake.at(tmp_path).settings, subject, max_seconds=NO_TIME)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("assert False, 'no'", "AssertionError: no"),
        ("raise type('Own', (Exception,), {})('mine')", "Own: mine"),
        ("return self.weight, values", "not a tuple"),
        ("return values.unsqueeze(-1).long()", "not a tensor of torch.int64"),
        ("return (values * random.random()).unsqueeze(-1)", "the same forecasts for the same readings"),
    ],
)
def test_whatever_a_strangers_code_does_is_a_sentence(body: str, sentence: str, tmp_path: Path) -> None:
    """Shown to fail by a list of a few usual faults: an exit with code 0 then reads as "all laws hold", a traceback's 1 as a broken one."""
    (tmp_path / "odd.py").write_text(
        f"import random\nimport torch\nclass Odd(torch.nn.Linear):\n    def forward(self, values):\n        {body}\nodd = Odd(1, 1)\n"
    )
    with pytest.raises(ModelError, match=sentence):
        findings_of_module(find_module(f"{tmp_path}/odd.py:odd"), max_seconds=NO_TIME)


def test_a_module_that_reads_nothing_is_found_out() -> None:
    """Shown to fail by asking a view of a parameter for its numbers, which raises: that it reads nothing was never said."""
    found = verdicts("Deaf", NO_TIME)
    assert (found[1], found[2]) == ("broken", "broken")


class ReadsAhead(CausalForecaster):
    """Our forecaster with the features of the next tick."""

    def features(self, sequence: Sequence) -> Tensor:
        """Return the features, one tick early."""
        return super().features(sequence).roll(-1, dims=0)


def test_our_own_forecaster_passes_and_one_that_reads_ahead_does_not() -> None:
    """Shown to fail by comparing with the outputs of the changed inputs themselves."""
    clean, leaking = random_weights(), ReadsAhead(CONFIG).double()
    leaking.load_state_dict(clean.state_dict())
    assert {finding.law: finding.verdict for finding in findings_of_forecaster(clean)} == dict.fromkeys((1, 2, 3, 4, 7), "holds")
    assert {finding.law for finding in findings_of_forecaster(leaking) if finding.verdict == "broken"} == {1, 2, 3, 4}


class Overreaching(Split):
    """Borders that let training read a tick of validation."""

    def train_rows(self, panel: object) -> np.ndarray:
        """Return a row more than there is before the border."""
        return super().train_rows(panel) + 1


def test_the_batches_of_training_end_at_the_border() -> None:
    """Shown to fail by leaving the training batches out of the comparison."""
    panel = made_up_panel(np.random.default_rng(0).normal(size=(400, 2)).cumsum(0), HOUR)
    borders, settings = (panel.label(0, 250), panel.label(0, 320)), TrainSettings(segment_length=64, burn_in=16)
    assert split_gap_of_batches(panel, Split(*borders), CONFIG, settings).verdict == "holds"
    assert split_gap_of_batches(panel, Overreaching(*borders), CONFIG, settings).verdict == "broken"


def test_skill_is_judged_by_its_interval_and_never_without_a_control() -> None:
    """Shown to fail by judging the gain, or the upper bound, alone, and by judging without the control."""
    rng = np.random.default_rng(1)
    naive_B = rng.uniform(0.9, 1.1, 64)
    none, some = (Trial.of(name, naive_B * (1 - gain) + rng.normal(0, 0.1, 64), naive_B) for name, gain in (("none", 0.0), ("some", 0.3)))
    assert none.lower < 0 < none.upper
    assert [judge(5, [trial], some).verdict for trial in (none, some)] == ["holds", "broken"]
    assert judge(5, [none], none).verdict == "not applicable"


def test_a_saved_model_passes_without_the_lake_it_came_from(tmp_path: Path) -> None:
    """Shown to fail by a made-up panel that starts at the border."""
    lake = TestLake.at(tmp_path)
    lake.register(random_weights())
    report = verify(lake.settings, str(lake.folder / "model"), max_seconds=NO_TIME)
    assert [finding.law for finding in report.findings] == list(LAWS)
    assert report.holds
    assert f"the border is {START + 48 * HOUR:%Y-%m-%d %H:%M} UTC (made-up readings" in report.findings[-1].seen
