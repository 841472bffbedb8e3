"""The verbs `listen …`: live sources, each running until SIGTERM or Ctrl-C; what they take is on disk before it is acknowledged."""

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli_options import AsJson, Lake, NoOrchestrator, SettingsFile, given, read_settings

if TYPE_CHECKING:
    from pipeline.clock import Clock
    from pipeline.listen.service import Source
    from pipeline.settings import Settings

listen_app = typer.Typer(help="Take live readings in, each on disk before it is acknowledged.", no_args_is_help=True)


@listen_app.command("mqtt")
def listen_mqtt(  # noqa: PLR0913 (a verb's options are its signature)
    *,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="mqtt://HOST:PORT, or mqtts:// for TLS, the default but for this machine.")
    ] = None,
    topic: Annotated[
        list[str] | None, typer.Option(metavar="FILTER", help="What to subscribe to; repeatable.  (default: #, every topic)")
    ] = None,
    client_id: Annotated[
        str | None, typer.Option(metavar="NAME", help="Required: the broker keeps messages under it while the listener is away.")
    ] = None,
    ca: Annotated[Path | None, typer.Option(metavar="FILE", help="PEM of who may have signed the broker's certificate.")] = None,
    cert: Annotated[Path | None, typer.Option(metavar="FILE", help="PEM of the certificate this client shows.")] = None,
    key: Annotated[Path | None, typer.Option(metavar="FILE", help="PEM of its key.")] = None,
    lake: Lake = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
    no_orchestrator: NoOrchestrator = False,  # noqa: ARG001 (every verb takes it; this one is never a flow run)
) -> None:
    """Take messages from an MQTT broker, each acknowledged when it is on disk.

    User and password come from TIDECAST_MQTT_USERNAME and TIDECAST_MQTT_PASSWORD. Ctrl-C or SIGTERM stores and acknowledges what came
    and ends.
    """
    from flows.console import log_to_stderr
    from pipeline.clock import SystemClock
    from pipeline.listen.mqtt import MqttSource
    from pipeline.listen.mqtt_broker import Credentials

    section = given(url=url, topics=topic or None, client_id=client_id, ca=ca, cert=cert, key=key)
    settings = read_settings(settings_file, lake, listen={"mqtt": section})
    log_to_stderr()
    clock, over = SystemClock(), threading.Event()
    source = MqttSource(settings, clock, Credentials.of_environment(os.environ), over)
    run_and_report(settings, clock, source, over, as_json=as_json)


def run_and_report(settings: "Settings", clock: "Clock", source: "Source", over: threading.Event, *, as_json: bool) -> None:
    """Run a listener until it is asked to end, and print what it did; the other verbs `listen …` end with it too."""
    from flows.console import show_counts, write_json
    from pipeline.listen.service import run_listener

    report = run_listener(settings, clock, source, over=over)
    if as_json:
        write_json(report.to_dict())
    else:
        show_counts(report.counts)
