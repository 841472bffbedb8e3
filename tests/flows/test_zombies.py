"""Two runs of a flow, of which the first is stopped between its look at a table and its write, and goes on when the second has finished."""

import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL
from prefect.testing.utilities import prefect_test_harness

from flows.quiet import hush
from pipeline.failpoints import VARIABLE
from pipeline.listen.inbox import Inbox
from pipeline.payloads.message import Message
from pipeline.schemas import Forecasts, Observations, Quarantine, Readings, TableSchema
from pipeline.store.lake import Lake, read
from tests.lakes import HOUR, START, TestLake, hourly_readings, random_weights
from tests.waiting import until_stopped

pytestmark = [
    # Prefect leaves the sockets of its server's clients to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

PATIENCE_S = 240.0
READINGS = hourly_readings(90)
AT_THE_WRITE = "lake.before_write:1:stop"


@pytest.fixture(scope="module")
def prefect_server() -> Iterator[str]:
    """Start one Prefect server for all runs, and let it phone nobody."""
    hush()
    with prefect_test_harness(server_startup_timeout=120):
        yield PREFECT_API_URL.value()
    gc.collect()  # here, where what Prefect left open is excused


@pytest.fixture
def lake(tmp_path: Path) -> TestLake:
    """A lake with 80 hours of two series and a champion that has not forecast yet."""
    lake = TestLake.at(tmp_path)
    lake.register(random_weights())
    lake.ingest(READINGS.filter(READINGS["ts"] < START + 80 * HOUR))
    return lake


def zombie(lake: TestLake, server: str, *verb: str) -> tuple[dict[str, int], dict[str, int]]:
    """Stop a run at its first write, let another do the work, wake the first; return the report of each."""
    command = [sys.executable, "-c", "from flows.cli import main; main()", *verb, "--json"]
    environment = {**os.environ, **lake.environment(), "PREFECT_API_URL": server}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    first = subprocess.Popen(command, env={**environment, VARIABLE: AT_THE_WRITE}, **pipes)
    try:
        until_stopped(first, PATIENCE_S)
        other = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        first.send_signal(signal.SIGCONT)
        said, errors = first.communicate(timeout=PATIENCE_S)
    finally:
        first.kill()
        first.communicate()
    assert (first.returncode, other.returncode) == (0, 0), errors + other.stderr
    return json.loads(said), json.loads(other.stdout)


def num_rows(lake: TestLake, schema: type[TableSchema]) -> int:
    """Return how many rows a table has, each with a key of its own."""
    rows = read(Lake(lake.settings.lake).scan(schema))
    assert not rows.select(schema.key).is_duplicated().any()
    return len(rows)


def test_an_ingest_that_wakes_after_another_has_read_its_files_stores_nothing(lake: TestLake, prefect_server: str) -> None:
    """Shown to fail by writing through the table's path in place of the handle that the look was made with."""
    file = lake.folder / "more.parquet"
    READINGS.filter(READINGS["ts"] >= START + 80 * HOUR).write_parquet(file)
    first, other = zombie(lake, prefect_server, "ingest", str(file))
    assert [other[count] for count in ("read", "accepted", "duplicate")] == [20, 20, 0]
    assert [first[count] for count in ("read", "accepted", "duplicate")] == [20, 0, 20]
    assert (num_rows(lake, Readings), num_rows(lake, Observations), num_rows(lake, Quarantine)) == (180, 180, 0)


def test_a_tick_that_wakes_in_its_drain_after_another_has_drained_stores_nothing(lake: TestLake, prefect_server: str) -> None:
    more = READINGS.filter(READINGS["ts"] >= START + 80 * HOUR)
    sent = [(ts, json.dumps({"series_id": series, "ts": ts.isoformat(), "value": value})) for series, ts, value, *_ in more.rows()]
    with closing(Inbox(lake.settings.state_dir)) as inbox:
        inbox.put([Message("mqtt", "site", payload.encode(), ts + timedelta(seconds=1)) for ts, payload in sent])
    first, other = zombie(lake, prefect_server, "forecast")
    assert (other["rows_written"], first["rows_written"]) == (2, 0)
    assert (num_rows(lake, Readings), num_rows(lake, Observations), num_rows(lake, Quarantine)) == (180, 180, 0)


def test_a_tick_that_wakes_at_its_forecasts_after_another_has_written_them_writes_none(lake: TestLake, prefect_server: str) -> None:
    first, other = zombie(lake, prefect_server, "forecast", "--origins", "3")
    assert other["rows_written"] == 6
    assert first["rows_written"] == 0
    assert num_rows(lake, Forecasts) == 6
