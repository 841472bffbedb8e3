"""The verbs that show what came in, on what devices may send: names and payloads that a terminal might obey."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app

HOSTILE = "pump[/red]"  # markup that closes nothing
LINES = [
    f'{{"device_id":"{HOSTILE}","metric":"t","ts":"2026-05-01T00:00:00Z","value":1.5,"seq":1}}',
    '{"device_id":"fan","metric":"t","ts":"2026-05-01T00:00:00Z","value":1.5,"seq":1}',
    "\x1b[2J[bold]no JSON",
]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of two readings and a line of garbage."""
    folder = tmp_path_factory.mktemp("inspect")
    (folder / "a.ndjson").write_text("\n".join(LINES))
    done = CliRunner().invoke(app, ["ingest", str(folder / "a.ndjson"), "--lake", str(folder / "lake"), "--no-orchestrator"])
    assert done.exit_code == 0, done.output
    return folder / "lake"


def run(lake: Path, *arguments: str) -> str:
    done = CliRunner().invoke(app, [*arguments, "--lake", str(lake)])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_names_and_payloads_are_shown_as_text(lake: Path) -> None:
    """Shown to fail by handing them to the table as they are: rich then refuses the tag that closes nothing."""
    assert "pump[/red]/t" in run(lake, "series")
    shown = run(lake, "quarantine")
    assert r"\x1b[2J[bold]no JSON" in shown
    assert "\x1b[2J" not in shown


def test_a_pipe_gets_plain_lines(lake: Path) -> None:
    """Shown to fail by the frames that a terminal gets, which need 150 characters for a payload."""
    shown = run(lake, "series") + run(lake, "quarantine")
    assert "│" not in shown
    (at,) = (number for number, line in enumerate(shown.splitlines()) if line.endswith("a.ndjson:3  17 bytes"))
    assert shown.splitlines()[at + 2] == r"    \x1b[2J[bold]no JSON"


def test_states_narrow_the_list_and_retiring_moves_a_series_between_them(lake: Path) -> None:
    assert json.loads(run(lake, "retire", "fan/*", "--json")) == {"series": ["fan/t"], "retired": True}
    (retired,) = json.loads(run(lake, "series", "--state", "retired", "--json"))
    assert (retired["series_id"], retired["state"]) == ("fan/t", "retired")
    run(lake, "retire", "fan/*", "--undo")
    assert json.loads(run(lake, "series", "--state", "retired", "--state", "active", "--json")) == []


def test_quarantine_reports_as_json_what_it_draws(lake: Path) -> None:
    report = json.loads(run(lake, "quarantine", "--code", "unparseable_line", "--connector", "file:*", "--json"))
    assert (report["total"], report["counts"][0]["payloads"], report["newest"][0]["payload"]) == (1, 1, r"\x1b[2J[bold]no JSON")
    assert json.loads(run(lake, "quarantine", "--limit", "0", "--json"))["newest"] == []
