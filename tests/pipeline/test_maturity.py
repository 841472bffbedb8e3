"""Matured forecasts are scored once each, by what was known then, whatever is repeated, killed, late, revised or compacted."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluate import maturity
from pipeline.evaluate.maturity import score_matured
from pipeline.forecast.rolling import forecast
from pipeline.schemas import Forecasts, Observations, Scores
from pipeline.store.catalog import Catalog
from pipeline.store.forecasts import append_forecasts
from pipeline.store.lake import Lake, read
from pipeline.store.maintenance import compact
from pipeline.store.observations import write_observations
from tests.lakes import HOUR, START, TestLake, hourly_readings, random_weights

READINGS = hourly_readings(100)
NORTH = "north/temperature"


def until(hours: int) -> pl.DataFrame:
    return READINGS.filter(pl.col("ts") < START + hours * HOUR)


def at(hour: int, value: float | None = None, received: int = 0) -> pl.DataFrame:
    """Return north's reading of one hour, with another value and received some hours after it where these are given."""
    return READINGS.filter(pl.col("series_id") == NORTH, pl.col("ts") == START + hour * HOUR).with_columns(
        value=pl.col("value") if value is None else pl.lit(value), received_at=pl.col("received_at") + received * HOUR
    )


def scores(lake: TestLake) -> pl.DataFrame:
    """Return all scores, sorted by key."""
    return Scores.conform(read(Lake(lake.settings.lake).scan(Scores))).sort(Scores.key)


def of_north(lake: TestLake) -> dict[int, float]:
    """Return north's actual by step."""
    return dict(scores(lake).filter(series_id=NORTH).select("step", "actual").iter_rows())


@pytest.fixture
def bare(tmp_path: Path) -> TestLake:
    """An empty lake without a model, for tables that a test writes itself."""
    lake = TestLake.at(tmp_path)
    Lake(lake.settings.lake).create_all()
    return lake


@pytest.fixture
def lake(tmp_path: Path) -> TestLake:
    """Forecasts from hour 89 of a fleet whose readings go on for 10 hours more."""
    lake = TestLake.at(tmp_path)
    lake.register(random_weights())
    lake.ingest(until(90))
    forecast(lake.settings, lake.clock)
    return lake


def issue(lake: TestLake, hour: int, quantiles: list[float], levels: tuple[float, ...] = (0.1, 0.5, 0.9), version: str = "1") -> None:
    """Write one forecast of series a."""
    origin = START + hour * HOUR
    row = {
        "series_id": "a",
        "origin": origin,
        "horizon": len(quantiles) // len(levels),
        "sample_interval_us": HOUR // timedelta(microseconds=1),
        "quantile_levels": list(levels),
        "quantiles": quantiles,
        "model_version": version,
        "input_version": 1,
        "status": "ok",
        "created_at": origin,
        "origin_date": origin.date(),
    }
    append_forecasts(Lake(lake.settings.lake), pl.DataFrame([row], schema=Forecasts.polars()))


def observe(lake: TestLake, hour: int, value: float | None) -> None:
    """Write one tick of series a, a gap without a value; a tick that is there already is revised."""
    ts = START + hour * HOUR
    fields = {"value": value, "observed": value is not None, "n_obs": 1, "revision": 1, "available_at": ts, "event_date": ts.date()}
    row = pl.DataFrame([{"series_id": "a", "ts": ts, **fields}], schema=Observations.polars())
    write_observations(Lake(lake.settings.lake), row, readings_version=1)


