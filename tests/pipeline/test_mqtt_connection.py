"""The connection of the MQTT source when a real Mosquitto resets it: that is a reconnect or a goodbye, never a fault of ours."""

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from paho.mqtt.client import MQTTMessage

from pipeline.listen import mqtt
from pipeline.listen.inbox import Inbox
from pipeline.listen.mqtt_broker import Credentials
from pipeline.listen.mqtt_connection import MqttConnection
from pipeline.payloads.message import Message
from tests.brokers import NOON, Mosquitto, inbox_of, listening, payloads_of, running
from tests.waiting import until


@pytest.fixture
def broker(tmp_path) -> Iterator[Mosquitto]:
    with running(Mosquitto(tmp_path / "broker")) as started:
        yield started


def test_a_reset_while_acknowledging_is_a_reconnect(broker, tmp_path, caplog, monkeypatch):
    """Shown to fail by waiting for the connection that the acknowledgement had closed: the listener ended."""
    monkeypatch.setattr(mqtt, "MAX_WAITING_BYTES", 100_000)
    settings = broker.settings(tmp_path / "lake", listen={"max_inbox_bytes": 1024**2})
    with listening(settings, caplog):
        pass
    broker.publish("a", *[b"%d" % number * 40_000 for number in range(8)])  # all of which then come at once
    inbox = Inbox(settings.state_dir)
    inbox.put([Message("mqtt", "old", b"0" * 1024**2, NOON - timedelta(days=2))])
    with listening(settings, caplog, sign="connected") as source:
        until(lambda: "inbox refused" in caplog.text)  # there is no room: nobody reads that the broker goes
        broker.kill()
        inbox.trim(1, received_before=NOON)  # the acknowledgements of the first three earn the reset, the next ones meet it
        until(lambda: "connection ended" in caplog.text)
        broker.start()
        caplog.clear()
        until(lambda: "subscribed" in caplog.text)
        broker.publish("a", b"after")
        until(lambda: b"after" in payloads_of(inbox_of(settings)))
    inbox.close()
    assert source.counts()["received"] > 3


def test_a_reset_met_by_the_last_acknowledgements_is_a_goodbye(broker, tmp_path):
    """Shown to fail by holding on to the socket that they had closed: a clean end of the listener was a fault."""
    taken: list[MQTTMessage] = []
    settings = broker.settings(tmp_path / "lake")
    connection = MqttConnection(settings.listen.mqtt, Credentials(), taken.append, lambda: True, threading.Event())
    connection.start(has_listened=False)
    until(lambda: connection.attempts.is_let_in)
    broker.publish("a", b"1", b"2")
    until(lambda: len(taken) == 2)
    connection.stop_taking()
    broker.kill()
    connection.acknowledgements.stored(connection.acknowledgements.connection, taken[0].mid)  # earns the reset
    connection.wake()
    until(lambda: connection.num_acknowledged == 1)
    connection.acknowledgements.stored(connection.acknowledgements.connection, taken[1].mid)  # meets it
    connection.close()
    assert connection.num_acknowledged == 1
