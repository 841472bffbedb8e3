"""What a look promises: the newest of everything, held against tables made by hand, and no file read twice."""

from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

from pipeline.errors import DataError
from pipeline.query.watch import DayScore, Watch
from pipeline.schemas import Forecasts, Observations, Scores, TableSchema
from pipeline.store.catalog import Catalog
from pipeline.store.forecasts import append_forecasts
from pipeline.store.lake import Lake
from pipeline.store.maintenance import compact
from pipeline.store.observations import write_observations
from pipeline.store.scores import append_scores
from tests.pipeline.test_query import HOUR, START, forecast
from tests.pipeline.test_score_report import score

FLOW, HEAT = "pump-1/flow", "pump-1/heat"
NEW_DAY = pl.lit(date(2026, 3, 1))  # a partition of its own: an append looks for its keys in the files of the day


def observation(series: str, hour: int, value: float | None, revision: int = 1) -> dict[str, object]:
    """Return a row of `Observations` on an hourly grid."""
    ts = START + hour * HOUR
    row = {"series_id": series, "ts": ts, "value": value, "observed": value is not None, "n_obs": 1, "revision": revision}
    return {**row, "available_at": ts + revision * HOUR, "event_date": ts.date()}


def register(catalog: Catalog, series: str, last_hour: int) -> None:
    device, metric = series.split("/")
    row = {"series_id": series, "device_id": device, "metric": metric, "unit": "m³/h", "sample_interval_us": 3_600_000_000}
    catalog.upsert_series(pl.DataFrame([{**row, "grid_offset_us": 0, "first_ts": START, "last_ts": START + last_hour * HOUR}]))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A flow with forecasts and scores up to hour 30, and a heat that was registered and no more."""
    made, catalog = Lake(str(tmp_path / "lake")), Catalog(tmp_path / "state")
    made.create_all()
    register(catalog, FLOW, 30)
    register(catalog, HEAT, 0)
    rows = [observation(FLOW, hour, None if hour == 29 else float(hour)) for hour in range(31)] + [observation(FLOW, 28, -28.0, 2)]
    write_observations(made, Observations.conform(pl.DataFrame(rows)), readings_version=1)
    for hour in (28, 29, 30):
        append_forecasts(made, forecast(FLOW, START + hour * HOUR, level=float(hour)))
    scores = [score(FLOW, START + hour * HOUR, float(hour - 29), inside=hour > 28) for hour in (5, 28, 29, 30)]
    append_scores(made, Scores.conform(pl.DataFrame(scores)))
    return made


@pytest.fixture
def watch(lake: Lake, tmp_path: Path) -> Watch:
    return Watch(lake, Catalog(tmp_path / "state"), ["pump-1/*"])


def test_a_look_shows_the_newest_of_everything(watch: Watch) -> None:
    """Shown to fail by taking the first revision, the oldest forecast, or scores of a day and an hour ago."""
    look = watch.look(9)
    flow, heat = look.views
    assert flow.history.tail(4)["value"].to_list() == [27.0, -28.0, None, 30.0]
    assert (flow.unit, flow.last_reading, flow.history.height) == ("m³/h", START + 30 * HOUR, 25)
    assert flow.fan is not None
    assert (flow.fan.origin, flow.fan.status, flow.fan.model_version) == (START + 30 * HOUR, "ok", "1")
    assert flow.fan.steps["median"].to_list() == [31.5, 32.5, 33.5, 34.5]
    assert flow.day == DayScore(3, 2 / 3, 0.0, 2 / 3, 1)
    assert (heat.history.height, heat.fan, heat.day) == (0, None, None)
    assert (look.num_series, look.scored_until) == (2, START + 30 * HOUR)


def remove_files(lake: Lake, *tables: type[TableSchema]) -> None:
    """Remove what is stored so far, so that reading it again fails."""
    for table in tables:
        for file in Path(lake.table_uri(table)).rglob("*.parquet"):
            file.unlink()


def test_a_look_at_an_unchanged_lake_reads_no_file(watch: Watch, lake: Lake) -> None:
    """Shown to fail by reading the observations whenever there is a look."""
    before = watch.look(9).to_dict()
    remove_files(lake, Forecasts, Scores, Observations)
    assert watch.look(9).to_dict() == before


def test_a_look_reads_no_file_of_forecasts_or_scores_again(watch: Watch, lake: Lake) -> None:
    """Shown to fail by forgetting which files of forecasts, or of scores, were read."""
    watch.look(9)
    remove_files(lake, Forecasts, Scores)
    append_forecasts(lake, forecast(FLOW, START + 31 * HOUR, level=31.0))
    append_scores(lake, Scores.conform(pl.DataFrame([score(FLOW, START + 30 * HOUR, 5.0, step=2)])).with_columns(origin_date=NEW_DAY))
    flow = watch.look(9).views[0]
    assert flow.fan is not None
    assert flow.fan.origin == START + 31 * HOUR
    assert flow.day == DayScore(4, 7 / 4, 5 / 4, 3 / 4, 1)


def test_a_compaction_changes_nothing_that_is_seen(watch: Watch, lake: Lake) -> None:
    """Shown to fail by counting again the scores that a compaction has written anew."""
    append_scores(lake, Scores.conform(pl.DataFrame([score(FLOW, START + 30 * HOUR, 5.0, step=2)])))  # a second file of its day
    before = watch.look(9).to_dict()
    assert compact(lake).files_removed > 0
    assert watch.look(9).to_dict() == before


def test_a_forecast_that_is_caught_up_on_does_not_replace_a_newer_one(watch: Watch, lake: Lake) -> None:
    """Shown to fail by taking whatever the newest file holds."""
    before = watch.look(9).views[0].fan
    append_forecasts(lake, forecast(FLOW, START + HOUR, version="2", delay=100 * HOUR))
    assert watch.look(9).views[0].fan is before


def test_new_observations_and_late_corrections_are_seen(watch: Watch, lake: Lake, tmp_path: Path) -> None:
    """Shown to fail by keeping what a day held before it was written anew: a revision that has gone."""
    watch.look(9)
    rows = [observation(FLOW, 31, 31.0), observation(FLOW, 29, 29.0), observation(FLOW, 28, 28.0)]
    write_observations(lake, Observations.conform(pl.DataFrame(rows)), readings_version=2)
    register(Catalog(tmp_path / "state"), FLOW, 31)
    assert watch.look(9).views[0].history.tail(4)["value"].to_list() == [28.0, 29.0, 30.0, 31.0]


def test_a_new_tick_costs_the_file_that_brings_it(watch: Watch, lake: Lake, tmp_path: Path) -> None:
    """Shown to fail by reading all files whenever there is a new one."""
    watch.look(9)
    remove_files(lake, Observations)
    next_day = Observations.conform(pl.DataFrame([observation(FLOW, 31, 31.0)])).with_columns(event_date=NEW_DAY)
    lake.append(Observations, next_day, app_id="test", seq=1)  # `write_observations` would look for its ticks in what was removed
    register(Catalog(tmp_path / "state"), FLOW, 31)
    assert watch.look(9).views[0].history.tail(3)["value"].to_list() == [None, 30.0, 31.0]


def test_a_reading_that_comes_between_two_reads_is_seen_at_the_next_look(watch: Watch, lake: Lake, tmp_path: Path) -> None:
    """Shown to fail by listing the files after the registry was read: its tick was taken for read and never shown."""
    catalog, registered = watch.catalog, watch.catalog.series()

    class Slow(Catalog):
        def series(self) -> pl.DataFrame:
            register(Catalog(tmp_path / "state"), FLOW, 45)
            rows = Observations.conform(pl.DataFrame([observation(FLOW, hour, float(hour)) for hour in range(31, 46)]))
            write_observations(lake, rows, readings_version=2)
            return registered

    watch.catalog = Slow(catalog.state_dir)
    watch.look(9)
    watch.catalog = catalog
    assert watch.look(9).views[0].history["value"][-1] == 45.0


def test_a_series_that_stopped_long_ago_shows_its_last_ticks(watch: Watch, lake: Lake, tmp_path: Path) -> None:
    """Shown to fail by reading the same days for all series."""
    rows = [observation(HEAT, hour, 1.0) for hour in range(-2000, -1990)]
    write_observations(lake, Observations.conform(pl.DataFrame(rows)), readings_version=2)
    catalog = Catalog(tmp_path / "elsewhere")
    register(catalog, FLOW, 30)
    register(catalog, HEAT, -1991)
    flow, heat = Watch(lake, catalog, [FLOW, HEAT]).look(9).views
    assert (heat.history.height, flow.history.height) == (10, 25)


def test_only_as_many_series_are_read_as_fit(watch: Watch) -> None:
    look = watch.look(1)
    assert ([view.series_id for view in look.views], look.num_series) == ([FLOW], 2)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("pump-1/flaw", r"got 'pump-1/flaw', which is none of 2\. Did you mean pump-1/flow"),
        ("x", r"got 'x', which is none of 2\. `tidecast query` lists series\."),
        ("fan-*", r"a pattern that a series matches; got 'fan-\*', which none of 2 does"),
    ],
)
def test_an_unknown_name_is_one_clear_error(lake: Lake, tmp_path: Path, name: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        Watch(lake, Catalog(tmp_path / "state"), [FLOW, name]).look(9)


def test_a_lake_without_its_registry_says_so_and_none_is_made(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="requires the registry"):
        Watch(lake, Catalog(tmp_path / "nowhere"), [FLOW]).look(9)
    assert not (tmp_path / "nowhere").exists()


def test_a_day_is_counted_back_from_the_newest_score_of_any_series(watch: Watch, lake: Lake) -> None:
    append_scores(lake, Scores.conform(pl.DataFrame([score("fan-1/flow", START + 53 * HOUR, 0.0)])))
    day = watch.look(9).views[0].day
    assert day is not None
    assert (day.scored, day.bias) == (1, 1.0)
    append_scores(lake, Scores.conform(pl.DataFrame([score("fan-1/flow", START + 53 * HOUR + timedelta(hours=1), 0.0)])))
    assert watch.look(9).views[0].day is None
