"""A server for readings by HTTP on loopback, and what is in the inbox behind it."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from pipeline.clock import SystemClock
from pipeline.listen.http import HttpOptions, HttpSource
from pipeline.listen.inbox import Inbox, Stored
from pipeline.settings import ListenSettings, Settings

ANY_PORT = HttpOptions(port=0)
SHORT = ListenSettings(max_message_bytes=1024)
READING = b'{"ts": "2026-03-02T00:00:00Z", "device_id": "pump-1", "metric": "flow", "value": 1.5}'
JSON = {"Content-Type": "application/json"}


@contextmanager
def serving(folder: Path, listen: ListenSettings | None = None, options: HttpOptions = ANY_PORT) -> Iterator[httpx.Client]:
    """Run a server over a lake in `folder` and yield a client of it."""
    source = HttpSource(settings_of(folder, listen), SystemClock(), options, threading.Event())
    source.start()
    try:
        with httpx.Client(base_url=source.url, timeout=20, trust_env=False, verify=False) as client:
            yield client
    finally:
        source.stop()


def connected(client: httpx.Client) -> socket.socket:
    """Open a connection to a client's server, to send anything at all."""
    return socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=20)


def settings_of(folder: Path, listen: ListenSettings | None = None) -> Settings:
    return Settings(lake=str(folder / "lake"), listen=listen or ListenSettings())


def stored(folder: Path) -> list[Stored]:
    """Return what is in the inbox of a folder."""
    inbox = Inbox(settings_of(folder).state_dir)
    try:
        return inbox.read(0, max_messages=1000, max_bytes=1 << 30)
    finally:
        inbox.close()
