"""The follower: the tables of single runs, with the state in memory; and a new champion takes over between two ticks."""

import multiprocessing
import threading
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from pipeline.clock import Clock
from pipeline.errors import LeaseLostError, ModelError, StoreError
from pipeline.evaluate.maturity import score_matured
from pipeline.forecast.follower import Follower
from pipeline.forecast.leadership import LENGTH, Leadership
from pipeline.forecast.rolling import RollingForecasts, forecast
from pipeline.forecast.succession import TRY_AGAIN
from pipeline.ingest.ingest import IngestOptions, ingest_paths
from pipeline.prepare.regularise import regularise
from pipeline.schemas import Forecasts, Observations, Scores
from pipeline.settings import ForecastSettings, Settings
from pipeline.store.handovers import Handovers
from pipeline.store.lake import Lake
from pipeline.store.snapshot_pointers import SnapshotPointers
from pipeline.tracking.registry import champion
from tests.lakes import HOUR, START, TestLake, hourly_readings, random_weights

SERIES = ("north/temperature", "south/temperature", "west/temperature")
READINGS = hourly_readings(80, SERIES)
LATE = timedelta(hours=5, minutes=3)
SECONDS = timedelta(seconds=90)
# A device that is late by hours, one that pauses for three ticks, and one that hands its pause in afterwards.
ARRIVALS = READINGS.with_columns(
    received_at=pl.when((pl.col("series_id") == SERIES[1]) & (pl.col("ts") == START + 62 * HOUR))
    .then(pl.col("ts") + LATE)
    .when((pl.col("series_id") == SERIES[2]) & pl.col("ts").is_between(START + 64 * HOUR, START + 66 * HOUR))
    .then(pl.lit(START) + 67 * HOUR + SECONDS)
    .otherwise(pl.col("ts") + timedelta(seconds=1))
)
INSTANTS = [START + 60 * HOUR + SECONDS, *(START + hour * HOUR + SECONDS for hour in (61, 62, 63, 66, 67, 68, 69))]


def arrive(lake: TestLake, until: datetime) -> None:
    """Ingest what has been received since the last call, and set the clock."""
    lake.files += 1
    path = lake.folder / f"arrivals-{lake.files}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    ARRIVALS.filter(pl.col("received_at") > lake.clock.instant, pl.col("received_at") <= until).write_parquet(path)
    lake.clock.instant = until
    ingest_paths(lake.settings, [path], IngestOptions(), lake.clock)


def live_lake(folder: Path) -> TestLake:
    lake = TestLake.at(folder, now=START - HOUR)
    lake.settings = lake.settings.model_copy(update={"forecast": ForecastSettings(snapshot_interval=timedelta(hours=4))})
    lake.register(random_weights())
    return lake


def follow(lake: TestLake) -> Follower:
    follower = Follower(lake.settings, lake.clock, score_matured)
    follower.lead()
    return follower


def take_over(lake: TestLake) -> Follower:
    """Follow a lake whose follower shows no sign of life."""
    standby = follow(lake)
    lake.clock.advance(LENGTH)
    standby.lead()
    return standby


def table(lake: TestLake, schema: type[Forecasts | Observations | Scores]) -> pl.DataFrame:
    return Lake(lake.settings.lake).scan(schema).collect().sort(schema.key)


def test_following_leaves_the_tables_of_single_runs(tmp_path: Path) -> None:
    """Shown to fail by a follower that does not score."""
    followed, scheduled = live_lake(tmp_path / "a"), live_lake(tmp_path / "b")
    arrive(followed, INSTANTS[0])
    follower = follow(followed)
    for instant in INSTANTS:
        arrive(followed, instant)
        assert follower.is_due()
        follower.tick()
        assert not follower.is_due()
        arrive(scheduled, instant)
        regularise(scheduled.settings, scheduled.clock)
        forecast(scheduled.settings, scheduled.clock)
        score_matured(scheduled.settings, scheduled.clock)
    for schema in (Observations, Forecasts, Scores):
        assert_frame_equal(table(followed, schema), table(scheduled, schema))
    assert table(followed, Forecasts).height == 3 * 10
    assert table(followed, Observations)["revision"].max() == 2


def test_a_follower_wakes_when_a_tick_closes_though_nothing_has_come_since(tmp_path: Path) -> None:
    """Shown to fail by a follower that wakes only when readings come."""
    lake = live_lake(tmp_path)
    arrive(lake, START + 60 * HOUR + timedelta(seconds=30))
    follower = follow(lake)
    assert follower.tick().forecast.latest_origin == START + 59 * HOUR
    assert not follower.is_due()
    lake.clock.advance(timedelta(seconds=30))
    assert follower.is_due()
    assert follower.tick().forecast.latest_origin == START + 60 * HOUR


