"""The verb `watch`: series in the terminal, refreshing. Imports neither Prefect nor torch nor MLflow."""

import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli_options import AsJson, Lake, NoOrchestrator, SettingsFile, duration_option, read_settings

if TYPE_CHECKING:
    from pipeline.query.watch import Watch

EVERY, OFTENEST = timedelta(seconds=5), timedelta(milliseconds=100)
IN_A_PIPE = 48  # lines: four charts, or a line for each of 46 series


def watch(
    series: Annotated[list[str], typer.Argument(metavar="SERIES", help="Series ids; * and ? match, quoted, as 'pump-*/flow'.")],
    *,
    every: Annotated[timedelta | None, duration_option("--every", "How often to look.  (default: 5s)")] = None,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end, as always in a pipe.")] = False,
    lake: Lake = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
    no_orchestrator: NoOrchestrator = False,  # noqa: ARG001 (looking never uses Prefect)
) -> None:
    """Show the last readings, the newest forecast and how good the last day's were, until Ctrl-C."""
    if every is not None and every < OFTENEST:
        raise typer.BadParameter(f"--every requires at least 100ms; got {every}. A look takes some tens of milliseconds.")
    try:
        settings = read_settings(settings_file, lake)
        from flows.console import write_json
        from pipeline.query.watch import Watch
        from pipeline.store.catalog import Catalog
        from pipeline.store.lake import Lake as Store

        watched = Watch(Store(settings.lake), Catalog(settings.state_dir), series)
        if as_json:
            write_json(watched.look(sys.maxsize).to_dict())
        elif once or not sys.stdout.isatty():
            _print(watched)
        else:
            _follow(watched, every or EVERY)
    except KeyboardInterrupt:  # the way to end it
        return


def _print(watched: "Watch") -> None:
    """Print one frame, as wide as COLUMNS says or 80 characters."""
    from rich.console import Console

    from pipeline.clock import SystemClock
    from pipeline.query.terminal_screen import Screen, capacity

    Console().print(Screen(watched.look(capacity(IN_A_PIPE)), SystemClock().now(), height=IN_A_PIPE))


def _follow(watched: "Watch", every: timedelta) -> None:
    """Draw one frame after the other on the terminal's second screen, which leaves the first as it was.

    A look that fails, as one may while files are being cleaned up, is said below the last picture and tried again.
    """
    from rich.console import Console
    from rich.live import Live

    from pipeline.clock import SystemClock
    from pipeline.errors import StoreError
    from pipeline.query.terminal_screen import Screen, capacity

    console, clock = Console(), SystemClock()
    look, problem = watched.look(capacity(console.height)), None
    with Live(Screen(look, clock.now()), console=console, screen=True, refresh_per_second=1) as live:  # redrawn when it is resized
        while True:
            time.sleep(every.total_seconds())
            try:
                look, problem = watched.look(capacity(console.height)), None
            except StoreError as error:
                problem = str(error)
            live.update(Screen(look, clock.now(), problem), refresh=True)
