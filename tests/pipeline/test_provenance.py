"""What was made is signed with the code and the settings that made it, and with no secret."""

import shutil
import subprocess

import pytest

from pipeline.settings import Settings
from pipeline.tracking.provenance import SourceRevision, recorded_settings, settings_hash, source_revision, without_password


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").write_text("")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=tester", "-c", "user.email=tester@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    return tmp_path


def test_a_clean_checkout_has_its_revision(checkout):
    revision = source_revision(checkout)
    assert revision.sha is not None
    assert len(revision.sha) == 40
    assert revision.dirty is False


def test_new_code_makes_a_checkout_dirty_and_new_data_does_not(checkout):
    (checkout / "data").mkdir()
    (checkout / "data" / "readings.csv").write_text("1")
    assert source_revision(checkout).dirty is False
    (checkout / "pipeline" / "new.py").write_text("")
    assert source_revision(checkout).dirty is True


def test_somebody_elses_repository_is_not_our_revision(checkout):
    installed = checkout / "venv" / "site-packages"
    shutil.copytree(checkout / "pipeline", installed / "pipeline")
    assert source_revision(installed) == SourceRevision(None, None)


def test_without_git_there_is_no_revision(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert source_revision(checkout) == SourceRevision(None, None)


@pytest.mark.parametrize("uri", ["sqlite:////data/mlflow.db", "http://mlflow:5000", "http://user@mlflow:5000"])
def test_a_uri_without_a_password_is_left_alone(uri):
    assert without_password(uri) == uri


def test_no_password_is_recorded():
    settings = Settings(tracking={"uri": "postgresql://mlflow:p:a@ss@db:5432/mlflow"})
    assert recorded_settings(settings)["tracking"]["uri"] == "postgresql://mlflow:***@db:5432/mlflow"


def test_recorded_settings_rebuild_the_settings():
    settings = Settings(lake="elsewhere", train={"horizon": 12}, metrics={"power": {"unit": "W"}})
    assert Settings(**recorded_settings(settings)) == settings


def test_where_things_are_does_not_change_the_hash():
    assert settings_hash(Settings(lake="a", state="b")) == settings_hash(Settings())
    assert settings_hash(Settings(train={"seed": 1})) != settings_hash(Settings())