def test_a_single_run_beside_a_follower_changes_nothing(tmp_path: Path) -> None:
    lake = live_lake(tmp_path)
    arrive(lake, INSTANTS[0])
    follower = follow(lake)
    follower.tick()
    arrive(lake, INSTANTS[1])
    regularise(lake.settings, lake.clock)
    (model,) = table(lake, Forecasts)["model_version"].unique()
    pointer = SnapshotPointers(lake.settings.state_dir).of(model)
    assert forecast(lake.settings, lake.clock).rows_written == 3
    assert SnapshotPointers(lake.settings.state_dir).of(model) == pointer
    done = follower.tick().forecast
    assert (done.ticks, done.rows_written) == (3, 0)


def test_a_follower_that_was_replaced_writes_nothing_more(tmp_path: Path) -> None:
    lake = live_lake(tmp_path)
    arrive(lake, INSTANTS[0])
    zombie = follow(lake)
    zombie.tick()
    successor = take_over(lake)
    arrive(lake, INSTANTS[1])
    with pytest.raises(LeaseLostError, match="Another process has taken over and goes on"):
        zombie.tick()
    assert table(lake, Forecasts)["origin"].max() == START + 60 * HOUR
    assert successor.tick().forecast.rows_written == 3


def test_a_replaced_process_neither_moves_the_snapshot_nor_commits_a_forecast(tmp_path: Path) -> None:
    """Shown to fail by a `Snapshots.save` that does not hold the lease, and by a commit without the fence."""
    lake = live_lake(tmp_path)
    arrive(lake, INSTANTS[0])
    regularise(lake.settings, lake.clock)
    model = champion(lake.settings)
    zombie = RollingForecasts.open(lake.settings, model, Leadership.take(lake.settings, lake.clock))
    zombie.advance(lake.clock)
    take_over(lake)
    with pytest.raises(LeaseLostError, match="requires the lease"):
        zombie.snapshot()
    assert SnapshotPointers(lake.settings.state_dir).of(model.identity) is None
    arrive(lake, INSTANTS[1])
    regularise(lake.settings, lake.clock)
    with pytest.raises(LeaseLostError, match="got token 1, and the table has 2"):
        zombie.advance(lake.clock)
    assert table(lake, Forecasts)["origin"].max() == START + 60 * HOUR


def follow_through(lake: TestLake, failures: list[Exception]) -> None:
    """Follow a lake whose ticks fail, each with the last of what is left of `failures`, until one does not."""
    stop = threading.Event()

    def score(settings: Settings, clock: Clock) -> int:
        if failures:
            raise failures.pop()
        stop.set()
        return 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.forecast.follower.AFTER_AN_ERROR", timedelta(milliseconds=1))
        Follower(lake.settings, lake.clock, score).run(stop, lambda _: None, print)


def test_a_follower_whose_tick_fails_goes_back_to_its_snapshot(tmp_path: Path) -> None:
    lake = live_lake(tmp_path)
    arrive(lake, INSTANTS[0])
    failures = [StoreError("full"), StoreError("full")]
    follow_through(lake, failures)
    assert not failures
    assert table(lake, Forecasts).height == 3
    assert SnapshotPointers(lake.settings.state_dir).of(table(lake, Forecasts)["model_version"][0]) is not None


def test_no_full_disk_ends_a_follower(tmp_path: Path) -> None:
    """Shown to fail by catching what the store says alone: the line of a handover is written beside it."""
    lake = live_lake(tmp_path)
    arrive(lake, INSTANTS[0])
    follow_through(lake, [OSError(28, "No space left on device")])
    assert table(lake, Forecasts).height == 3


