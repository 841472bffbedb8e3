"""`tidecast doctor` as a user meets it: exit code 0 or 1, a line for each finding or one JSON document."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from flows.cli import app
from pipeline.schemas import Readings
from tests.streams import Stream


@pytest.fixture
def stream(tmp_path: Path) -> Stream:
    made = Stream(tmp_path)
    made.send(1, 20)
    made.drain()
    return made


def run(stream: Stream, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["doctor", "--lake", stream.settings.lake, *arguments])


def test_a_healthy_lake_exits_with_0(stream: Stream) -> None:
    done = run(stream, "--deep")
    assert done.exit_code == 0
    assert done.stdout.startswith("The lake is healthy: ")


def test_damage_exits_with_1_is_mended_and_then_healthy(stream: Stream) -> None:
    """Shown to fail by exiting with 0 always."""
    stream.log(Readings).write_bytes(b"")
    found, mended, again = run(stream), run(stream, "--repair"), run(stream, "--json")
    assert [done.exit_code for done in (found, mended, again)] == [1, 0, 0]
    assert f"{stream.log(Readings)}: the commit file is empty. --repair takes it out" in found.stdout
    assert "done: put an empty commit in the place of version 2 of readings." in mended.stdout
    report = json.loads(again.stdout)
    assert (report["is_healthy"], report["findings"]) == (True, [])


def test_maintain_records_the_hashes_that_a_deep_examination_needs(stream: Stream) -> None:
    done = CliRunner().invoke(app, ["maintain", "--lake", stream.settings.lake, "--json"])
    assert json.loads(done.stdout)["hashed"]["files"] > 0
    assert json.loads(run(stream, "--deep", "--json").stdout)["hashed"] == len(stream.lake.open(Readings).file_uris()) + 1
