"""The command `tidecast`: the verbs are the stages of the river, and this module is the list of them.

Installed, it is `tidecast`; from a copy of the source that is not, `python -m flows.cli` is the same.

Each verb lives in a `flows.cli_*` module and imports what it needs when it is called: `tidecast --help` loads typer and nothing heavy.
"""

import atexit
import gc
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from flows.cli_data import data_app, maintain, simulate
from flows.cli_demo import demo
from flows.cli_doctor import doctor
from flows.cli_explain import explain
from flows.cli_inspect import quarantine, retire, series
from flows.cli_listen import listen_app
from flows.cli_listen_files import listen_files
from flows.cli_listen_http import listen_http
from flows.cli_listen_kafka import listen_kafka
from flows.cli_offline import fill
from flows.cli_query import query
from flows.cli_replay import replay_quarantine
from flows.cli_scores import scores
from flows.cli_services import serve, ui
from flows.cli_stages import backtest, forecast, ingest, train
from flows.cli_study import study_app, tune
from flows.cli_verify import verify
from flows.cli_watch import watch

TERMINATED, NOBODY_READS = 128 + signal.SIGTERM, 128 + signal.SIGPIPE  # as a shell says it

app = typer.Typer(
    name="tidecast",
    help="Rolling probabilistic forecasts for streams of IoT readings, by causal stacked LSTMs whose state is carried.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for verb in (
    demo,
    simulate,
    ingest,
    train,
    tune,
    backtest,
    forecast,
    query,
    watch,
    scores,
    explain,
    fill,
    verify,
    serve,
    ui,
    maintain,
    doctor,
    series,
    retire,
    quarantine,
):
    app.command()(verb)
app.command("replay-quarantine")(replay_quarantine)
app.add_typer(data_app, name="data")
app.add_typer(study_app, name="study")
app.add_typer(listen_app, name="listen")
listen_app.command("http")(listen_http)
listen_app.command("files")(listen_files)
listen_app.command("kafka")(listen_kafka)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        sys.stdout.write(f"tidecast {version('tidecast')}\n")
        raise typer.Exit


@app.callback()
def tidecast(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Rolling probabilistic forecasts for streams of IoT readings, by causal stacked LSTMs whose state is carried."""


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 (a handler's signature)
    sys.exit(TERMINATED)


def main() -> None:
    """Run the command line: a fault that the user can mend is one sentence on stderr and exit code 1.

    Wrong usage is exit code 2, an interruption 130, a pipe that nobody reads any more 141, a SIGTERM 143.
    """
    from flows.console import fail
    from pipeline.errors import TidecastError

    atexit.register(gc.freeze)  # else the end looks for garbage in all that torch and Prefect loaded: 5 s, a minute on a busy machine
    signal.signal(signal.SIGTERM, _terminate)  # Lightning and Prefect call it after their own; `ui` and `serve` set theirs later
    try:
        _require_streams()
        _run()
    except BrokenPipeError:
        sys.exit(NOBODY_READS)
    except (TidecastError, OSError) as error:
        fail(str(error))
        sys.exit(1)
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):  # Lightning turns a Ctrl-C while training into exit code 1
            sys.exit(130)
        if isinstance(end.__context__, BrokenPipeError):  # typer and rich make it exit code 1
            sys.exit(NOBODY_READS)
        if end.code == TERMINATED:
            fail("tidecast was stopped by SIGTERM; what was stored before stays. Run the command again to go on.")
        raise


def _require_streams() -> None:
    """Refuse a closed stdout before anything is done: results would go into the next file that is opened, which gets its number.

    Raises:
        SettingsError: where it is closed; a closed stderr, which could not show this, is made one that drops what is written.
    """
    from pipeline.errors import SettingsError

    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 (open to the end)
    if sys.stdout is None:
        raise SettingsError("tidecast requires a stdout to write results to; got a closed one. Drop results with `>/dev/null`.")


def _run() -> None:
    """Run the verb and write out what it left in stdout: a fault of that at the interpreter's end would be a traceback."""
    try:
        app()
    finally:
        try:
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the interpreter, which flushes once more
            raise


if __name__ == "__main__":
    main()
