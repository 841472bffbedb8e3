"""Nothing phones home, unless the user says otherwise."""

import subprocess
import sys

import pytest

from flows.quiet import hush

SWITCHES = ("DO_NOT_TRACK", "PREFECT_SERVER_ANALYTICS_ENABLED", "MLFLOW_DISABLE_TELEMETRY")


def test_the_three_telemetry_switches_are_off_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown to fail by `DO_NOT_TRACK=1`, which MLflow does not take for a yes."""
    environment: dict[str, str] = {}
    monkeypatch.setattr("os.environ", environment)
    hush()
    assert [environment[name] for name in SWITCHES] == ["true", "false", "true"]


def test_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"PREFECT_SERVER_ANALYTICS_ENABLED": "true"}
    monkeypatch.setattr("os.environ", environment)
    hush()
    assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "true"


def test_prefect_reads_the_defaults_whichever_flow_is_imported_first() -> None:
    """Shown to fail by taking `hush()` out of flows/__init__.py."""
    script = """
import flows.tasks
from prefect.settings import get_current_settings as settings
print(settings().server.analytics_enabled, settings().server.ephemeral.startup_timeout_seconds)
"""
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment)
    assert done.stdout.split() == ["False", "120"], done.stderr
