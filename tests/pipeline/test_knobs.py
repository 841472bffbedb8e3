"""What is tried is inside its range, covers it evenly, and can be pasted into a settings file."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.settings import TrainSettings, load_settings
from pipeline.study.knobs import Choice, Range, Value, spread, to_toml, value_of, with_knobs
from pipeline.study.tune import KNOBS

RANGE = Range("learning_rate", 1e-4, 1e-1, log=True)


@given(st.floats(0, 1))
def test_a_share_of_a_range_is_found_again(share: float) -> None:
    value = RANGE.at(share)
    assert RANGE.low <= float(value) <= RANGE.high
    assert RANGE.share_of(float(value)) == pytest.approx(share, abs=1e-3)


@pytest.mark.parametrize("num_points", [4, 8, 16])
def test_points_leave_no_wide_gap_in_any_knob(num_points: int) -> None:
    """Shown to fail by points drawn at random: a gap of a third of the range is common among 16."""
    knobs = [RANGE, Range("network.dropout", 0.0, 1.0), Range("weight_decay", 1e-5, 1e-1, log=True)]
    for knob in knobs:
        shares = sorted([0.0, 1.0, *(knob.share_of(float(point[knob.name])) for point in spread(knobs, num_points))])
        assert max(right - left for left, right in pairwise(shares)) < 2.2 / num_points


def test_the_first_points_are_the_same_however_many_follow() -> None:
    assert spread(KNOBS, 12)[:5] == spread(KNOBS, 5)


def test_a_knob_is_widened_to_hold_the_settings_as_they_are() -> None:
    """Shown to fail by leaving the range as it is: Optuna would refuse the first trial."""
    assert RANGE.including(3.0).high == 3.0
    assert RANGE.including(1e-3) == RANGE
    assert Choice("network.wiring", ("plain",)).including("residual").options == ("plain", "residual")


def test_every_knob_of_the_search_is_a_setting() -> None:
    values = {knob.name: knob.at(0.3) for knob in KNOBS}
    tuned = with_knobs(TrainSettings(), values)
    assert {name: value_of(tuned, name) for name in values} == values


def test_the_printed_lines_set_what_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown to fail by leaving out the quotes of words."""
    values: dict[str, Value] = {knob.name: knob.at(0.7) for knob in KNOBS}
    (tmp_path / "tidecast.toml").write_text(to_toml(values))
    monkeypatch.chdir(tmp_path)
    assert load_settings().train == with_knobs(TrainSettings(), values)
