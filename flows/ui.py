"""The pages: a Prefect server and an MLflow server on loopback, started together and stopped together.

Called by `tidecast ui`. Each server runs in a process group of its own, so that stopping it also stops the workers it forked, and
nothing else; and each ends by itself where this process was killed.
"""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from flows.ends_with_parent import start_server
from flows.prefect_settings import require_valid
from pipeline.errors import SettingsError, TidecastError
from pipeline.settings import Settings

HOST = "127.0.0.1"
PREFECT_PORT, MLFLOW_PORT = 4200, 5000
START_TIMEOUT = timedelta(minutes=3)  # a fresh database on a busy two-core machine takes half a minute
STOP_TIMEOUT = timedelta(seconds=15)
_POLL_S = 0.2
TRAINING_VIEW = "#/experiments?workflowType=machine_learning"  # else MLflow opens on the traces of agents


@dataclass(frozen=True)
class Page:
    """One server.

    Attributes:
        name: shown to people.
        url: address of its page.
        command: the module that is it, and its arguments.
        log: file for its output.
        health: URL that answers 200 once it is up.
        environment: variables that it gets besides ours.
    """

    name: str
    url: str
    command: tuple[str, ...]
    log: Path
    health: str
    environment: Mapping[str, str] = field(default_factory=dict)


def free_port(wanted: int | None, default: int, who: str) -> int:
    """Return the port to listen on: the wanted one, else the default, else any that is free.

    Raises:
        SettingsError: where the wanted one is taken.
    """
    if wanted is not None:
        if not _is_free(wanted):
            raise SettingsError(f"{who} requires a free port; got {wanted}, where something listens already. Stop that, or choose another.")
        return wanted
    if _is_free(default):
        return default
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def prefect_page(settings: Settings, port: int | None) -> Page:
    """Describe the Prefect server; its database is that of the temporary server, so past runs are on its page.

    Raises:
        SettingsError: where the port is taken, or Prefect cannot read its own settings.
    """
    require_valid()
    port = free_port(port, PREFECT_PORT, "--prefect-port")
    url = f"http://{HOST}:{port}"
    command = ("prefect", "server", "start", "--host", HOST, "--port", str(port))
    environment = {"PREFECT_SERVER_UI_API_URL": f"{url}/api"}  # else the page asks port 4200, whoever listens there
    return Page("Prefect", url, command, settings.state_dir / "logs" / "prefect.log", f"{url}/api/health", environment)


def mlflow_page(settings: Settings, port: int | None) -> Page:
    """Describe the MLflow server over the settings' store.

    Raises:
        SettingsError: where the settings name a server that stands already: it has a page of its own.
    """
    if settings.tracking_uri.startswith(("http://", "https://")):
        raise SettingsError(
            f"tidecast ui requires tracking.uri to name a database to show; got the server {settings.tracking_uri}. "
            "Open that address, and start the other page with `tidecast ui prefect`."
        )
    port = free_port(port, MLFLOW_PORT, "--mlflow-port")
    url = f"http://{HOST}:{port}"
    command = ["mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", settings.tracking_uri]
    if settings.artifacts_dir is not None:
        settings.artifacts_dir.mkdir(parents=True, exist_ok=True)  # the database file beside it needs the folder too
        command += ["--artifacts-destination", str(settings.artifacts_dir)]
    return Page("MLflow", f"{url}/{TRAINING_VIEW}", tuple(command), settings.state_dir / "logs" / "mlflow.log", f"{url}/health")


@contextmanager
def running(pages: Sequence[Page]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start servers, wait until each answers, and stop them at the end.

    Yields:
        Their processes, in order.

    Raises:
        TidecastError: where one ends or does not answer in time; it names the log.
    """
    with ExitStack() as stack:
        processes = [stack.enter_context(_process(page)) for page in pages]
        deadline = time.monotonic() + START_TIMEOUT.total_seconds()
        for page, process in zip(pages, processes, strict=True):
            _wait_until_up(page, process, deadline)
        yield processes


def watch(pages: Sequence[Page], processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Return never, unless a server ends.

    Raises:
        TidecastError: naming the server that ended and its log.
    """
    while True:
        for page, process in zip(pages, processes, strict=True):
            _require_alive(page, process)
        time.sleep(1)


@contextmanager
def _process(page: Page) -> Iterator[subprocess.Popen[bytes]]:
    page.log.parent.mkdir(parents=True, exist_ok=True)
    with page.log.open("wb") as log:
        process = start_server(*page.command, environment={**os.environ, **page.environment}, output=log)
    with process:
        try:
            yield process
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the process group to end, then end it; the group holds only what this process started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT.total_seconds())
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_until_up(page: Page, process: subprocess.Popen[bytes], deadline: float) -> None:
    while not _answers(page.health):
        _require_alive(page, process)
        if time.monotonic() > deadline:
            limit_s = START_TIMEOUT.total_seconds()
            raise TidecastError(f"The {page.name} server requires less than {limit_s:.0f} s to start; got no answer. Read {page.log}.")
        time.sleep(_POLL_S)


def _require_alive(page: Page, process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        lines = page.log.read_text(errors="replace").strip().splitlines() or ["no output"]
        raise TidecastError(
            f"The {page.name} server requires to keep running; got exit code {process.returncode} ({lines[-1].strip()}). Read {page.log}."
        )


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 (our own http address on loopback)
            return bool(response.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
