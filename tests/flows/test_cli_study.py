"""`tidecast tune` as a user meets it: what it prints, and the champion that `--train` leaves."""

import json
import tomllib

import pytest
from click.testing import Result
from typer.testing import CliRunner

from flows.cli import app
from pipeline.tracking.registry import champion
from tests.lakes import HOUR, START, TestLake
from tests.studies import small_lake


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> TestLake:
    """A lake with 300 hours of two series, set to train briefly."""
    return small_lake(tmp_path_factory.mktemp("study"))


def run(lake: TestLake, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--workers", "1", "--no-orchestrator"], env=lake.environment())


def test_tune_and_train_leaves_a_champion_with_the_best_settings(lake: TestLake) -> None:
    """Shown to fail by training with the settings as they were, and by borders that the training places anew."""
    borders = ["--train-end", "2026-03-10T08:00Z", "--validation-end", "2026-03-12T00:00Z"]
    done = run(lake, "tune", "--trials", "2", *borders, "--train", "--json")
    report = json.loads(done.stdout)
    assert (done.exit_code, report["trials"], report["failed"]) == (0, 2, 0)
    card = champion(lake.settings).card
    assert report["trained"]["promoted"]
    assert card.settings["train"]["learning_rate"] == report["best"]["learning_rate"]
    assert card.config.network.hidden_size == report["best"]["network.hidden_size"]
    assert (card.train_end, card.validation_end) == (START + 200 * HOUR, START + 240 * HOUR)


def test_tune_prints_what_to_paste_into_the_settings(lake: TestLake) -> None:
    """Shown to fail by printing the trials without the lines of TOML."""
    shown = run(lake, "tune", "--trials", "2").stdout
    found = json.loads(run(lake, "tune", "--trials", "2", "--json").stdout)
    assert tomllib.loads(shown[shown.index("[train]") :]) == tomllib.loads(found["toml"])
    assert f"{found['trials']} trials" in shown
