"""A real Mosquitto for tests, on a free port of loopback, with what publishes to it and waits for what comes of it.

On a developer's machine without the broker these tests are skipped, with the reason; where CI=true they fail.
"""

import logging
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from paho.mqtt import publish
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from pipeline.clock import ReplayClock, SystemClock
from pipeline.errors import SettingsError
from pipeline.listen.inbox import Inbox
from pipeline.listen.mqtt import MqttSource
from pipeline.listen.mqtt_broker import Credentials
from pipeline.payloads.message import Message
from pipeline.settings import ListenSettings, MqttSettings, Settings
from tests.waiting import PATIENCE_S, until

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
ANONYMOUS = Credentials()


class Mosquitto:
    """A broker in a folder of its own; started again, it has what it kept."""

    def __init__(self, folder: Path, *lines: str) -> None:
        self.port = free_port()
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        kept = f"persistence true\npersistence_location {folder}/\n"
        settings = "\n".join((f"listener {self.port} 127.0.0.1", *(lines or ("allow_anonymous true",))))
        (folder / "mosquitto.conf").write_text(f"{kept}max_queued_messages 0\n{settings}\n")
        if os.geteuid() == 0:  # it changes to a user of its own, who must be let in
            with (folder / "mosquitto.conf").open("a") as file:
                file.write("user root\n")

    def start(self) -> "Mosquitto":
        """Start, and wait until it listens."""
        program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            assert os.environ.get("CI") != "true", "these tests need Mosquitto: apt-get install mosquitto"
            pytest.skip("needs Mosquitto (apt-get install mosquitto)")
        with (self._folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen([program, "-c", str(self._folder / "mosquitto.conf")], stdout=log, stderr=log)
        try:
            until(lambda: self._process.poll() is not None or _listens(self.port))
            assert self._process.poll() is None, self.said()
        except BaseException:  # a test that is interrupted here knows of no broker that it had to stop
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """End it as a service manager does: what it has is written down first."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(PATIENCE_S)
        finally:
            self.kill()

    def kill(self) -> None:
        """End it as a power failure would; what has ended stays so."""
        self._process.kill()
        self._process.wait()

    def said(self) -> str:
        """Return everything that its lives have written down."""
        return (self._folder / "mosquitto.log").read_text(errors="replace")

    def publish(
        self,
        topic: str,
        *payloads: bytes,
        retain: bool = False,
        qos: int = 1,
        ca: Path | None = None,
        certificate: tuple[Path, Path] | None = None,
        content_type: str | None = None,
        user: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Publish payloads in their order, with a content type and user properties; it returns when the broker has them all."""
        properties = Properties(PacketTypes.PUBLISH)
        properties.UserProperty = list(user)
        if content_type is not None:
            properties.ContentType = content_type
        messages = [{"topic": topic, "payload": payload, "qos": qos, "retain": retain, "properties": properties} for payload in payloads]
        cert, key = certificate or (None, None)
        tls = {"ca_certs": ca, "certfile": cert, "keyfile": key} if ca else None
        publish.multiple(messages, hostname="localhost", port=self.port, protocol=MQTTProtocolVersion.MQTTv5, tls=tls)

    def settings(self, lake: Path, *, listen: dict[str, object] | None = None, **mqtt: object) -> Settings:
        """Return settings for a listener of this broker."""
        chosen = {"url": f"localhost:{self.port}", "client_id": "listener", **mqtt}
        return Settings(lake=str(lake), listen=ListenSettings(mqtt=MqttSettings(**chosen), **(listen or {})))


@contextmanager
def running(mosquitto: Mosquitto) -> Iterator[Mosquitto]:
    """Run a broker for the length of a block."""
    mosquitto.start()
    try:
        yield mosquitto
    finally:
        mosquitto.stop()


@contextmanager
def listening(settings: Settings, caplog, credentials: Credentials = ANONYMOUS, *, sign: str = "subscribed") -> Iterator[MqttSource]:
    """Run a source that has subscribed, or has logged another sign of life."""
    caplog.set_level(logging.INFO)
    caplog.clear()
    source = MqttSource(settings, ReplayClock(NOON), credentials, threading.Event())
    source.start()
    try:
        until(lambda: sign in caplog.text)
        yield source
    finally:
        source.stop()


def refusal(settings: Settings, credentials: Credentials = ANONYMOUS) -> str:
    """Return why a source ends by itself."""
    stop = threading.Event()
    source = MqttSource(settings, SystemClock(), credentials, stop)
    source.start()
    assert stop.wait(PATIENCE_S)
    with pytest.raises(SettingsError) as refused:
        source.stop()
    return str(refused.value)


def inbox_of(settings: Settings) -> list[Message]:
    """Return every message in the inbox, in order."""
    inbox = Inbox(settings.state_dir)
    stored = inbox.read(0, max_messages=1_000_000, max_bytes=2**40)
    inbox.close()
    return [item.message for item in stored]


def payloads_of(messages: Iterable[Message]) -> list[bytes]:
    """Return what was in them."""
    return [message.payload for message in messages]


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