def test_scores_are_those_computed_by_hand(bare: TestLake) -> None:
    """Shown to fail by scoring the first step's quantiles at every step, and by a sum over the levels."""
    issue(bare, 0, [1.0, 2.0, 3.0, 10.0, 20.0, 30.0])
    observe(bare, 1, 2.5)
    observe(bare, 2, 40.0)
    assert score_matured(bare.settings, bare.clock) == 2
    near, far = scores(bare).rows(named=True)
    assert (near["step"], near["ts"], near["actual"], near["error"], near["in_80"]) == (1, START + HOUR, 2.5, 0.5, True)
    assert (far["step"], far["ts"], far["actual"], far["error"], far["in_80"]) == (2, START + 2 * HOUR, 40.0, 20.0, False)
    assert near["pinball"] == pytest.approx((0.1 * 1.5 + 0.5 * 0.5 + 0.1 * 0.5) / 3)  # above 1 and 2, below 3
    assert far["pinball"] == pytest.approx((0.1 * 30 + 0.5 * 20 + 0.9 * 10) / 3)
    assert near["scored_at"] == far["scored_at"] == bare.clock.now()


def test_the_bounds_of_the_interval_are_inside_it_and_a_model_without_them_has_none(bare: TestLake) -> None:
    issue(bare, 0, [1.0, 2.0, 3.0])
    issue(bare, 0, [2.0], levels=(0.5,), version="2")
    observe(bare, 1, 3.0)
    score_matured(bare.settings, bare.clock)
    assert scores(bare).select("model_version", "error", "in_80").rows() == [("1", 1.0, True), ("2", 1.0, None)]


def test_the_engines_forecasts_are_scored_step_by_step_as_they_come_true(lake: TestLake) -> None:
    issued = read(Lake(lake.settings.lake).scan(Forecasts)).sort("series_id")
    for hours, steps in ((92, 2), (95, 3)):
        lake.ingest(until(hours))
        assert score_matured(lake.settings, lake.clock) == 2 * steps
    found = scores(lake)
    quantiles_BHQ = np.stack(issued["quantiles"].to_list()).reshape(2, 6, 9)[:, :5].astype(np.float64)
    actual_BH1 = READINGS.filter(pl.col("ts").is_between(START + 90 * HOUR, START + 94 * HOUR))["value"].to_numpy().reshape(2, 5, 1)
    error_BHQ, levels = actual_BH1 - quantiles_BHQ, np.arange(1, 10) / 10
    assert found["step"].to_list() == [1, 2, 3, 4, 5] * 2
    np.testing.assert_allclose(found["actual"], actual_BH1.ravel())
    np.testing.assert_allclose(found["error"], error_BHQ[..., 4].ravel())
    np.testing.assert_allclose(found["pinball"], np.maximum(levels * error_BHQ, (levels - 1) * error_BHQ).mean(-1).ravel())
    assert found["in_80"].to_list() == ((error_BHQ[..., 0] >= 0) & (error_BHQ[..., 8] <= 0)).ravel().tolist()


def test_a_second_run_writes_nothing(lake: TestLake) -> None:
    lake.ingest(until(95))
    assert score_matured(lake.settings, lake.clock) == 10
    version = Lake(lake.settings.lake).version(Scores)
    assert score_matured(lake.settings, lake.clock) == 0
    assert Lake(lake.settings.lake).version(Scores) == version


def test_a_gap_stays_unscored_until_a_late_reading_fills_it(lake: TestLake) -> None:
    """Shown to fail by looking only at targets newer than those of the last run."""
    lake.ingest(until(100).join(at(91), on=["series_id", "ts"], how="anti"))
    score_matured(lake.settings, lake.clock)
    assert sorted(of_north(lake)) == [1, 3, 4, 5, 6]
    lake.ingest(at(91, received=5))
    assert score_matured(lake.settings, lake.clock) == 1
    assert sorted(of_north(lake)) == [1, 2, 3, 4, 5, 6]


def test_a_score_takes_the_latest_revision_and_stands_when_another_comes(lake: TestLake) -> None:
    """Shown to fail by reading first revisions, and by writing through `Lake.append`."""
    lake.ingest(until(92))
    lake.ingest(at(90, value=1.5, received=5))
    score_matured(lake.settings, lake.clock)
    before = scores(lake)
    lake.ingest(at(90, value=2.5, received=6))
    lake.clock.advance(HOUR)
    assert score_matured(lake.settings, lake.clock) == 0
    assert of_north(lake)[1] == 1.5
    assert scores(lake).equals(before)


