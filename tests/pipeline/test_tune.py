"""A search for settings goes on where it was killed, leaves one run with the trials below it, and looks at nothing held out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline.settings import Settings
from pipeline.study.search import study_folder
from pipeline.study.tune import TuneReport, TuneRequest, tune
from tests.lakes import HOUR, START, TestLake
from tests.studies import small_lake

ROOT = Path(__file__).parents[2]

# Tunes the lake of its first argument with the settings of its second, and is killed in its third trial.
KILLED = """
import os, signal, sys
from pipeline.clock import SystemClock
from pipeline.settings import Settings
from pipeline.study import search, tune

fits = search._fit
def dying(*given):
    if len(search.records(given[0])) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return fits(*given)
search._fit = dying
tune.tune(Settings.model_validate_json(sys.argv[1]), tune.TuneRequest(trials=4), SystemClock())
"""


def runs_with(settings: Settings, tag: str, value: str) -> list[dict[str, str]]:
    """Return name, status, tags and parameters of the runs that have a tag."""
    client = MlflowClient(settings.tracking_uri)
    experiment = client.get_experiment_by_name(settings.tracking.experiment)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], f"tags.`{tag}` = '{value}'")
    return sorted(
        ({"name": r.info.run_name, "status": r.info.status, **r.data.tags, **r.data.params} for r in runs), key=lambda r: r["name"]
    )


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[TestLake, TuneReport]:
    """A lake whose search was killed in its third trial, and the report of the same command run again."""
    lake = small_lake(tmp_path_factory.mktemp("tune"))
    script = [sys.executable, "-c", KILLED, lake.settings.model_dump_json()]
    done = subprocess.run(script, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    return lake, tune(lake.settings, TuneRequest(trials=4, workers=1), lake.clock)


def test_a_killed_search_goes_on_and_counts_what_had_ended(killed: tuple[TestLake, TuneReport]) -> None:
    """Shown to fail by counting the killed trial: three have ended then."""
    lake, report = killed
    assert (report.trials, report.failed) == (4, 0)
    assert [path.name for path in study_folder(lake.settings, "").iterdir()] == [report.study]


def test_all_trials_are_runs_below_one_run(killed: tuple[TestLake, TuneReport]) -> None:
    """Shown to fail by a run of its own for each command."""
    lake, report = killed
    runs = runs_with(lake.settings, "mlflow.parentRunId", report.run_id)
    (parent,) = runs_with(lake.settings, "tidecast.study", report.study)
    assert len({run["name"] for run in runs}) == len(runs) == 4
    assert {(run["status"], run["state"]) for run in runs} <= {("FINISHED", "complete"), ("KILLED", "pruned")}
    assert parent["status"] == "FINISHED"
    assert MlflowClient(lake.settings.tracking_uri).get_run(report.run_id).data.metrics["validation/best"] == report.validation


def test_enough_trials_are_enough(killed: tuple[TestLake, TuneReport]) -> None:
    lake, report = killed
    steps: list[int] = []
    again = tune(lake.settings, TuneRequest(trials=4, workers=1), lake.clock, lambda done, total, what: steps.append(done))
    assert (again, steps) == (report, [])


def test_no_trial_begins_when_the_time_is_up(killed: tuple[TestLake, TuneReport]) -> None:
    """Shown to fail by leaving the limit out."""
    lake, report = killed
    assert tune(lake.settings, TuneRequest(trials=5, minutes=0, workers=1), lake.clock) == report


def test_the_best_is_not_worse_than_the_settings_as_they_are(killed: tuple[TestLake, TuneReport]) -> None:
    lake, report = killed
    assert report.validation_before is not None
    assert report.validation <= report.validation_before
    assert report.tuned(lake.settings).train.learning_rate == report.best["learning_rate"]


def test_other_settings_or_borders_are_another_study(killed: tuple[TestLake, TuneReport]) -> None:
    """Shown to fail by a name that leaves the borders out."""
    lake, report = killed
    one = TuneRequest(trials=1, workers=1, train_end=START + 200 * HOUR, validation_end=START + 240 * HOUR)
    assert tune(lake.settings, one, lake.clock).study != report.study
