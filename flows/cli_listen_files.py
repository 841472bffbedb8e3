"""The verb `listen files`: a landing folder, whose files become readings once each."""

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli_ingest_options import takes_ingest_options
from flows.cli_listen import run_and_report
from flows.cli_options import AsJson, Lake, NoOrchestrator, SettingsFile, read_settings

if TYPE_CHECKING:
    from pipeline.ingest.ingest import IngestOptions


@takes_ingest_options
def listen_files(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where files land; they stay there.")],
    *,
    options: "IngestOptions",
    lake: Lake = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
    no_orchestrator: NoOrchestrator = False,  # noqa: ARG001 (never uses Prefect)
) -> None:
    """Take the files that land in a folder, each once, when it has stood still.

    The options that say how files are read are those of `tidecast ingest`. Names that end in .tmp or .part or begin with a dot are left
    alone. Ctrl-C or SIGTERM finishes the file under way and ends.
    """
    from flows.console import log_to_stderr
    from pipeline.clock import SystemClock
    from pipeline.listen.landing import LandingSource

    settings, clock, over = read_settings(settings_file, lake), SystemClock(), threading.Event()
    log_to_stderr()
    source = LandingSource(settings, clock, folder, options, over)
    run_and_report(settings, clock, source, over, as_json=as_json)
