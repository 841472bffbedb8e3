"""The verbs that keep running: `ui`, the two servers with their pages, and `serve`, the schedules."""

import signal
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.cli_options import AsJson, Lake, NoOrchestrator, SettingsFile, read_settings

if TYPE_CHECKING:
    from flows.ui import Page

Which = Literal["both", "prefect", "mlflow"]


def ui(
    which: Annotated[Which, typer.Argument(help="Both pages, or just one of them.")] = "both",
    *,
    prefect_port: Annotated[int | None, typer.Option(min=1, max=65535, help="(default: 4200, or any that is free)")] = None,
    mlflow_port: Annotated[int | None, typer.Option(min=1, max=65535, help="(default: 5000, or any that is free)")] = None,
    lake: Lake = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
    no_orchestrator: NoOrchestrator = False,
) -> None:
    """Start the Prefect and MLflow pages on loopback and print their addresses; Ctrl-C stops both."""
    from flows.console import busy
    from flows.ui import mlflow_page, prefect_page, running, watch

    settings = read_settings(settings_file, lake)
    orchestration = prefect_page(settings, prefect_port) if which != "mlflow" and not no_orchestrator else None
    tracking = mlflow_page(settings, mlflow_port) if which != "prefect" else None
    pages = [page for page in (orchestration, tracking) if page is not None]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a service manager's stop is a Ctrl-C: the servers are stopped too
    with ExitStack() as stack:
        with busy("starting the servers"):
            processes = stack.enter_context(running(pages))
        _announce(pages, as_json)
        stack.enter_context(suppress(KeyboardInterrupt))  # the way to end it, not a failure
        watch(pages, processes)


def _announce(pages: Sequence["Page"], as_json: bool) -> None:
    from flows.console import stdout, write_json

    urls = {page.name: page.url for page in pages}
    api_url = f"{urls['Prefect']}/api" if "Prefect" in urls else None
    if as_json:
        write_json({**{name.lower(): url for name, url in urls.items()}, **({"prefect_api_url": api_url} if api_url else {})})
        return
    lines = [f"{name:8} {url}" for name, url in urls.items()]
    if api_url is not None:
        lines += ["", "For `tidecast serve`, and for runs without a server of their own:", f"  export PREFECT_API_URL={api_url}"]
    stdout().print("\n".join([*lines, "", "Ctrl-C stops them."]), highlight=False)


def serve(
    landing: Annotated[Path, typer.Option(metavar="FOLDER", help="Files that appear here are ingested.")] = Path("data/landing"),
    lake: Lake = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
    no_orchestrator: NoOrchestrator = False,
) -> None:
    """Run the flows on their schedules: ingest and forecast every tick, maintain and train daily, backtest weekly."""
    from pipeline.errors import SettingsError

    if no_orchestrator:
        raise SettingsError(
            "tidecast serve requires Prefect, whose schedules it serves; got --no-orchestrator. Use cron with the other verbs."
        )
    from flows.console import note, stdout, table, write_json
    from flows.prefect_settings import require_valid

    require_valid()
    from flows.deployments import cadence, deployments, require_server, serve_all

    settings = read_settings(settings_file, lake)
    require_server()
    landing.mkdir(parents=True, exist_ok=True)
    planned = deployments(settings, landing)
    rows = [{"flow": deployment.flow_name, "runs": cadence(deployment)} for deployment in planned]
    if as_json:
        write_json(rows)
    else:
        stdout().print(table(rows))
    note(f"Files that appear in {landing} are ingested. Ctrl-C stops serving; the schedules stay.")
    serve_all(planned)
