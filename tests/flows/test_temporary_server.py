"""Verbs without PREFECT_API_URL, whose server Prefect starts itself: asked to stop in the middle as a terminal does it, and killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from pipeline.failpoints import VARIABLE
from tests.lakes import START, TestLake, hourly_readings, random_weights
from tests.waiting import until_stopped

START_S = 240.0  # of a busy machine
END_S = 30.0  # of one too; it takes two seconds, and more than a minute where the flow asks a server that is gone


@pytest.fixture
def lake(tmp_path: Path) -> TestLake:
    """A lake with a champion that has not forecast yet."""
    lake = TestLake.at(tmp_path)
    lake.register(random_weights())
    lake.ingest(hourly_readings(80))
    return lake


@contextmanager
def stopped_at_its_write(lake: TestLake, verb: str) -> Iterator[subprocess.Popen[str]]:
    """Run a verb in a process group of its own, up to its first write; end the whole group afterwards."""
    more = lake.folder / "more.csv"
    more.write_text(f"device_id,ts,temperature\nnorth,{START.isoformat()},1\n")
    arguments = [verb, "--json", *([str(more)] if verb == "ingest" else [])]
    environment = {**os.environ, **lake.environment(), "PREFECT_HOME": str(lake.folder / "prefect"), VARIABLE: "lake.before_write:1:stop"}
    environment.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-c", "from flows.cli import main; main()", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, start_new_session=True, **pipes) as process:
        try:
            until_stopped(process, START_S)
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize(("verb", "number", "code", "num_lines"), [("forecast", signal.SIGTERM, 143, 1), ("ingest", signal.SIGINT, 130, 0)])
def test_a_signal_to_all_of_a_verb_ends_it_at_once_and_without_a_traceback(
    lake: TestLake, verb: str, number: signal.Signals, code: int, num_lines: int
) -> None:
    """Shown to fail: `ingest` by a server in the verb's group; `forecast`, which is asynchronous, by leaving the signal to Prefect."""
    with stopped_at_its_write(lake, verb) as process:
        os.killpg(process.pid, number)
        process.send_signal(signal.SIGCONT)
        said, errors = process.communicate(timeout=END_S)
    assert (process.returncode, said, errors.count("\n")) == (code, "", num_lines), errors


def test_a_verb_that_is_killed_leaves_no_server_behind(lake: TestLake) -> None:
    """A server that lives on holds the pipe of its parent's errors. Shown to fail without `_end_with_parent`."""
    with stopped_at_its_write(lake, "ingest") as process:
        process.kill()
        process.communicate(timeout=END_S)
    assert process.returncode == -signal.SIGKILL
