"""The comparison with an undisturbed run, on tables made by hand: what it must see, and the little that it may set aside."""

from datetime import timedelta
from types import SimpleNamespace

import polars as pl
import pytest

from pipeline.errors import DataError
from pipeline.schemas import EPOCH, Forecasts
from pipeline.settings import Settings
from pipeline.store.lake import Lake
from tests.faults import show
from tests.faults.fleet import Fleet
from tests.faults.oracle import Account
from tests.faults.outcome import Outcome
from tests.faults.twin import compare, tick_of, undisturbed

TICKS, TRUE = range(6), (1.0, 2.0)
ALL = {series: dict.fromkeys(TICKS, TRUE) for series in ("a/temperature", "b/temperature")}
INTERVAL = timedelta(seconds=5)


def run(folder, says, status="ok"):
    """Return the settings of a lake with forecasts: quantiles by series and tick."""
    rows = [(series, EPOCH + tick * INTERVAL, quantiles) for series, ticks in says.items() for tick, quantiles in ticks.items()]
    stored = pl.DataFrame(rows, schema={name: Forecasts.columns[name] for name in ("series_id", "origin", "quantiles")}, orient="row")
    rest = {
        "horizon": 1,
        "sample_interval_us": INTERVAL // timedelta(microseconds=1),
        "quantile_levels": [0.1, 0.9],
        "model_version": "1-0",
        "input_version": 1,
        "status": status,
        "created_at": EPOCH,
    }
    lake = Lake(str(folder))
    lake.create_all()
    lake.append(
        Forecasts,
        Forecasts.conform(
            stored.with_columns(pl.lit(one).alias(name) for name, one in rest.items()).with_columns(origin_date=pl.col("origin").dt.date())
        ),
        app_id="test",
        seq=1,
    )
    return Settings(lake=str(folder))


@pytest.fixture
def against_twin(tmp_path):
    """Return a function that compares what a disturbed run says with what the twin does."""
    twin = run(tmp_path / "twin", ALL)
    return lambda says, **more: compare(run(tmp_path / "disturbed", says, **more), twin)


def without(series, ticks):
    """Return everything but some ticks of a series."""
    return {**ALL, series: {tick: says for tick, says in ALL[series].items() if tick not in ticks}}


def saying(series, tick, quantiles):
    """Return everything, with other quantiles at a tick of a series."""
    return {**ALL, series: {**ALL[series], tick: quantiles}}


def test_two_runs_with_the_same_forecasts_are_the_same(against_twin):
    found = against_twin(ALL)
    assert found.is_same
    assert (found.compared, found.first, found.first_different, found.before) == (10, 2, 0, 0)


def test_a_series_that_only_the_undisturbed_run_forecast_is_missing(against_twin):
    found = against_twin({"a/temperature": ALL["a/temperature"]})
    assert (found.missing, found.is_same) == (6, False)


@pytest.mark.parametrize("ticks", [[0], [0, 1, 2], [2], [5]])
def test_a_series_that_began_later_than_in_the_undisturbed_run_or_has_a_gap_is_missing_ticks(against_twin, ticks):
    found = against_twin(without("b/temperature", ticks))
    assert (found.missing, found.strange, found.is_same) == (len(ticks), 0, False)


def test_a_series_or_a_tick_that_the_undisturbed_run_lacks_is_strange(against_twin, tmp_path):
    found = against_twin({**ALL, "a/temperature": {**ALL["a/temperature"], 6: [1.0, 2.0]}, "c/temperature": {0: [1.0, 2.0]}})
    assert (found.missing, found.strange, found.is_same) == (0, 2, False)


@pytest.mark.parametrize("quantiles", [[1.0, 2.1], [1.0, None], None, [1.0, float("nan")], [1.0, float("inf")], [1.0], [1.0, 2.0, 3.0]])
def test_quantiles_that_are_not_those_of_the_undisturbed_run_are_different(against_twin, quantiles):
    found = against_twin(saying("b/temperature", 3, quantiles))
    assert (found.compared, found.different, found.is_same) == (10, 1, False)


