"""What Prefect would meet with a traceback, in the middle of its import, is one sentence, before anything is stored."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.settings import PREFECT_HOME, temporary_settings

from flows.prefect_settings import require_home
from pipeline.errors import SettingsError

INGEST = ["ingest", "readings.csv", "--lake", "lake"]


@pytest.mark.parametrize(
    ("verb", "variable", "value", "sentence"),
    [
        (INGEST, "PREFECT_SERVER_EPHEMERAL_ENABLED", "false", "a standing Prefect server in PREFECT_API_URL; got none"),
        (INGEST, "PREFECT_SERVER_EPHEMERAL_ENABLED", "maybe", "got PREFECT_SERVER_EPHEMERAL_ENABLED: Input should be a valid boolean"),
        (["serve"], "PREFECT_LOGGING_LEVEL", "LOUD", "got PREFECT_LOGGING_LEVEL: Input should be 'DEBUG'"),
        (["ui", "prefect"], "PREFECT_API_REQUEST_TIMEOUT", "long", "got PREFECT_API_REQUEST_TIMEOUT: Input should be a valid number"),
        (INGEST, "PREFECT_PROFILES_PATH", "readings.csv", "got a file of them that is no TOML"),
    ],
)
def test_a_setting_of_prefect_that_it_cannot_use_is_one_sentence(
    verb: list[str], variable: str, value: str, sentence: str, tmp_path: Path
) -> None:
    """Shown to fail without the look: each of them was a traceback, but for `ui`, which named an address of pydantic's."""
    (tmp_path / "readings.csv").write_text("device_id,ts,flow\nnorth,2026-01-01T00:00Z,1\n")
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path), variable: value}
    environment.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-c", "from flows.cli import main; main()", *verb]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
    assert sentence in done.stderr
    assert not (tmp_path / "lake").exists()


def test_a_home_that_cannot_be_made_is_refused_and_one_that_can_is_made(tmp_path: Path) -> None:
    """Without the look, Prefect starts a server that ends at once, again and again."""
    (tmp_path / "file").touch()
    with temporary_settings({PREFECT_HOME: tmp_path / "new" / "home"}):
        require_home()
    assert list((tmp_path / "new" / "home").iterdir()) == []
    with temporary_settings({PREFECT_HOME: tmp_path / "file" / "home"}), pytest.raises(SettingsError, match=r"home \(Not a directory\)"):
        require_home()
