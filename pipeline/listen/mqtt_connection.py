"""The connection of the MQTT source: connect, subscribe, read, acknowledge in order, keep alive, connect again.

MQTT 5, QoS 1 and a session that outlives the connection: what is not acknowledged when this process or its machine dies, the broker sends
again. One thread owns the connection and calls paho's public steps itself: in paho's own thread a callback that raises ends the network
silently, and each acknowledgement wakes it by itself. Used by `mqtt.py`.
"""

import logging
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import cast

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from pipeline.failpoints import failpoint
from pipeline.listen.mqtt_acks import Acknowledgements
from pipeline.listen.mqtt_attempts import Attempts
from pipeline.listen.mqtt_broker import Address, Credentials, new_client
from pipeline.listen.source_thread import SourceThread
from pipeline.settings import MqttSettings

logger = logging.getLogger(__name__)

QOS = 1  # with 2, paho would hold what it has confirmed in memory only
KEEPALIVE_S = 30
LOOK_S = 1.0  # the longest time without a look at the keep-alive
FAREWELL_S = 5.0  # for the last acknowledgements to leave
READS = 500  # packets between two rounds of acknowledgements


class MqttConnection:
    """One connection after another, in a thread of its own, until it is closed or another one would be in vain.

    Attributes:
        acknowledgements: what arrived on the present connection, and what of it is on disk; call `wake` after adding to it.
        num_acknowledged: how many messages the broker need not send again.
        attempts: what became of its connections, and why another one would be in vain.
    """

    def __init__(
        self,
        settings: MqttSettings,
        credentials: Credentials,
        take: Callable[[MQTTMessage], None],
        has_room: Callable[[], bool],
        over: threading.Event,
    ) -> None:
        """Make it ready to start.

        Args:
            settings: which broker, which topics, which session.
            credentials: who logs in.
            take: called with each message, on the thread of the connection; must neither wait nor raise.
            has_room: asked before each packet, whether to read it; while there is none, TCP holds the broker back.
            over: set when the thread has ended, because it was asked to or because another connection would be in vain.

        Raises:
            SettingsError: without a client id, or for an address, certificates or credentials that cannot be used.
        """
        self._settings = settings
        self._take, self._has_room = take, has_room
        self._address = Address.parse(settings.url)
        self._client = new_client(settings, self._address, credentials)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.on_socket_register_write = lambda *_: None  # without it paho sends each acknowledgement as soon as it is made
        self.acknowledgements = Acknowledgements()
        self.num_acknowledged = 0
        self.attempts = Attempts(self._address, settings.client_id)
        self._thread = SourceThread("mqtt", lambda _: self._run(), over)
        self._stopping, self._closing = threading.Event(), threading.Event()  # take no more; acknowledge what is done and leave
        self._reading = threading.Lock()
        self._awake, self._waker = socket.socketpair()
        self._is_woken = False
        self._num_read = 0
        self._has_listened = False

    def start(self, *, has_listened: bool) -> None:
        """Connect, and connect again for as long as that may help.

        Args:
            has_listened: whether somebody has taken messages for this inbox before, perhaps under this client id.
        """
        self._has_listened = has_listened
        self._thread.start()

    def wake(self) -> None:
        """Let the thread look at the acknowledgements and at what it has been asked; from any thread."""
        if not self._is_woken:
            self._is_woken = True
            self._waker.send(b"\0")

    def publish(self, topic: str, payload: bytes) -> None:
        """Send a message with QoS 0, not retained; from `take` alone, which is on the thread of the connection."""
        self._client.publish(topic, payload, qos=0)

    def stop_taking(self) -> None:
        """Read no more messages, none after this returns; go on acknowledging."""
        self._stopping.set()
        with self._reading:
            self.wake()

    def close(self) -> None:
        """Acknowledge what is done, say goodbye and end the thread; the broker keeps the session.

        Raises:
            SettingsError: why another connection would have been in vain.
        """
        self._stopping.set()
        self._closing.set()
        self.wake()
        with self._awake, self._waker:
            self._thread.stop()

    def _run(self) -> None:
        while self.attempts.failure is None and not self._stopping.is_set():
            self._connect()
            self._serve()
            self.attempts.pause(self._stopping)
        if self.attempts.failure is not None:
            raise self.attempts.failure

    def _connect(self) -> None:
        self.acknowledgements.reconnect()
        asked = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        asked.SessionExpiryInterval = int(self._settings.session_expiry.total_seconds())
        asked.ReceiveMaximum = self._settings.receive_maximum  # else Mosquitto stops after 20 that are not acknowledged
        try:
            self._client.connect(self._address.host, self._address.port, KEEPALIVE_S, clean_start=False, properties=asked)
        except ssl.SSLCertVerificationError as error:
            self.attempts.unreachable(f"its certificate is not trusted: {error.verify_message}", is_hopeless=True)
        except (ssl.SSLError, ConnectionResetError) as error:  # Mosquitto resets what does not begin as MQTT does
            self.attempts.unreachable(f"TLS could not begin ({error}): the port may be one without TLS, which mqtt:// asks for")
        except OSError as error:
            self.attempts.unreachable(str(error))

    def _serve(self) -> None:
        """Read, acknowledge and keep alive, until the connection ends or everything is said."""
        while self.attempts.failure is None and not self._closing.is_set() and (connection := self._acknowledge()) is not None:
            takes = not self._stopping.is_set() and self._has_room()
            decrypted = takes and isinstance(connection, ssl.SSLSocket) and connection.pending() > 0  # select does not see those
            readers = [self._awake, connection] if takes else [self._awake]
            writers = [connection] if self._client.want_write() else []
            readable, writable, _ = select.select(readers, writers, [], 0 if decrypted else LOOK_S)
            if self._awake in readable:
                self._awake.recv(4096)
            if writable:
                self._client.loop_write()
            if decrypted or connection in readable:
                self._read()
            self._client.loop_misc()
        self._leave()

    def _read(self) -> None:
        """Read messages while they come and there is room; after any other packet, look at the connection again."""
        with self._reading:
            for _ in range(READS):
                before = self._num_read
                if self._stopping.is_set() or not self._has_room():
                    return
                if self._client.loop_read() != MQTTErrorCode.MQTT_ERR_SUCCESS or self._num_read == before:
                    return

    def _acknowledge(self) -> socket.socket | None:
        """Acknowledge what has become due, all of it at once; return the connection, None where there is none or this has ended it."""
        self._is_woken = False  # before looking: what is added from here on wakes us again
        connection = cast("socket.socket | None", self._client.socket())
        if connection is None or not (due := self.acknowledgements.due()):
            return connection
        failpoint("mqtt.before_ack")
        for packet_id in due:
            self._client.ack(packet_id, QOS)
        with _corked(connection):
            self._client.loop_write()  # closes the connection where the broker has reset it
        if self._client.socket() is None:
            return None
        self.num_acknowledged += len(due)
        failpoint("mqtt.after_ack")
        return connection

    def _leave(self) -> None:
        """Say goodbye, where there is still somebody to hear it."""
        if (connection := self._acknowledge()) is None:
            return
        deadline = time.monotonic() + FAREWELL_S
        with socket.socket(fileno=os.dup(connection.fileno())) as line:  # stays open when paho closes the connection
            self._client.disconnect()
            while self._client.socket() is not None and time.monotonic() < deadline:
                select.select([], [connection], [], LOOK_S)
                self._client.loop_write()
            _hear_out(line, deadline)

    # What paho calls, on the thread of the connection.

    def _on_connect(self, _client: Client, _data: object, flags: ConnectFlags, reason: ReasonCode, granted: Properties | None) -> None:
        if reason.is_failure:
            self.attempts.refused(reason)
            return
        self.attempts.let_in(is_kept=flags.session_present, has_listened=self._has_listened)
        asked_s = int(self._settings.session_expiry.total_seconds())
        if (granted_s := getattr(granted, "SessionExpiryInterval", asked_s)) < asked_s:
            logger.warning("the broker keeps the session for a shorter time granted_s=%d asked_s=%d", granted_s, asked_s)
        # what we ask of nodes is no message of theirs; not for shared topics, where MQTT forbids it
        options = SubscribeOptions(
            qos=QOS, noLocal=self._settings.sparkplug_rebirth, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB
        )
        self._client.subscribe([(topic, options) for topic in self._settings.topics])

    def _on_subscribe(self, _client: Client, _data: object, _mid: int, reasons: Sequence[ReasonCode], _said: Properties | None) -> None:
        refused = [f"{topic} ({reason})" for topic, reason in zip(self._settings.topics, reasons, strict=False) if reason.value != QOS]
        if refused:
            self.attempts.fail(f"leave to subscribe with QoS {QOS}; got {', '.join(refused[:5])}. Check --topic and the user's rights.")
        else:
            logger.info("subscribed topics=%s", ",".join(self._settings.topics))

    def _on_disconnect(self, _client: Client, _data: object, _flags: DisconnectFlags, reason: ReasonCode, _said: Properties | None) -> None:
        if not self._closing.is_set():
            self.attempts.ended(reason)

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        self._num_read += 1
        if message.qos == QOS:
            self.acknowledgements.arrive(message.mid)
        self._take(message)


@contextmanager
def _corked(connection: socket.socket) -> Iterator[None]:
    """Let many small packets leave as few large ones (Linux); paho writes each by itself."""
    can_cork = hasattr(socket, "TCP_CORK")
    if can_cork:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    yield
    if can_cork and connection.fileno() != -1:  # else it was closed meanwhile
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)


def _hear_out(line: socket.socket, deadline: float) -> None:
    """Read and discard until the broker closes the connection. Discarded messages are unacknowledged, so the broker sends them again.

    Closing a socket with unread data resets the connection, and the broker may then not read the last acknowledgements.
    """
    with suppress(OSError):  # the broker has ended it
        line.shutdown(socket.SHUT_WR)
        while (left_s := deadline - time.monotonic()) > 0 and select.select([line], [], [], left_s)[0] and line.recv(65536):
            pass
