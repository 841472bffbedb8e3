"""`tidecast watch` as a process on a real pseudo-terminal: it starts, follows the lake, and leaves the terminal as it was."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from flows.cli import app
from pipeline.schemas import Observations, Scores
from pipeline.store.catalog import Catalog
from pipeline.store.forecasts import append_forecasts
from pipeline.store.lake import Lake
from pipeline.store.observations import write_observations
from pipeline.store.scores import append_scores
from tests.pipeline.test_query import HOUR, START, forecast
from tests.pipeline.test_score_report import score
from tests.pipeline.test_watch import FLOW, observation, register

OWN_TERMINAL = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); from flows.cli import main; main()"
DEADLINE_S = 60.0
SECOND_SCREEN, FIRST_SCREEN, CURSOR = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(str(tmp_path / "lake"))
    made.create_all()
    register(Catalog(tmp_path / "lake" / "state"), FLOW, 9)
    rows = [observation(FLOW, hour, float(hour % 5)) for hour in range(10)]
    write_observations(made, Observations.conform(pl.DataFrame(rows)), readings_version=1)
    append_forecasts(made, forecast(FLOW, START + 9 * HOUR))
    return made


class Terminal:
    """A process on a pseudo-terminal of its own, 24 lines of 80 characters, and what it has written there."""

    def __init__(self, *arguments: str) -> None:
        self.ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 80))
        self.before = termios.tcgetattr(theirs)
        self.theirs, self.written = theirs, b""
        environment = {**os.environ, "TERM": "xterm-256color"}
        streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
        command = [sys.executable, "-c", OWN_TERMINAL, *arguments]
        self.process = subprocess.Popen(command, start_new_session=True, env=environment, **streams)

    def wait_for(self, sign: bytes, after: int = 0) -> int:
        """Read until a sign has been written, and return where it ends."""
        deadline = time.monotonic() + DEADLINE_S
        while sign not in self.written[after:]:
            ready, _, _ = select.select([self.ours], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{sign!r} must come; got {self.written[-500:]!r}"
            self.written += os.read(self.ours, 65_536)
        return self.written.index(sign, after) + len(sign)

    def close(self) -> None:
        """End the process if it has not ended, and give the terminal back."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)


@pytest.fixture
def terminal(lake: Lake) -> Iterator[Terminal]:
    opened = Terminal("watch", FLOW, "--every", "200ms", "--lake", lake.uri)
    yield opened
    opened.close()


@pytest.mark.parametrize("ended_by", ["Ctrl-C", "SIGTERM"])
def test_it_starts_follows_the_lake_and_leaves_the_terminal_as_it_was(terminal: Terminal, lake: Lake, ended_by: str) -> None:
    """Shown to fail by reading forecasts at the start only, and by letting the interrupt pass."""
    started = terminal.wait_for(b"from 01-31 21:00")
    append_forecasts(lake, forecast(FLOW, START + 10 * HOUR))
    terminal.wait_for(b"from 01-31 22:00", started)
    if ended_by == "Ctrl-C":
        os.write(terminal.ours, b"\x03")
    else:
        terminal.process.send_signal(signal.SIGTERM)
    left = terminal.wait_for(FIRST_SCREEN)
    assert terminal.process.wait(DEADLINE_S) == (0 if ended_by == "Ctrl-C" else 143)
    assert terminal.written.index(SECOND_SCREEN) < started
    assert CURSOR in terminal.written
    assert b"Traceback" not in terminal.written[left:]
    assert termios.tcgetattr(terminal.theirs) == terminal.before


def test_in_a_pipe_it_prints_one_plain_frame(lake: Lake) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from flows.cli import main; main()", "watch", "pump-1/*", "--lake", lake.uri],
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "COLUMNS"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert lines[0].startswith("pump-1/flow")
    assert max(map(len, lines)) == 80
    assert lines[-4].startswith("forecast  from 01-31 21:00 · ok · model 1 · made ")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", lines[-1].strip())


def test_json_is_one_document_with_what_is_seen(lake: Lake) -> None:
    seen = json.loads(CliRunner().invoke(app, ["watch", FLOW, "--lake", lake.uri, "--json"]).stdout)
    (series,) = seen["series"]
    assert (series["series_id"], series["sample_interval"], len(series["history"])) == (FLOW, 3600.0, 10)
    assert [step["median"] for step in series["fan"]["steps"]] == pytest.approx([1.5, 2.5, 3.5, 4.5])
    assert series["day"] is None


def test_looking_more_often_than_a_look_takes_is_refused(lake: Lake) -> None:
    done = CliRunner().invoke(app, ["watch", FLOW, "--every", "1ms", "--lake", lake.uri])
    assert done.exit_code == 2
    assert "at least 100ms" in done.output


def test_scores_reports_in_a_table_and_as_json(lake: Lake) -> None:
    assert "No forecast of such a series has come true" in CliRunner().invoke(app, ["scores", "--lake", lake.uri]).output
    append_scores(lake, Scores.conform(pl.DataFrame([score(FLOW, START + 9 * HOUR, -2.0)])))
    shown = CliRunner().invoke(app, ["scores", "--lake", lake.uri]).stdout
    assert "up to 2026-01-31 21:00 UTC" in shown
    assert "100 %" in shown
    report = json.loads(CliRunner().invoke(app, ["scores", "--lake", lake.uri, "--by", "lead", "--last", "2h", "--json"]).stdout)
    (row,) = report["rows"]
    assert row == {"metric": "flow", "lead": 3600.0, "scored": 1, "mae": 2.0, "bias": -2.0, "pinball": 1.0, "coverage": 1.0}
