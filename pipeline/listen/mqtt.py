"""The MQTT source: every message of a broker goes to the inbox, and is acknowledged when it is on disk there.

The connection is `mqtt_connection.py`; what the broker promises, and what it does not, is in docs/live.md. Run by `service.py`.
"""

import logging
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from functools import partial

from paho.mqtt.client import MQTTMessage

from pipeline.clock import Clock
from pipeline.errors import StoreError
from pipeline.listen.group_commit import GroupCommit
from pipeline.listen.inbox import Inbox
from pipeline.listen.mqtt_broker import Credentials
from pipeline.listen.mqtt_connection import MqttConnection
from pipeline.listen.mqtt_rebirth import Rebirths
from pipeline.payloads.cloud_events import structured
from pipeline.payloads.message import CUT_SHORT, Message
from pipeline.payloads.sparkplug_session import rebirth_request
from pipeline.settings import Settings

logger = logging.getLogger(__name__)

MAX_WAITING_BYTES = 64 * 1024**2  # on their way to the disk; beyond it nothing more is read


class MqttSource:
    """Takes messages from a broker into the inbox."""

    def __init__(self, settings: Settings, clock: Clock, credentials: Credentials, over: threading.Event) -> None:
        """Open the inbox; it connects when it starts.

        Args:
            settings: the state folder, and the section `listen`.
            clock: stamps what comes.
            credentials: who logs in.
            over: set here when the source cannot go on; `stop` then raises why.

        Raises:
            SettingsError: without a client id, or for an address, certificates or credentials that cannot be used.
            StoreError: when there is no inbox and none can be made.
        """
        self._settings = settings
        self._clock = clock
        self._connection = MqttConnection(settings.listen.mqtt, credentials, self._take, self._has_room, over)
        self._acknowledgements = self._connection.acknowledgements
        self._rebirths = Rebirths() if settings.listen.mqtt.sparkplug_rebirth else None
        # Each is counted by one thread alone: these by that of the connection, the others by that of the commits.
        self._received = self._retained = self._cut_short = self._submitted = self._submitted_bytes = 0
        self._stored = self._answered = self._answered_bytes = 0
        with closing(Inbox(settings.state_dir)) as inbox:
            self._has_listened = inbox.last_seq() > 0
        self._commits = GroupCommit(settings.state_dir, clock, over, max_bytes=settings.listen.max_inbox_bytes, holds=True)

    def start(self) -> None:
        """Connect, and connect again whenever that may help."""
        self._connection.start(has_listened=self._has_listened)

    def stop(self) -> None:
        """Take no more, store and acknowledge what came, and leave; the broker keeps the session.

        Raises:
            TidecastError: why the source could not go on, where it ended by itself.
        """
        self._connection.stop_taking()
        try:
            self._commits.close()
        finally:
            self._connection.close()

    def counts(self) -> Mapping[str, int]:
        """Return how many messages came, are on disk, are acknowledged, are on their way, and were not taken as they are."""
        return {
            "received": self._received,
            "stored": self._stored,
            "acknowledged": self._connection.num_acknowledged,
            "waiting": self._submitted - self._answered,
            "retained": self._retained,
            "cut_short": self._cut_short,
        }

    def is_connected(self) -> bool:
        """Return whether the broker has let us in."""
        return self._connection.attempts.is_let_in

    def _has_room(self) -> bool:
        return self._submitted_bytes - self._answered_bytes < MAX_WAITING_BYTES

    def _take(self, message: MQTTMessage) -> None:
        """Hand a message to the commits; on the thread of the connection."""
        self._received += 1
        place = self._acknowledgements.connection, message.mid
        if message.retain:  # the last word on a topic from before we asked: not a new reading
            self._retained += 1
            self._acknowledgements.stored(*place)
            return
        payload, content_type = bytes(message.payload), getattr(message.properties, "ContentType", None)
        if self._rebirths is not None:
            self._ask_for_births(self._rebirths, message.topic, payload)
        if len(payload) > self._settings.listen.max_message_bytes:
            self._cut_short += 1
            logger.warning("message is too long, its beginning is kept topic=%s num_bytes=%d", message.topic, len(payload))
            payload, content_type = payload[: self._settings.listen.max_message_bytes], CUT_SHORT
        elif (said := getattr(message.properties, "UserProperty", None)) is not None:
            content_type, payload = structured(dict(said), content_type, payload)
        self._submitted += 1
        self._submitted_bytes += len(payload)
        taken = Message("mqtt", message.topic, payload, self._clock.now(), content_type)
        self._commits.submit(taken, partial(self._on_stored, place, len(payload)))

    def _ask_for_births(self, rebirths: Rebirths, topic: str, payload: bytes) -> None:
        lacking = rebirths.wanted(topic, payload, connection=self._acknowledgements.connection, at_s=time.monotonic())
        if lacking is not None:
            self._connection.publish(*rebirth_request(lacking, self._clock.now()))
            logger.info("asked for a rebirth group=%s node=%s", lacking.group, lacking.node)

    def _on_stored(self, place: tuple[int, int], num_bytes: int, failure: StoreError | None) -> None:
        """Have a message acknowledged that is on disk; on the thread of the commits."""
        self._answered += 1
        self._answered_bytes += num_bytes
        if failure is None:
            self._stored += 1
            self._acknowledgements.stored(*place)
        self._connection.wake()  # for the acknowledgement, and for the room
