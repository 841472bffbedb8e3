"""`tidecast explain` as a user meets it: a table, one JSON document, a picture."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from tests.lakes import TestLake, hourly_readings, random_weights

SERIES = "north/temperature"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> TestLake:
    """A lake with a champion and two series."""
    lake = TestLake.at(tmp_path_factory.mktemp("lake"))
    lake.ingest(hourly_readings(60))
    lake.register(random_weights())
    return lake


def test_json_holds_parts_that_add_up_and_the_picture(lake: TestLake, tmp_path: Path) -> None:
    """Shown to fail by leaving the level out of the parts."""
    picture = tmp_path / "why.png"
    done = CliRunner().invoke(app, ["explain", SERIES, "--step", "4", "--out", str(picture), "--json"], env=lake.environment())
    found = json.loads(done.stdout)
    assert (done.exit_code, found["picture"]) == (0, str(picture))
    assert sum(part["amount"] for part in found["parts"]) == pytest.approx(found["forecast"], abs=1e-2)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_table_shows_parts_and_readings(lake: TestLake) -> None:
    shown = CliRunner().invoke(app, ["explain", SERIES, "--origin", "2026-03-04T02:30Z"], env=lake.environment()).stdout
    assert "step 1 from 2026-03-04 02:00, model 1" in shown
    assert "the last reading" in shown
    assert "The readings that moved it most" in shown
