"""The verb `listen http`: readings that devices and gateways push, on disk before they are answered."""

import os
import threading
from pathlib import Path
from typing import Annotated

import typer

from flows.cli_listen import run_and_report
from flows.cli_options import AsJson, Lake, NoOrchestrator, SettingsFile, read_settings


def listen_http(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on; one that others can reach requires TIDECAST_HTTP_TOKEN.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes any free one.")] = 8080,
    certificate: Annotated[Path | None, typer.Option("--cert", metavar="FILE", help="Certificate for TLS, a PEM file.")] = None,
    key: Annotated[Path | None, typer.Option("--key", metavar="FILE", help="Its private key, a PEM file.")] = None,
    lake: Lake = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
    no_orchestrator: NoOrchestrator = False,  # noqa: ARG001 (never uses Prefect)
) -> None:
    """Take readings by HTTP: POST /readings answers 200 when they are on disk.

    The token that senders must carry comes from TIDECAST_HTTP_TOKEN. GET /health tells how far the lake is behind. Ctrl-C or SIGTERM
    answers what is under way, stores it and ends.
    """
    from flows.console import log_to_stderr, note
    from pipeline.clock import SystemClock
    from pipeline.listen.http import HttpOptions, HttpSource
    from pipeline.settings import HTTP_TOKEN

    settings = read_settings(settings_file, lake)
    log_to_stderr()
    options = HttpOptions(host=host, port=port, token=os.environ.get(HTTP_TOKEN), certificate=certificate, key=key)
    clock, over = SystemClock(), threading.Event()
    source = HttpSource(settings, clock, options, over)
    if options.token and not certificate:
        note("Without --cert the token travels as it is: keep this behind a proxy that does TLS.")
    run_and_report(settings, clock, source, over, as_json=as_json)