def test_a_null_quantile_in_the_undisturbed_run_alone_is_different_and_in_both_it_is_not(tmp_path):
    ours, theirs = run(tmp_path / "ours", ALL), run(tmp_path / "theirs", saying("a/temperature", 2, [None, 2.0]))
    assert compare(ours, theirs).different == 1
    assert compare(theirs, theirs).is_same


def test_quantiles_that_differ_by_the_order_of_a_sum_are_the_same(against_twin):
    assert against_twin(saying("b/temperature", 3, [1.0, 2.00001])).is_same


def test_another_status_is_different(against_twin):
    assert against_twin(ALL, status="silent").different == 10


def test_what_the_first_forecast_of_a_series_says_is_set_aside_and_counted(against_twin):
    found = against_twin(saying("b/temperature", 0, [7.0, 8.0]))
    assert (found.is_same, found.first, found.first_different) == (True, 2, 1)


@pytest.mark.parametrize(("first", "is_same"), [(2, True), (3, False)])
def test_a_run_may_meet_the_whole_fleet_ten_seconds_later_than_the_other_and_no_more(tmp_path, first, is_same):
    late = {series: {tick: says for tick, says in ticks.items() if tick >= first} for series, ticks in ALL.items()}
    early, late = run(tmp_path / "early", ALL), run(tmp_path / "late", late)
    assert (compare(late, early).is_same, compare(early, late).is_same) == (is_same, is_same)
    assert compare(late, early).before == (2 * first if is_same else 0)
    assert compare(late, early).missing == (0 if is_same else 2 * first)


def test_a_series_that_began_later_is_missing_ticks_even_where_the_fleet_was_met_later(against_twin):
    late = {"a/temperature": dict.fromkeys(range(1, 6), TRUE), "b/temperature": dict.fromkeys(range(2, 6), TRUE)}
    found = against_twin(late)
    assert (found.missing, found.before, found.is_same) == (1, 2, False)


@pytest.mark.parametrize("says", [{}, {"a/temperature": {}}])
def test_a_run_without_a_forecast_is_not_the_same(against_twin, says):
    found = against_twin(says)
    assert (found.missing, found.is_same) == (12, False)


def test_an_undisturbed_run_of_no_message_is_refused(tmp_path):
    with pytest.raises(ValueError, match="requires the messages of an inbox"):
        undisturbed(Settings(lake=str(tmp_path / "lake")), Fleet(1, EPOCH.isoformat(), 5), tmp_path / "undisturbed")


@pytest.mark.parametrize(("ours", "is_kept"), [(ALL, False), (without("b/temperature", [2]), True)])
def test_the_show_keeps_its_lakes_where_something_is_different_and_else_removes_them(tmp_path, monkeypatch, ours, is_kept):
    outcome = Outcome("shown", readings=Account(5, 5, 0, 0, 0))
    found = compare(run(tmp_path / "ours", ours), run(tmp_path / "theirs", ALL))
    monkeypatch.setattr("tests.faults.show.kill_at_random", lambda *_, **_options: outcome)
    monkeypatch.setattr("tests.faults.show.undisturbed", lambda *_: None)
    monkeypatch.setattr("tests.faults.show.compare", lambda *_: found)
    monkeypatch.setattr("tests.faults.show.end_when_asked", lambda: None)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["show", "--devices", "1"])
    with pytest.raises(SystemExit) as end:
        show.main()
    assert (end.value.code, any(tmp_path.glob("tidecast-show-*/lake"))) == (is_kept, is_kept)


def test_an_undisturbed_follower_may_wait_for_its_first_series_and_for_nothing_else():
    def nothing_to_forecast() -> None:
        raise DataError("none")

    follower = SimpleNamespace(tick=nothing_to_forecast)
    assert not tick_of(follower, may_wait=True)
    with pytest.raises(DataError):
        tick_of(follower, may_wait=False)
