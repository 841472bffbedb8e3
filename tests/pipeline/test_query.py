"""What a query promises: the newest forecast wherever it is stored, the past as it was known, and tidy rows."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import SettingsError, StoreError
from pipeline.query.frames import query_forecasts
from pipeline.query.locate import ForecastFiles, Selection, newest
from pipeline.schemas import Forecasts, Observations
from pipeline.store.forecasts import append_forecasts
from pipeline.store.lake import Lake
from pipeline.store.maintenance import compact
from pipeline.store.observations import write_observations

START = datetime(2026, 1, 31, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
LEVELS = (0.1, 0.5, 0.9)


def forecast(
    series_id: str,
    origin: datetime,
    *,
    level: float = 0.0,
    horizon: int = 4,
    levels: tuple[float, ...] = LEVELS,
    version: str = "1",
    delay: timedelta = timedelta(minutes=1),
) -> pl.DataFrame:
    """Return a stored row whose quantile at a step is level + step + probability."""
    row = {
        "series_id": series_id,
        "origin": origin,
        "horizon": horizon,
        "sample_interval_us": HOUR // timedelta(microseconds=1),
        "quantile_levels": list(levels),
        "quantiles": [level + step + probability for step in range(1, horizon + 1) for probability in levels],
        "model_version": version,
        "input_version": 1,
        "status": "ok",
        "created_at": origin + delay,
        "origin_date": origin.date(),
    }
    return Forecasts.conform(pl.DataFrame([row]))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(str(tmp_path / "lake"))
    made.create_all()
    return made


@pytest.fixture
def fleet(lake: Lake) -> Lake:
    """Three days of commits every 12 hours for three series, the third of which fell silent after the first."""
    for number in range(6):
        names = ["pump-1/flow", "pump-2/flow", "pump-1/heat"][: 3 if number == 0 else 2]
        append_forecasts(lake, pl.concat([forecast(name, START + number * 12 * HOUR, level=100.0 * number) for name in names]))
    return lake


def test_long_form_has_one_row_for_each_target_time(fleet: Lake) -> None:
    frame = query_forecasts(fleet.uri, series=["pump-1/flow"])
    assert frame.columns[:4] == ["series_id", "origin", "step", "ts"]
    assert frame.columns[-4:] == ["model_version", "input_version", "status", "created_at"]
    assert frame["step"].to_list() == [1, 2, 3, 4]
    assert frame["ts"].to_list() == [START + 60 * HOUR + step * HOUR for step in (1, 2, 3, 4)]
    assert frame["q0.9"].to_list() == pytest.approx([501.9, 502.9, 503.9, 504.9])


def test_latest_finds_a_series_that_fell_silent_partitions_ago(fleet: Lake) -> None:
    newest_origin = query_forecasts(fleet.uri, step=1).select("series_id", "origin").rows()
    assert newest_origin == [("pump-1/flow", START + 60 * HOUR), ("pump-1/heat", START), ("pump-2/flow", START + 60 * HOUR)]
    assert query_forecasts(fleet.uri, series=["pump-1/heat", "pump-1/flow"], step=1)["origin"].to_list() == [START + 60 * HOUR, START]


def test_a_point_query_opens_the_newest_file_only(fleet: Lake) -> None:
    wanted = Selection(series=("pump-1/flow",))
    files = ForecastFiles.of(fleet, wanted)
    for older in files.table["file"][1:]:
        Path(older).unlink()
    assert newest(files, wanted)["origin"].to_list() == [START + 60 * HOUR]


def test_compaction_changes_no_answer(fleet: Lake) -> None:
    queries = ({}, {"latest": False}, {"series": ["pump-1/heat"]}, {"as_of": START + 30 * HOUR}, {"metric": "flow", "step": 2})
    before = [query_forecasts(fleet.uri, **query) for query in queries]
    compact(fleet)
    assert all(query_forecasts(fleet.uri, **query).equals(frame) for query, frame in zip(queries, before, strict=True))


@settings(max_examples=15, deadline=None)
@given(
    cells=st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 60), st.integers(0, 90)), min_size=1, max_size=12, unique_by=lambda c: c[:2]
    ),
    known=st.integers(0, 150),
)
def test_as_of_equals_a_plain_scan_of_what_was_written_by_then(tmp_path_factory: pytest.TempPathFactory, cells, known) -> None:
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    lake.create_all()
    rows = pl.concat([forecast(f"{name}/x", START + hour * HOUR, delay=late * HOUR) for name, hour, late in cells])
    append_forecasts(lake, rows[: len(cells) // 2])
    append_forecasts(lake, rows[len(cells) // 2 :])
    visible = rows.filter(pl.col("created_at") <= START + known * HOUR)
    expected = visible.group_by("series_id").agg(pl.col("origin").max()).sort("series_id")
    got = query_forecasts(lake.uri, series=["a/x", "b/x", "c/x"], as_of=START + known * HOUR, step=1)
    assert got.select("series_id", "origin").equals(expected)


def test_of_two_models_at_one_origin_the_latest_written_is_served(lake: Lake) -> None:
    append_forecasts(lake, forecast("a/x", START, version="10", delay=2 * HOUR))
    append_forecasts(lake, forecast("a/x", START, version="9", delay=HOUR))
    assert query_forecasts(lake.uri, series=["a/x"], step=1)["model_version"].to_list() == ["10"]
    assert query_forecasts(lake.uri, series=["a/x"], step=1, model_version="9")["model_version"].to_list() == ["9"]
    assert query_forecasts(lake.uri, latest=False, step=1)["model_version"].to_list() == ["10", "9"]


def test_range_of_origins_includes_both_ends(fleet: Lake) -> None:
    frame = query_forecasts(fleet.uri, series=["pump-2/*"], latest=False, start=START + 12 * HOUR, end=START + 36 * HOUR, step=1)
    assert frame["origin"].to_list() == [START + hours * HOUR for hours in (12, 24, 36)]
    assert query_forecasts(fleet.uri, series=["pump-2/flow"], end=START + 36 * HOUR, step=1)["origin"].to_list() == [START + 36 * HOUR]


@pytest.mark.parametrize(
    ("narrowed", "expected"),
    [
        ({"series": ["pump-1/*"]}, ["pump-1/flow", "pump-1/heat"]),
        ({"series": ["pump-?/heat", "pump-2/flow"]}, ["pump-1/heat", "pump-2/flow"]),
        ({"device": "pump-2"}, ["pump-2/flow"]),
        ({"device": "pump-*", "metric": "flow"}, ["pump-1/flow", "pump-2/flow"]),
        ({"series": ["pump-1/flow"], "metric": "heat"}, []),
        ({"series": ["pump.1/flow", "pump-1/fl", "pump.?/*", "ump-1/*"]}, []),
        ({"series": []}, []),
    ],
)
def test_names_narrow_the_answer_and_only_stars_and_question_marks_are_special(fleet: Lake, narrowed: dict, expected: list[str]) -> None:
    assert query_forecasts(fleet.uri, **narrowed)["series_id"].unique().sort().to_list() == expected


def test_a_pattern_may_hold_whatever_an_id_holds(lake: Lake) -> None:
    odd = "Halle 1 (süd) & [x]-#~+^$.|\\{2}/°C"
    append_forecasts(lake, pl.concat([forecast(name, START) for name in (odd, "Halle 1/°C")]))
    assert query_forecasts(lake.uri, series=[odd.replace("süd", "*")], step=1)["series_id"].to_list() == [odd]


def test_lead_time_is_the_step_at_that_distance(fleet: Lake) -> None:
    by_lead = query_forecasts(fleet.uri, lead_time=3 * HOUR)
    assert by_lead.equals(query_forecasts(fleet.uri, step=3))
    assert by_lead.select((pl.col("ts") - pl.col("origin")).unique()).item() == 3 * HOUR
    assert query_forecasts(fleet.uri, lead_time=30_000 * timedelta(days=1)).is_empty()
    assert query_forecasts(fleet.uri, step=5).is_empty()


def test_a_lead_time_between_the_ticks_names_the_sample_interval(fleet: Lake) -> None:
    """Shown to fail by leaving such rows out: the answer was empty, as if nothing had been forecast."""
    with pytest.raises(SettingsError, match=r"multiple of the sample interval; got 1:30:00 where that is 1:00:00"):
        query_forecasts(fleet.uri, lead_time=90 * timedelta(minutes=1))


def test_at_is_what_every_origin_before_said_of_that_instant(fleet: Lake) -> None:
    """Shown to fail by taking the step from the newest origin for all rows, and by letting in origins whose horizon ends before."""
    append_forecasts(fleet, pl.concat([forecast("pump-1/flow", START + hour * HOUR, level=10.0 * hour) for hour in (1, 2, 3, 4)]))
    said = query_forecasts(fleet.uri, series=["pump-1/flow"], at=START + 5 * HOUR, latest=False)
    assert said.select("step", "q0.5").rows() == [(step, pytest.approx(10.0 * (5 - step) + step + 0.5)) for step in (4, 3, 2, 1)]
    assert said["ts"].unique().to_list() == [START + 5 * HOUR]
    assert query_forecasts(fleet.uri, series=["pump-1/flow"], at=START + 5 * HOUR).equals(said.tail(1))
    assert query_forecasts(fleet.uri, at=START + 500 * HOUR).is_empty()


def test_at_takes_the_newest_origin_that_reaches_the_instant(lake: Lake) -> None:
    """Shown to fail by taking the newest origin before it: that of a model with a shorter horizon, which says nothing of it."""
    append_forecasts(lake, forecast("a/x", START, horizon=5))
    append_forecasts(lake, forecast("a/x", START + HOUR, horizon=2, version="2"))
    compact(lake)  # into one file, whose statistics do not tell the two apart
    assert query_forecasts(lake.uri, at=START + 4 * HOUR)["step"].to_list() == [4]


def test_at_opens_no_file_whose_forecasts_end_before_or_begin_after(fleet: Lake) -> None:
    files = ForecastFiles.of(fleet, Selection(target=START + 13 * HOUR))
    (name,) = files.table["file"].to_list()
    assert pl.read_parquet(name)["origin"].unique().to_list() == [START + 12 * HOUR]


def test_an_instant_between_the_ticks_names_its_neighbours(fleet: Lake) -> None:
    """Shown to fail by answering with no row, as if nothing had been forecast."""
    between = START + 62 * HOUR + timedelta(minutes=20)
    with pytest.raises(SettingsError, match=r"got at=2026-02-03T02:20:00\+00:00, between 2026-02-03T02:00.* and 2026-02-03T03:00"):
        query_forecasts(fleet.uri, at=between)


def test_horizons_and_levels_may_differ_between_models(lake: Lake) -> None:
    append_forecasts(lake, forecast("a/x", START, horizon=2, levels=(0.1, 0.5, 0.9)))
    append_forecasts(lake, forecast("b/x", START, horizon=3, levels=(0.5, 0.95)))
    frame = query_forecasts(lake.uri)
    assert frame["step"].to_list() == [1, 2, 1, 2, 3]
    assert frame["q0.95"].to_list() == [None, None, *(pytest.approx(step + 0.95) for step in (1, 2, 3))]
    assert frame["q0.5"].to_list() == [1.5, 2.5, 1.5, 2.5, 3.5]


def test_actuals_are_the_latest_revision_or_the_one_known_then(fleet: Lake) -> None:
    target = START + HOUR
    revisions = [(1, 7.0, target), (2, 8.0, target + 24 * HOUR)]
    rows = [
        {"series_id": "pump-1/heat", "ts": target, "value": value, "observed": True, "n_obs": 1, "revision": revision, "available_at": at}
        for revision, value, at in revisions
    ]
    write_observations(fleet, Observations.conform(pl.DataFrame(rows).with_columns(event_date=pl.col("ts").dt.date())), readings_version=1)
    assert query_forecasts(fleet.uri, series=["pump-1/heat"], with_actuals=True)["actual"].to_list() == [8.0, None, None, None]
    then = query_forecasts(fleet.uri, series=["pump-1/heat"], with_actuals=True, as_of=target + HOUR)
    assert then["actual"].to_list() == [7.0, None, None, None]


def test_nothing_found_still_has_the_columns(lake: Lake) -> None:
    frame = query_forecasts(lake.uri, with_actuals=True)
    assert frame.is_empty()
    assert frame.columns[4:] == [
        *(f"q0.{tenth}" for tenth in range(1, 10)),
        "model_version",
        "input_version",
        "status",
        "created_at",
        "actual",
    ]


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"start": datetime(2026, 1, 1)}, "time zone; got start=2026-01-01"),  # noqa: DTZ001 (a naive instant is the point)
        ({"step": 1, "lead_time": HOUR}, "one of step, lead_time and at; got step=1 and lead_time=1:00:00"),
        ({"step": 1, "at": START}, "one of step, lead_time and at"),
        ({"at": datetime(2026, 1, 1)}, "time zone; got at=2026-01-01"),  # noqa: DTZ001
        ({"step": 0}, "step >= 1"),
        ({"lead_time": timedelta(0)}, "lead_time > 0"),
    ],
)
def test_impossible_questions_are_refused(lake: Lake, asked: dict, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        query_forecasts(lake.uri, **asked)


def test_a_folder_with_a_space_and_a_percent_sign_is_read(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "my lake 100%"))
    lake.create_all()
    append_forecasts(lake, forecast("a/x", START))
    assert query_forecasts(lake.uri, series=["a/x"]).height == 4


def test_a_missing_lake_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="requires the table forecasts"):
        query_forecasts(str(tmp_path / "nowhere"))
