"""`tidecast forecast --follow` as real processes: killed, paused, replaced and asked to stop, against an undisturbed run."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from pipeline.evaluate.maturity import score_matured
from pipeline.forecast.rolling import forecast
from pipeline.ingest.ingest import IngestOptions, ingest_paths
from pipeline.prepare.regularise import regularise
from pipeline.schemas import Forecasts, Scores
from pipeline.store.lake import Lake, read
from pipeline.store.snapshot_pointers import SnapshotPointers
from tests.lakes import HOUR, START, TestLake, hourly_readings, random_weights
from tests.waiting import until

READINGS = hourly_readings(100)
COMMAND = [sys.executable, "-c", "from flows.cli import main; main()", "forecast", "--follow", "--json"]
DEADLINE_S = 240.0  # of a busy machine: a process alone starts in five seconds
KILLS = 4


def arrive(lake: TestLake, first: int, last: int) -> None:
    """Commit the readings of some hours, which closed long ago."""
    lake.files += 1
    path = lake.folder / f"hours-{lake.files}.parquet"
    READINGS.filter(pl.col("ts") >= START + first * HOUR, pl.col("ts") < START + last * HOUR).write_parquet(path)
    ingest_paths(lake.settings, [path], IngestOptions(), lake.clock)


@contextmanager
def follower(lake: TestLake) -> Iterator[subprocess.Popen[str]]:
    """Run a follower that writes a snapshot after every tick; killed at the end if it still runs."""
    environment = {**os.environ, **lake.environment(), "TIDECAST_FORECAST__SNAPSHOT_INTERVAL": "PT0S"}
    process = subprocess.Popen(COMMAND, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> dict[str, dict[str, object]]:
    """Return the report of the next tick."""
    assert process.stdout is not None
    report: dict[str, dict[str, object]] = json.loads(process.stdout.readline())
    return report


def rows(lake: TestLake, schema: type[Forecasts | Scores]) -> pl.DataFrame:
    instants = ["created_at", "scored_at", "input_version"]  # of the run that wrote them
    return read(Lake(lake.settings.lake).scan(schema)).drop(instants, strict=False).sort(schema.key)


def until_forecast(lake: TestLake, hours: int) -> None:
    """Wait until the newest origin is there, and its predecessors' scores with it."""
    until(lambda: rows(lake, Forecasts)["origin"].max() == START + (hours - 1) * HOUR, DEADLINE_S)


@pytest.fixture
def lake(tmp_path: Path) -> TestLake:
    lake = TestLake.at(tmp_path)
    lake.register(random_weights())
    arrive(lake, 0, 80)
    return lake


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> TestLake:
    """All hours, in one process that nothing happened to."""
    lake = TestLake.at(tmp_path_factory.mktemp("undisturbed"))
    lake.register(random_weights())
    for first, last in ((0, 80), (80, 90), (90, 100)):
        arrive(lake, first, last)
        regularise(lake.settings, lake.clock)
        forecast(lake.settings, lake.clock)
        score_matured(lake.settings, lake.clock)
    return lake


def assert_same_tables(lake: TestLake, undisturbed: TestLake) -> None:
    for schema in (Forecasts, Scores):
        assert_frame_equal(rows(lake, schema), rows(undisturbed, schema), rel_tol=1e-5)


def test_a_follower_that_is_killed_at_random_leaves_the_tables_of_an_undisturbed_run(lake: TestLake, undisturbed: TestLake) -> None:
    moments = random.Random(0)
    with follower(lake) as process:
        line(process)  # the first forecast of a series says where its history begins
    hours = [80, *sorted(moments.sample(range(81, 100), KILLS - 1)), 100]
    for first, last in pairwise(hours):
        with follower(lake) as process:
            assert process.stderr is not None
            assert process.stderr.readline().startswith("Following")
            arrive(lake, first, last)
            time.sleep(moments.uniform(0, 1.5))  # the moment of the kill is what is random here
            process.kill()
    with follower(lake) as process:
        until_forecast(lake, 100)
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0
    score_matured(lake.settings, lake.clock)
    assert_same_tables(lake, undisturbed)


def test_a_paused_follower_is_replaced_and_writes_nothing_when_it_wakes(lake: TestLake, undisturbed: TestLake) -> None:
    with follower(lake) as zombie, follower(lake) as standby:
        first, second = (zombie, standby) if _says(zombie, standby) else (standby, zombie)
        line(first)
        first.send_signal(signal.SIGSTOP)
        arrive(lake, 80, 90)
        assert line(second)["forecast"]["rows_written"] == 20
        first.send_signal(signal.SIGCONT)
        arrive(lake, 90, 100)
        assert first.wait(DEADLINE_S) == 1
        until_forecast(lake, 100)
        pointer = SnapshotPointers(lake.settings.state_dir).of(rows(lake, Forecasts)["model_version"][0])
        second.send_signal(signal.SIGTERM)
        assert second.wait(DEADLINE_S) == 0
        assert first.stderr is not None
        sentence = first.stderr.read().strip().splitlines()[-1]
    assert "Another process has taken over and goes on; this one wrote nothing more." in sentence
    assert pointer is not None
    score_matured(lake.settings, lake.clock)
    assert_same_tables(lake, undisturbed)


def _says(zombie: subprocess.Popen[str], standby: subprocess.Popen[str]) -> bool:
    """Wait for the first word of both, and return whether the first one follows."""
    assert zombie.stderr is not None
    assert standby.stderr is not None
    words = [process.stderr.readline().split(" ", 1)[0] for process in (zombie, standby) if process.stderr]
    assert sorted(words) == ["Following", "Standing"]
    return words[0] == "Following"


def test_sigterm_ends_a_follower_with_its_state_on_disk(lake: TestLake) -> None:
    with follower(lake) as process:
        line(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0
    assert forecast(lake.settings, lake.clock).ticks == 0
