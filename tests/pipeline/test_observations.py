"""The observations table on real Delta: replays and races change nothing, and reads are as they were known."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from pipeline.errors import DataError
from pipeline.schemas import Observations
from pipeline.store.lake import Lake
from pipeline.store.observations import (
    Progress,
    changed_observations,
    observations_between,
    read_observations,
    read_progress,
    write_observations,
)

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def lake(tmp_path):
    lake = Lake(str(tmp_path / "lake"))
    lake.create_all()
    return lake


def rows(*cells):
    """Observations from (series_id, hour, value, revision, minutes from the label to available_at)."""
    return Observations.conform(
        pl.DataFrame(
            [
                (
                    series,
                    START + hour * HOUR,
                    value,
                    value is not None,
                    int(value is not None),
                    revision,
                    START + hour * HOUR + late * MINUTE,
                )
                for series, hour, value, revision, late in cells
            ],
            schema=[name for name in Observations.columns if name != "event_date"],
            orient="row",
            strict=False,
        ).with_columns(event_date=pl.col("ts").dt.date())
    )


def everything(lake):
    return lake.scan(Observations).collect().select(list(Observations.columns)).sort(Observations.key)


def files(lake):
    return set(lake.open(Observations).file_uris())


def test_a_replay_writes_nothing_and_makes_no_version(lake):
    frame = rows(("a", 1, 1.0, 1, 1), ("a", 2, None, 1, 1))
    assert write_observations(lake, frame, readings_version=1).height == 2
    version = lake.version(Observations)
    assert write_observations(lake, frame, readings_version=1).is_empty()
    assert lake.version(Observations) == version


def test_a_frame_of_older_readings_is_refused_whole(lake):
    newer, older = rows(("a", 1, 2.0, 1, 1)), rows(("a", 1, 1.0, 1, 1), ("b", 1, 1.0, 1, 1))
    write_observations(lake, newer, readings_version=2)
    assert write_observations(lake, older, readings_version=1) is None
    assert_frame_equal(everything(lake), newer)


def test_a_frame_of_an_earlier_instant_is_refused_whole(lake):
    frame = rows(("a", 1, 1.0, 1, 1))
    write_observations(lake, frame, readings_version=1, closed_until=START + DAY)
    assert write_observations(lake, rows(("a", 2, 1.0, 1, 1)), readings_version=2, closed_until=START) is None
    assert_frame_equal(everything(lake), frame)


def test_the_same_readings_write_more_when_more_ticks_have_closed(lake):
    first, both = rows(("a", 1, 1.0, 1, 1)), rows(("a", 1, 1.0, 1, 1), ("a", 2, 2.0, 1, 1))
    write_observations(lake, first, readings_version=1, closed_until=START + HOUR)
    assert write_observations(lake, both, readings_version=1, closed_until=START + 2 * HOUR).height == 1
    assert_frame_equal(everything(lake), both)


def test_new_rows_are_appended_beside_the_old_files(lake):
    write_observations(lake, rows(("a", 1, 1.0, 1, 1)), readings_version=1)
    before = files(lake)
    write_observations(lake, rows(("a", 1, 1.0, 1, 1), ("a", 1, 1.5, 2, 90)), readings_version=2)
    assert before < files(lake)


def test_only_the_days_that_change_are_rewritten(lake):
    write_observations(lake, rows(("a", 1, 1.0, 1, 1), ("b", 2, 5.0, 1, 1), ("a", 30, 3.0, 1, 1)), readings_version=1)
    tomorrow = {uri for uri in files(lake) if "2026-01-02" in uri}
    write_observations(lake, rows(("a", 1, 9.0, 1, 1)), readings_version=2)
    assert {uri for uri in files(lake) if "2026-01-02" in uri} == tomorrow
    assert_frame_equal(everything(lake), rows(("a", 1, 9.0, 1, 1), ("a", 30, 3.0, 1, 1), ("b", 2, 5.0, 1, 1)))


def test_a_revision_that_is_no_more_is_removed(lake):
    write_observations(lake, rows(("a", 1, 1.0, 1, 1), ("a", 1, 2.0, 2, 90)), readings_version=1)
    write_observations(lake, rows(("a", 1, 2.0, 1, 1), ("b", 40, 1.0, 1, 1)), readings_version=2)
    assert_frame_equal(everything(lake), rows(("a", 1, 2.0, 1, 1), ("b", 40, 1.0, 1, 1)))


def test_progress_is_recorded_with_the_rows_and_without_any(lake):
    assert read_progress(lake.open(Observations)) is None
    write_observations(lake, Observations.empty(), readings_version=3, closed_until=START, allowed_lateness=MINUTE)
    assert read_progress(lake.open(Observations)) == Progress(3, START, MINUTE)


def _write_many(uri, name, versions):
    """Write one tick of its own and one contested tick for each version (top level: another process runs it)."""
    for version in versions:
        frame = rows((name, version, float(version), 1, 1), ("contested", 0, float(version), 1, 1))
        write_observations(Lake(uri), frame, readings_version=version)


def test_two_processes_that_race_leave_each_tick_once(lake):
    context = multiprocessing.get_context("spawn")
    racers = [context.Process(target=_write_many, args=(lake.uri, name, range(1, 9))) for name in ("a", "b")]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    table = everything(lake)
    assert [racer.exitcode for racer in racers] == [0, 0]
    assert table.select(Observations.key).is_unique().all()
    assert table.filter(pl.col("series_id") == "contested")["value"].to_list() == [8.0]


def test_threads_that_write_the_same_frame_write_it_once(lake):
    frame = rows(*(("a", hour, float(hour), 1, 1) for hour in range(50)))
    with ThreadPoolExecutor(4) as pool:
        written = list(pool.map(lambda _: write_observations(lake, frame, readings_version=1).height, range(4)))
    assert sorted(written) == [0, 0, 0, 50]
    assert_frame_equal(everything(lake), frame.sort(Observations.key))


@pytest.fixture
def revised(lake):
    """Hour 1 is known on time and corrected at 3:00, hour 2 first arrives at 3:00, hour 3 is a gap."""
    frame = rows(("a", 1, 1.0, 1, 1), ("a", 1, 1.5, 2, 120), ("a", 2, 2.0, 1, 60), ("a", 3, None, 1, 1), ("b", 1, 7.0, 1, 1))
    write_observations(lake, frame, readings_version=1)
    return lake


def read(lake, **how):
    return read_observations(lake, **how).select("series_id", "value", "revision").rows()


def test_a_plain_read_gives_the_latest_revisions_in_order(revised):
    assert read(revised) == [("a", 1.5, 2), ("a", 2.0, 1), ("a", None, 1), ("b", 7.0, 1)]


def test_an_as_of_read_gives_what_was_available_then(revised):
    assert read(revised, as_of=START + HOUR) == []
    assert read(revised, as_of=START + HOUR + MINUTE) == [("a", 1.0, 1), ("b", 7.0, 1)]
    assert read(revised, as_of=START + 3 * HOUR) == [("a", 1.5, 2), ("a", 2.0, 1), ("b", 7.0, 1)]


def test_an_on_time_read_has_each_tick_as_it_closed(revised):
    assert read(revised, on_time=MINUTE) == [("a", 1.0, 1), ("a", None, 0), ("a", None, 1), ("b", 7.0, 1)]
    assert read(revised, on_time=HOUR) == [("a", 1.0, 1), ("a", 2.0, 1), ("a", None, 1), ("b", 7.0, 1)]


def test_a_tick_unknown_on_time_says_so_in_every_column(revised):
    unknown = read_observations(revised, on_time=MINUTE, start=START + 2 * HOUR, end=START + 2 * HOUR)
    assert unknown.select("value", "observed", "n_obs", "revision").rows() == [(None, False, 0, 0)]


def test_reads_by_series_and_by_labels_include_both_ends(revised):
    assert read(revised, series=["b"]) == [("b", 7.0, 1)]
    assert read(revised, start=START + HOUR, end=START + 2 * HOUR, series=["a"]) == [("a", 1.5, 2), ("a", 2.0, 1)]


def test_as_of_and_on_time_together_are_refused(revised):
    with pytest.raises(DataError, match="got both"):
        read_observations(revised, as_of=START, on_time=MINUTE)


def test_a_read_of_two_days_opens_the_files_of_two_days(lake):
    write_observations(lake, rows(*(("a", 24 * day + 1, 1.0, 1, 1) for day in range(10))), readings_version=1)
    scan = observations_between(lake.scan(Observations), START + 3 * DAY, START + 4 * DAY + HOUR)
    plan = scan.explain()
    assert [day for day in range(1, 11) if f"event_date=2026-01-{day:02}" in plan or f"event_date%3D2026-01-{day:02}" in plan] == [4, 5]
    assert read_observations(lake, start=START + 3 * DAY, end=START + 4 * DAY + HOUR).height == 2


def test_changes_since_a_version_are_the_ticks_whose_rows_differ(lake):
    write_observations(lake, rows(("a", 1, 1.0, 1, 1), ("a", 2, 2.0, 1, 1)), readings_version=1)
    version = lake.version(Observations)
    write_observations(lake, rows(("a", 1, 9.0, 1, 1), ("a", 30, 3.0, 1, 1)), readings_version=2)
    assert changed_observations(lake, version).rows() == [("a", START + HOUR), ("a", START + 30 * HOUR)]
    assert changed_observations(lake, lake.version(Observations)).is_empty()


def test_a_compaction_changes_no_observation(lake):
    write_observations(lake, rows(("a", 1, 1.0, 1, 1)), readings_version=1)
    write_observations(lake, rows(("a", 2, 2.0, 1, 1)), readings_version=2)
    version = lake.version(Observations)
    lake.open(Observations).optimize.compact()
    assert changed_observations(lake, version).is_empty()


def test_changes_since_a_version_that_is_gone_are_unknown(lake):
    assert changed_observations(lake, 999) is None
