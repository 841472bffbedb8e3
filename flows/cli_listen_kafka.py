"""The verb `listen kafka`: readings from topics of Kafka, whose offsets are kept in the lake."""

import os
import threading
from typing import Annotated

import typer

from flows.cli_listen import run_and_report
from flows.cli_options import AsJson, Lake, NoOrchestrator, SettingsFile, given, read_settings


def listen_kafka(
    *,
    servers: Annotated[str | None, typer.Option(metavar="HOST:PORT,…", help="Brokers to begin with.  (default: localhost:9092)")] = None,
    topic: Annotated[list[str] | None, typer.Option(metavar="TOPIC", help="A topic, or ^ and a pattern; repeatable.")] = None,
    group: Annotated[str | None, typer.Option(metavar="NAME", help="Consumer group.  (default: tidecast)")] = None,
    lake: Lake = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
    no_orchestrator: NoOrchestrator = False,  # noqa: ARG001 (never uses Prefect)
) -> None:
    """Take messages from Kafka, from the offsets in the lake on, so that each is stored once.

    The password of SASL comes from TIDECAST_KAFKA_PASSWORD. Ctrl-C or SIGTERM stores what was read and ends.
    """
    from flows.console import log_to_stderr
    from pipeline.clock import SystemClock
    from pipeline.listen.kafka import KafkaSource
    from pipeline.settings import KAFKA_PASSWORD

    section = given(servers=servers, topics=topic or None, group=group)
    settings = read_settings(settings_file, lake, listen={"kafka": section})
    log_to_stderr()
    clock, over = SystemClock(), threading.Event()
    source = KafkaSource(settings, clock, os.environ.get(KAFKA_PASSWORD), over)
    run_and_report(settings, clock, source, over, as_json=as_json)