def test_a_lake_that_does_not_answer_for_once_ends_no_follower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown to fail by asking outside of what is tried again: of a lake in an object store, each look asks the store."""
    lake = live_lake(tmp_path)
    arrive(lake, INSTANTS[0])
    stop, asked = threading.Event(), []

    def has_moved(*_: object) -> bool:
        asked.append(stop.is_set())
        if len(asked) == 1:
            raise StoreError("no answer")
        stop.set()
        return False

    monkeypatch.setattr(Lake, "has_moved", has_moved)
    monkeypatch.setattr("pipeline.forecast.follower.AFTER_AN_ERROR", timedelta(milliseconds=1))
    Follower(lake.settings, lake.clock, score_matured).run(stop, lambda _: None, print)
    assert len(asked) == 2
    assert table(lake, Forecasts).height == 3


def test_a_lake_that_was_moved_away_is_waited_for_and_nothing_is_made_in_its_place(tmp_path: Path) -> None:
    """Shown to fail by leases that make the folder they are asked in: the follower found itself replaced by nobody, and ended."""
    lake = live_lake(tmp_path)
    arrive(lake, INSTANTS[0])
    follower, place = follow(lake), Path(lake.settings.lake)
    follower.tick()
    place.rename(tmp_path / "away")
    assert follower.is_due()
    with pytest.raises(StoreError, match="which has none any more"):
        follower.tick()
    assert not place.exists()
    (tmp_path / "away").rename(place)
    arrive(lake, INSTANTS[1])
    assert follower.tick().forecast.rows_written == 3


def test_a_standby_outlives_leases_that_cannot_be_read(tmp_path: Path) -> None:
    """Shown to fail by passing the error on: when the leader died later, nobody was there any more."""
    lake = live_lake(tmp_path)
    arrive(lake, INSTANTS[0])
    follow(lake)
    leases, stop = lake.settings.state_dir / "leases.db", threading.Event()
    whole, said = leases.read_bytes(), []

    def stand_by(_: float) -> bool:
        said.append(leases.read_bytes() == whole)
        leases.write_bytes(b"damaged" if len(said) == 1 else whole)
        if len(said) == 3:
            stop.set()
        return stop.is_set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stop, "wait", stand_by)
        Follower(lake.settings, lake.clock, lambda *_: 0).run(stop, lambda _: None, print)
    assert said == [True, False, True]


def test_a_new_champion_takes_over_between_two_ticks(tmp_path: Path) -> None:
    """Shown to fail by a champion that is loaded at once, and by a rebuild that is not tried again."""
    lake = live_lake(tmp_path)
    arrive(lake, INSTANTS[0])
    follower = follow(lake)
    follower.tick()
    lake.register(random_weights(seed=1))
    assert not follower.is_due()
    assert not multiprocessing.active_children()  # to ask begins nothing
    follower.prepare_successor()
    (child,) = multiprocessing.active_children()
    child.kill()
    child.join()
    for instant in INSTANTS[1:3]:  # the old one goes on; after a minute the rebuild begins again
        arrive(lake, instant)
        assert follower.tick().forecast.model_version == "1"
        lake.clock.advance(TRY_AGAIN)
        follower.prepare_successor()
    follower.succession.wait(300)
    assert follower.is_due()
    follower.tick()
    arrive(lake, INSTANTS[3])
    assert follower.tick().forecast.model_version == "2"
    issued = table(lake, Forecasts).group_by("origin").agg(pl.len(), pl.col("model_version").str.head(1).unique()).sort("origin")
    assert issued["len"].to_list() == [3] * 4
    assert issued["model_version"].to_list() == [["1"], ["1"], ["1"], ["2"]]
    change = Handovers(lake.settings.state_dir).all()[-1]
    assert (change.version, change.last_origin) == ("2", (START + 62 * HOUR).isoformat())


def test_a_follower_waits_for_the_tables_and_then_for_a_model_and_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Shown to fail by `ModelError` passed on, and by a lease that is asked for before there are tables."""
    lake = TestLake.at(tmp_path, now=START - HOUR)
    follower, said = Follower(lake.settings, lake.clock, score_matured), []
    for _ in range(2):
        follower.lead(said.append)
    assert [sentence.split(" of ")[0] for sentence in said] == ["Waiting for the tables"]
    assert not Path(lake.settings.lake).exists()
    arrive(lake, INSTANTS[0])
    stop, turns = threading.Event(), []

    def turn(_: float) -> bool:
        turns.append(lake.register(random_weights()) if len(turns) == 2 else None)
        return stop.is_set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stop, "wait", turn)
        follower.run(stop, lambda _: stop.set(), said.append)
    assert said[1:] == [f"Following {lake.settings.lake}."]
    assert caplog.text.count("got no champion") == 1
    assert table(lake, Forecasts).height == 3


def test_a_champion_that_cannot_be_loaded_is_told_of_once_and_the_one_before_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Shown to fail by a rebuild whose process finds it out, or by a successor that raises it."""
    lake = live_lake(tmp_path)
    arrive(lake, INSTANTS[0])
    follower = follow(lake)
    follower.tick()
    version = lake.register(random_weights(seed=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.forecast.succession.load_version", missing)
        for instant in INSTANTS[1:3]:
            arrive(lake, instant)
            follower.prepare_successor()
            assert follower.tick().forecast.model_version == "1"
            lake.clock.advance(TRY_AGAIN)
    assert caplog.text.count("its files are gone") == 1
    follower.prepare_successor()
    follower.succession.wait(300)
    follower.tick()
    arrive(lake, INSTANTS[3])
    assert follower.tick().forecast.model_version == version


def missing(_settings: Settings, _version: str) -> None:
    """Be a registry without a version's files."""
    raise ModelError("its files are gone")


def test_a_follower_that_is_started_amid_a_change_goes_on_with_the_old_champion(tmp_path: Path) -> None:
    lake = live_lake(tmp_path)
    arrive(lake, INSTANTS[0])
    follow(lake).tick()
    lake.register(random_weights(seed=1))
    arrive(lake, INSTANTS[1])
    assert take_over(lake).tick().forecast.model_version == "1"