def test_every_model_version_is_scored(lake: TestLake) -> None:
    lake.register(random_weights(seed=1))
    forecast(lake.settings, lake.clock)
    lake.ingest(until(92))
    assert score_matured(lake.settings, lake.clock) == 8
    version = pl.col("model_version").str.split("-").list.first()
    assert scores(lake).group_by(version).len().sort("model_version").rows() == [("1", 4), ("2", 4)]


def test_a_forecast_issued_after_its_targets_came_is_scored_at_once(lake: TestLake) -> None:
    """Shown to fail by looking at changed observations alone."""
    lake.ingest(until(95))
    score_matured(lake.settings, lake.clock)
    forecast(lake.settings, lake.clock)  # origins 90 to 94 of both series
    assert score_matured(lake.settings, lake.clock) == 2 * (4 + 3 + 2 + 1)


@pytest.mark.parametrize(("owner", "dies_in"), [(maturity, "append_scores"), (Catalog, "set_position")])
def test_a_run_that_dies_is_repeated_without_a_trace(lake: TestLake, monkeypatch: pytest.MonkeyPatch, owner: object, dies_in: str) -> None:
    """Shown to fail by moving the marks before the commit."""
    lake.ingest(until(92))
    monkeypatch.setattr(owner, dies_in, _killed)
    with pytest.raises(KeyboardInterrupt):
        score_matured(lake.settings, lake.clock)
    monkeypatch.undo()
    committed = scores(lake).height
    assert score_matured(lake.settings, lake.clock) == 4 - committed
    assert scores(lake).select(Scores.key).is_unique().all()


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_lost_catalog_costs_a_look_at_everything_and_no_row(lake: TestLake, tmp_path: Path) -> None:
    lake.ingest(until(92))
    score_matured(lake.settings, lake.clock)
    elsewhere = lake.settings.model_copy(update={"state": str(tmp_path / "new-state")})
    assert score_matured(elsewhere, lake.clock) == 0
    assert scores(lake).height == 4


def test_small_reads_and_commits_give_the_same_scores(lake: TestLake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown to fail by leaving out the last part of a day, and the last batch."""
    lake.ingest(until(100))
    forecast(lake.settings, lake.clock)
    monkeypatch.setattr(maturity, "READ_AT_ONCE", 7)
    monkeypatch.setattr(maturity, "COMMIT_AT_ONCE", 50)
    assert score_matured(lake.settings, lake.clock) == scores(lake).height == 2 * (5 * 6 + 5 + 4 + 3 + 2 + 1)


EVENTS = st.one_of(  # about midnight, so that two partitions are concerned
    st.tuples(st.just("issue"), st.integers(20, 25)),
    st.tuples(st.just("observe"), st.integers(21, 28)),
    st.tuples(st.sampled_from(["score", "compact"]), st.just(0)),
)


@settings(max_examples=15, deadline=None)
@given(events=st.lists(EVENTS, min_size=4, max_size=16, unique=True))
def test_any_order_of_forecasts_observations_and_runs_scores_each_observed_step_once(tmp_path_factory, events) -> None:
    """Shown to fail by dropping `issued` from the news, and by windows that start at the changed targets themselves."""
    lake = TestLake.at(tmp_path_factory.mktemp("events"))
    Lake(lake.settings.lake).create_all()
    deeds = {
        "issue": lambda hour: issue(lake, hour, [1.0, 2.0, 3.0], levels=(0.5,)),
        "observe": lambda hour: observe(lake, hour, 1.0),
        "score": lambda _: score_matured(lake.settings, lake.clock),
        "compact": lambda _: compact(Lake(lake.settings.lake)),
    }
    for deed, hour in [*events, ("score", 0)]:
        deeds[deed](hour)
    issued, observed = ({hour for deed, hour in events if deed == name} for name in ("issue", "observe"))
    found = scores(lake).select((pl.col("origin") - START).dt.total_hours(), "step").rows()
    assert sorted(found) == sorted((origin, step) for origin in issued for step in (1, 2, 3) if origin + step in observed)
