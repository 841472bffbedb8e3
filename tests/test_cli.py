"""The command `tidecast` as a user meets it: help, results on stdout, faults as one sentence on stderr, exit codes."""

import json
import os
import re
import resource
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from rich.text import Text
from typer.main import get_command
from typer.testing import CliRunner

from flows.cli import app
from pipeline.schemas import Forecasts, Observations
from pipeline.store.forecasts import append_forecasts
from pipeline.store.lake import Lake
from pipeline.store.observations import write_observations
from tests.pipeline.test_watch import observation

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-c", "from flows.cli import main; main()"]
VERBS = [
    "demo",
    "simulate",
    "ingest",
    "train",
    "tune",
    "study depth",
    "backtest",
    "forecast",
    "query",
    "watch",
    "scores",
    "explain",
    "fill",
    "listen mqtt",
    "verify",
    "serve",
    "ui",
    "maintain",
    "doctor",
    "series",
    "retire",
    "quarantine",
    "replay-quarantine",
    "data list",
    "data get",
    "listen http",
    "listen files",
    "listen kafka",
]
ORIGIN = datetime(2026, 1, 1, tzinfo=UTC)


def tidecast(*arguments: str | Path, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the real command, without Prefect where a verb would use it."""
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


def row(series: str, hour: int, version: str = "1") -> dict[str, object]:
    """Return a stored forecast of horizon 2 with three quantiles."""
    return {
        "series_id": series,
        "origin": ORIGIN + timedelta(hours=hour),
        "horizon": 2,
        "sample_interval_us": 3_600_000_000,
        "quantile_levels": [0.1, 0.5, 0.9],
        "quantiles": [hour + 1.0, hour + 2.0, hour + 3.0, hour + 4.0, hour + 5.0, hour + 6.0],
        "model_version": version,
        "input_version": 1,
        "status": "ok",
        "created_at": ORIGIN + timedelta(hours=hour),
        "origin_date": ORIGIN.date(),
    }


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with two origins of two series, horizon 2, three quantiles."""
    folder = tmp_path_factory.mktemp("lake")
    Lake(str(folder)).create_all()
    rows = [row(series, hour) for series in ("pump-1/flow", "pump-2/flow") for hour in (0, 1)]
    append_forecasts(Lake(str(folder)), pl.DataFrame(rows, schema=Forecasts.polars()))
    return folder


def test_help_lists_every_verb_within_a_second_of_work() -> None:
    """Of the processor's time, which other work on the machine hardly stretches; 0.2 s on an idle one.

    Shown to fail by importing prefect at the top of flows/cli_stages.py.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    shown = tidecast("--help")
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 1.0
    assert shown.returncode == 0
    assert [verb for verb in VERBS if verb.split()[0] not in shown.stdout] == []


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_and_takes_the_common_options(verb: str) -> None:
    shown = CliRunner().invoke(app, [*verb.split(), "--help"], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})
    assert shown.exit_code == 0
    assert re.search(r"^ [A-Z].+\.", shown.stdout.split("Usage:")[1], re.MULTILINE), "a sentence that says what it does"
    assert [option for option in ("--json", "--no-orchestrator") if option not in shown.stdout] == []


def test_every_verb_of_the_command_is_tested_here() -> None:
    group = get_command(app)
    assert sorted({verb.split()[0] for verb in VERBS}) == sorted(group.commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_in_the_readme(verb: str) -> None:
    assert f"tidecast {verb}" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    assert CliRunner().invoke(app, ["--version"]).stdout == f"tidecast {version('tidecast')}\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["query", "--lake", "gs://bucket"], "lake requires a folder, a file:// or an s3:// URI"),
        (["query", "--lake", ""], "lake requires a folder, a file:// or an s3:// URI"),
        (["query", "--output", "foo.json", "--format", "csv"], r"--format csv requires a file that ends in .csv; got foo.json"),
        (["query", "--inputs", "--with-actuals"], "--inputs requires a query without options that say how forecasts are written"),
        (["query", "--settings", "nowhere.toml"], "--settings requires a TOML file; got nowhere.toml"),
        (["train", "--bidirectional", "--no-orchestrator"], "reads? the target forward in time only"),
        (["ingest", "nothing.csv", "--no-orchestrator", "--json"], "got nothing.csv, which does not"),
        (["data", "get", "moon"], "tidecast data get requires one of"),
        (["explain", "pump-1/flow", "--out", "why.jpg"], r"--out requires a file that ends in .png; got why.jpg"),
        (["series"], "A list of series requires a catalog"),
        (["demo", "--sample", "nowhere"], "--sample requires a folder with readings"),
        (["serve", "--no-orchestrator"], "tidecast serve requires Prefect"),
        (["serve"], "tidecast serve requires the address of a standing Prefect server"),
    ],
)
def test_a_fault_of_the_user_is_one_sentence_on_stderr(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    """Shown to fail by letting `main` catch nothing."""
    done = tidecast(*arguments, cwd=tmp_path, PREFECT_HOME=str(tmp_path), TIDECAST_STATE=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert re.search(sentence, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["query", "--from", "yesterday"],
        ["query", "--at", "2026-01-01T02:00"],
        ["query", "--from", "0001-01-01T00:00+14:00"],
        ["query", "--to", "9999-12-31T23:59-12:00"],
        ["query", "--lead-time", "1"],
        ["query", "--lead-time", "99999999999d"],
        ["query", "--step", "9999999999"],
        ["ingest"],
        ["ingest", "x.csv", "--sample-interval", "-1h"],
        ["ingest", "x.csv", "--aggregation", "power"],
        ["ingest", "x.csv", "--plan", "--devices"],
        ["ingest", "x.csv", "--known-ahead", "7d"],
        ["sing"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    """Shown to fail by letting the calendar's OverflowError pass."""
    done = CliRunner().invoke(app, arguments)
    assert (done.exit_code, done.stdout) == (2, "")


def test_a_sigterm_exits_with_143_and_one_sentence() -> None:
    """Shown to fail by leaving the signal to its default: no sentence. The signal comes while a verb runs."""
    raised_in_a_verb = "import os, signal; from flows import cli; cli.app.command('stop')(lambda: os.kill(os.getpid(), signal.SIGTERM))"
    done = subprocess.run([sys.executable, "-c", f"{raised_in_a_verb}; cli.main()", "stop"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (143, "")
    assert done.stderr == "tidecast was stopped by SIGTERM; what was stored before stays. Run the command again to go on.\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["--version"], ["data", "list"], ["data", "list", "--json"]])
def test_a_pipe_that_nobody_reads_is_no_fault_and_exits_with_141(arguments: list[str], unbuffered: str) -> None:
    """As where SIGPIPE ends a process. Shown to fail by what typer and rich make of it (1) and by the interpreter's end (120)."""
    read, write = os.pipe()
    os.close(read)
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run([*COMMAND, *arguments], stdout=write, stderr=subprocess.PIPE, env=environment, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("redirection", "sentence"),
    [
        (">&-", b"tidecast requires a stdout to write results to; got a closed one. Drop results with `>/dev/null`.\n"),
        (">&- 2>&-", b""),
        (">/dev/full", b"[Errno 28] No space left on device\n"),
    ],
)
def test_a_stdout_that_takes_nothing_is_one_sentence(redirection: str, sentence: bytes) -> None:
    """Shown to fail by a closed stdout, which is None, and by a full one at the interpreter's end: exit code 120."""
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    done = subprocess.run(
        ["/bin/sh", "-c", f'"$@" {redirection}', "sh", *COMMAND, "data", "list"], capture_output=True, env=environment, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", sentence)


def test_an_impossible_interval_is_refused_before_anything_is_stored(tmp_path: Path) -> None:
    """Shown to fail by taking the bound of prepare.sample_interval away."""
    (tmp_path / "x.csv").write_text("ts,value\n2026-01-01T00:00Z,1\n")
    done = tidecast("ingest", "x.csv", "--sample-interval", "0s", "--lake", "lake", "--no-orchestrator", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "prepare.sample_interval" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]


def test_query_prints_an_array_of_rows(lake: Path) -> None:
    rows = json.loads(tidecast("query", "--lake", lake, "--series", "pump-1/*", "--json").stdout)
    assert [(row["series_id"], row["step"], row["ts"], row["q0.5"]) for row in rows] == [
        ("pump-1/flow", 1, "2026-01-01T02:00:00Z", 3.0),
        ("pump-1/flow", 2, "2026-01-01T03:00:00Z", 6.0),
    ]


def test_query_by_range_and_lead_time(lake: Path) -> None:
    arguments = ["query", "--lake", str(lake), "--from", "2026-01-01T00:00Z", "--to", "2026-01-02T00:00Z", "--lead-time", "2h", "--json"]
    rows = json.loads(CliRunner().invoke(app, arguments).stdout)
    assert [(row["series_id"], row["origin"]) for row in rows] == [
        (series, f"2026-01-01T0{hour}:00:00Z") for series in ("pump-1/flow", "pump-2/flow") for hour in (0, 1)
    ]


@pytest.mark.parametrize("far", [["--lead-time", "6h"], ["--step", "3"]])
def test_a_query_beyond_the_horizon_says_how_far_forecasts_reach(lake: Path, far: list[str]) -> None:
    done = CliRunner().invoke(app, ["query", "--lake", str(lake), "--json", *far])
    assert (done.exit_code, json.loads(done.stdout)) == (0, [])
    assert done.stderr == "The longest lead of the newest forecasts is 2:00:00, which is step 2.\n"


def test_the_module_runs_as_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "flows.cli", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("tidecast ")


def test_query_at_an_instant_says_which_model_and_which_inputs(lake: Path) -> None:
    query = ["query", "--lake", str(lake), "--series", "pump-1/flow", "--at", "2026-01-01T02:00Z", "--every-origin"]
    rows = json.loads(CliRunner().invoke(app, [*query, "--json"]).stdout)
    assert [(row["step"], row["q0.5"], row["model_version"], row["input_version"]) for row in rows] == [(2, 5.0, "1", 1), (1, 3.0, "1", 1)]
    known = json.loads(CliRunner().invoke(app, [*query, "--as-of", "2026-01-01T00:30Z", "--json"]).stdout)
    assert [row["step"] for row in known] == [2]
    header = CliRunner().invoke(app, query).stdout.splitlines()[0]
    assert header.split()[-4:] == ["model", "inputs", "made", "(UTC)"]


def test_query_shows_the_inputs_of_a_forecast(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    lake.create_all()
    append_forecasts(lake, pl.DataFrame([row("pump-1/flow", 0)], schema=Forecasts.polars()))
    rows = [observation("pump-1/flow", hour, float(hour)) for hour in (-740, -733, -732, -731)]  # hour -732 is the origin
    write_observations(lake, Observations.conform(pl.DataFrame(rows)), readings_version=1)
    query = ["query", "--lake", str(tmp_path), "--inputs"]
    late = json.loads(CliRunner().invoke(app, [*query, "--json"]).stdout)
    assert [row["value"] for row in late] == [-740.0, -733.0], "the tick of the origin itself was known an hour later"
    assert CliRunner().invoke(app, query).stdout.count("pump-1/flow") == 2


def test_query_writes_the_same_rows_in_every_format(lake: Path, tmp_path: Path) -> None:
    def written(name: str) -> Path:
        done = CliRunner().invoke(app, ["query", "--lake", str(lake), "--output", str(tmp_path / name)])
        assert (done.exit_code, done.stdout) == (0, "")
        return tmp_path / name

    frames = [pl.read_csv(written("a.csv")), pl.read_parquet(written("a.parquet")), pl.DataFrame(json.loads(written("a.json").read_text()))]
    assert len({tuple(frame["q0.5"].to_list()) for frame in frames}) == 1


def test_query_tells_models_apart(tmp_path: Path) -> None:
    """Shown to fail by not passing the option on: both models' rows came, which the export refuses."""
    lake = Lake(str(tmp_path))
    lake.create_all()
    for version in ("1", "2"):
        append_forecasts(lake, pl.DataFrame([row("pump-1/flow", 0, version)], schema=Forecasts.polars()))
    query = ["query", "--lake", str(tmp_path), "--every-origin", "--format", "nixtla"]
    refused = CliRunner().invoke(app, query)
    assert "--model-version" in str(refused.exception)
    assert CliRunner().invoke(app, [*query, "--model-version", "2"]).stdout.count("pump-1/flow") == 2


def test_query_draws_a_table(lake: Path) -> None:
    shown = CliRunner().invoke(app, ["query", "--lake", str(lake)])
    assert shown.exit_code == 0
    assert "pump-2/flow" in shown.stdout


def test_nothing_found_is_an_empty_array_and_no_error(lake: Path) -> None:
    done = CliRunner().invoke(app, ["query", "--lake", str(lake), "--series", "pump-9/flow", "--json"])
    assert (done.exit_code, json.loads(done.stdout)) == (0, [])


def test_simulate_then_ingest_tells_what_became_of_every_reading(tmp_path: Path) -> None:
    made = json.loads(tidecast("simulate", tmp_path / "fleet", "--devices", "1", "--days", "3", "--json").stdout)
    ingest = ["ingest", tmp_path / "fleet" / "readings.ndjson", "--lake", tmp_path / "lake", "--no-orchestrator", "--json"]
    first, again = (json.loads(tidecast(*ingest).stdout) for _ in range(2))
    assert first["read"] == made["lines"] == first["accepted"] + first["duplicate"] + first["quarantined"]
    assert (again["read"], again["accepted"]) == (first["read"], 0)


def test_plans_and_devices_are_read_in_by_the_same_verb(tmp_path: Path) -> None:
    """Shown to fail by reading a plan in as readings: none of its stamps has been."""
    (tmp_path / "tariffs.csv").write_text(
        "device_id,metric,ts,value\noven,tariff,2030-01-01T00:00Z,0.3\noven,tariff,2030-01-01T01:00Z,0.4\n"
    )
    (tmp_path / "devices.csv").write_text("device_id,area,kind\noven,120,fan\n")
    common = ["--lake", tmp_path / "lake", "--no-orchestrator", "--json"]
    plan = json.loads(tidecast("ingest", tmp_path / "tariffs.csv", "--plan", "--known-ahead", "7d", *common).stdout)
    assert (plan["read"], plan["accepted"], plan["observations"]["observations_written"]) == (2, 2, 0)
    devices = json.loads(tidecast("ingest", tmp_path / "devices.csv", "--devices", *common).stdout)
    assert devices == {"devices": 1, "attributes": ["area", "kind"]}


def test_data_list_names_licences() -> None:
    listed = json.loads(CliRunner().invoke(app, ["data", "list", "--json"]).stdout)
    assert all(dataset["licence"] and dataset["sha256"] for dataset in listed)


def test_maintain_reports_what_it_did(lake: Path) -> None:
    done = CliRunner().invoke(app, ["maintain", "--lake", str(lake), "--json"])
    assert done.exit_code == 0
    reports = json.loads(done.stdout)
    assert set(reports) == {"compacted", "vacuumed", "hashed"}
    assert all(set(reports[step]) == {"files_removed", "files_added", "tables"} for step in ("compacted", "vacuumed"))


def test_no_help_holds_what_would_be_taken_for_markup_and_left_out() -> None:
    """Shown to fail by `[default: 5s]`, which typer's help takes for a style."""
    verbs = [("", get_command(app))]
    for path, verb in verbs:
        verbs += [(f"{path} {name}", one) for name, one in getattr(verb, "commands", {}).items()]
    texts = {(path, one.name): getattr(one, "help", None) or "" for path, verb in verbs for one in (verb, *verb.params)}
    assert len(verbs) > 20
    assert not [where for where, text in texts.items() if Text.from_markup(text).plain != text]
