"""`tidecast verify` as a user meets it: exit code 0, 1 or 2, a table or one JSON document, and a sentence for each law."""

import json
from pathlib import Path

from click.testing import Result
from typer.testing import CliRunner

from flows.cli import app
from pipeline.verify.laws import LAWS
from tests import leaks
from tests.lakes import START, TestLake, hourly_readings, random_weights

LEAKS = leaks.__file__


def run(*arguments: str) -> Result:
    """Run the verb with as little training as it allows."""
    return CliRunner().invoke(app, ["verify", *arguments, "--max-seconds", "1"])


def test_a_leaking_module_exits_with_1_and_says_what_was_seen_and_what_to_do() -> None:
    """Shown to fail by exiting with 0 always."""
    done = run(f"{LEAKS}:CentredConvolution", "--json")
    report = json.loads(done.stdout)
    assert (done.exit_code, report["holds"]) == (1, False)
    assert [law["law"] for law in report["laws"]] == list(LAWS)
    first = report["laws"][0]
    assert (first["verdict"], first["meaning"], first["what_to_do"]) == ("broken", LAWS[1].meaning, LAWS[1].remedy)
    assert first["tick"] == first["origin"] + 1
    assert first["difference"] > 0.1
    assert f"tick {first['tick']} alone" in first["seen"]


def test_the_table_names_each_law_its_meaning_and_the_remedy() -> None:
    done = run(f"{LEAKS}:BatchNormOverTime")
    shown = " ".join(done.stdout.replace("│", " ").split())
    assert done.exit_code == 1
    assert "Law 1 (future perturbation) is broken: while training, " in shown
    assert LAWS[1].remedy in shown
    assert "it has no step(values, state)" in shown


def test_wrong_use_exits_with_2_and_one_sentence(tmp_path: Path) -> None:
    """Shown to fail by leaving the error to `main`, which exits with 1, the code of a broken law."""
    lake = TestLake.at(tmp_path)
    for subject in (["nowhere.py:Model"], ["77"], []):
        done = CliRunner().invoke(app, ["verify", *subject], env=lake.environment())
        assert (done.exit_code, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
        assert " requires " in done.stderr


def test_the_champion_passes_on_the_readings_it_was_trained_on(tmp_path: Path) -> None:
    """Shown to fail by calling borders that are in order broken."""
    lake = TestLake.at(tmp_path)
    lake.ingest(hourly_readings(96))
    lake.register(random_weights())
    done = CliRunner().invoke(app, ["verify", "--max-seconds", "1", "--json"], env=lake.environment())
    report = json.loads(done.stdout)
    assert (done.exit_code, report["subject"]) == (0, "model version 1")
    assert f"the border is {START.replace(day=4):%Y-%m-%d %H:%M} UTC" in report["laws"][-1]["seen"]
    assert "made-up" not in report["laws"][-1]["seen"]
