"""`tidecast ui` starts two real servers, says where they are, and stops them."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from flows.ui import HOST, Page, free_port, mlflow_page, running
from pipeline.errors import SettingsError, TidecastError
from pipeline.settings import Settings, TrackingSettings
from tests.waiting import until

COMMAND = [sys.executable, "-c", "from flows.cli import main; main()", "ui", "--json"]


def is_open(url: str) -> bool:
    """Whether anybody listens at a page's address."""
    port = urlsplit(url).port
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def fetch(url: str) -> str:
    """Return a page."""
    with urllib.request.urlopen(url, timeout=30) as response:
        return str(response.read(), "utf-8", "replace")


@contextmanager
def started(folder: Path, ends_by: signal.Signals) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """Run `tidecast ui` up to its addresses, and end it with a signal."""
    environment = {**os.environ, "PREFECT_HOME": str(folder / "prefect")}
    command = [*COMMAND, "--lake", str(folder / "lake")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
        finally:  # a page that does not answer must fail this test, not wait for servers that nobody stops
            process.send_signal(ends_by)


def test_both_pages_answer_until_interrupted(tmp_path: Path) -> None:
    with started(tmp_path, signal.SIGINT) as (process, addresses):
        pages = {name: fetch(addresses[name]) for name in ("prefect", "mlflow")}
        api_url = json.loads(fetch(f"{addresses['prefect']}/ui-settings"))["api_url"]
    assert process.wait(timeout=60) == 0
    assert "<title>Prefect" in pages["prefect"]
    assert "<title>MLflow" in pages["mlflow"]
    assert api_url == addresses["prefect_api_url"] == f"{addresses['prefect']}/api"
    assert not is_open(addresses["prefect"])
    assert not is_open(addresses["mlflow"])


def test_a_ui_that_is_killed_leaves_no_server_behind(tmp_path: Path) -> None:
    """Shown to fail without `_end_with_parent`: both lived on, each in a session of its own."""
    with started(tmp_path, signal.SIGKILL) as (_, addresses):
        pass
    until(lambda: not any(is_open(addresses[name]) for name in ("prefect", "mlflow")))


def test_a_busy_port_is_named() -> None:
    with socket.create_server((HOST, 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(SettingsError, match=f"--mlflow-port requires a free port; got {port}"):
            free_port(port, 5000, "--mlflow-port")


def test_a_busy_default_gives_way_to_a_free_port() -> None:
    with socket.create_server((HOST, 0)) as holder:
        taken = holder.getsockname()[1]
        assert free_port(None, taken, "--prefect-port") != taken


def test_a_server_that_ends_is_named_with_its_last_words(tmp_path: Path) -> None:
    page = Page("MLflow", "http://127.0.0.1:9", ("http.server", "nowhere"), tmp_path / "logs" / "mlflow.log", "http://127.0.0.1:9/health")
    with pytest.raises(TidecastError, match=r"got exit code 2 \(.+ invalid int value: 'nowhere'\)\. Read .+mlflow\.log"), running([page]):
        pass


def test_a_tracking_server_that_stands_is_not_started_again() -> None:
    settings = Settings(tracking=TrackingSettings(uri="http://mlflow:5000"))
    with pytest.raises(SettingsError, match="got the server http://mlflow:5000"):
        mlflow_page(settings, None)
