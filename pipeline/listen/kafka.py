"""Readings from Kafka: a consumer that goes on from the offset in the lake, whatever the broker believes that it has read.

Offsets are committed to the group too, but only so that its lag can be watched. Run by `run_listener`, made by `tidecast listen kafka`.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from pipeline.clock import Clock
from pipeline.errors import SettingsError, StoreError
from pipeline.listen.inbox import Stored
from pipeline.listen.kafka_client import new_consumer
from pipeline.listen.kafka_store import Partition, PartitionStore
from pipeline.listen.range_commit import RANGE_BYTES, RANGE_MESSAGES
from pipeline.listen.source_thread import SourceThread
from pipeline.payloads.message import CUT_SHORT, Message
from pipeline.settings import Settings

if TYPE_CHECKING:
    from confluent_kafka import Consumer, TopicPartition

logger = logging.getLogger(__name__)

CONNECTOR = "kafka"
POLL_S = 0.25
LOOK_UP_S = 10.0  # for the ends of a partition; a stop waits for it
FIND_S = 2.0  # for the name of the cluster; a stop waits for it
RETRY_S, LONGEST_PAUSE_S = 2.0, 30.0


class KafkaSource:
    """A member of a consumer group as a source of `run_listener`; it stores by itself, every `listen.drain_interval`."""

    def __init__(self, settings: Settings, clock: Clock, password: str | None, over: threading.Event) -> None:
        """Make the consumer; it connects when it starts.

        Args:
            settings: the lake, the state folder, and the sections ingest, listen and metrics.
            clock: says when a message was received.
            password: of SASL, or None.
            over: set here when the source cannot go on.

        Raises:
            SettingsError: when confluent-kafka is not installed, or a setting is impossible.
            StoreError: when the lake cannot be written.
        """
        self._settings, self._clock = settings, clock
        self._section, self._password = settings.listen.kafka, password
        self._consumer = new_consumer(self._section, password)
        self._store = PartitionStore(settings, clock)
        self._name: str | None = None  # of the cluster, once it is known
        self._partitions: dict[tuple[str, int], Partition] = {}
        self._skipped = Counter(tombstones=0, cut_short=0)
        self._is_connected = False
        self._thread = SourceThread("kafka", self._run, over)

    def start(self) -> None:
        """Join the group and begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Store what was read and leave the group; raise why it ended, if it did so by itself."""
        self._thread.stop()

    def counts(self) -> Mapping[str, int]:
        """Return messages stored, what became of their readings, and the messages that were not taken as they are, by name."""
        return {**self._store.counts, **self._skipped}

    def is_connected(self) -> bool:
        """Return whether a broker has answered since it last joined the group; the client reports and mends later faults by itself."""
        return self._is_connected

    def _run(self, ending: threading.Event) -> None:
        """Be a member of the group; after a fault, leave it and join again: what was read and not stored is read once more."""
        from confluent_kafka import KafkaException

        while True:
            try:
                with closing(self._consumer):
                    self._take_part(ending)
                return
            except (StoreError, KafkaException) as error:
                self._is_connected = False
                logger.error("kafka failed retry_s=%.0f: %s", RETRY_S, error)
            if ending.wait(RETRY_S):
                return
            self._consumer, self._partitions = new_consumer(self._section, self._password), {}

    def _take_part(self, ending: threading.Event) -> None:
        self._name = self._section.name or self._find_cluster(ending)
        if self._name is None:
            return
        self._consumer.subscribe(list(self._section.topics), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked)
        while not ending.is_set():
            self._gather(ending)
            for (topic, number), partition in self._partitions.items():
                if partition.waiting:
                    self._store_one(topic, number, partition)

    def _find_cluster(self, ending: threading.Event) -> str | None:
        """Return the name of the cluster once a broker answers; None when asked to end before."""
        from confluent_kafka import KafkaException

        pause_s = RETRY_S
        while not ending.is_set():
            try:
                name: str | None = self._consumer.cluster_id(FIND_S)
            except KafkaException:  # it says "timed out", and asks for a version of brokers, whatever is wrong
                name = None
            if name:
                self._is_connected = True
                return name
            logger.warning(
                "no connection servers=%s retry_s=%.0f: no broker there answers with the name of its cluster; check --servers, TLS and the "
                "password, and set listen.kafka.name for brokers older than 0.10.1",
                *(self._section.servers, pause_s),
            )
            ending.wait(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        return None

    def _assigned(self, consumer: "Consumer", given: "Sequence[TopicPartition]") -> None:
        self._is_connected = True
        for one in given:
            partition = self._store.open(f"{CONNECTOR}/{self._name}/{one.topic}/{one.partition}")
            self._partitions[one.topic, one.partition] = partition
            one.offset = partition.start
            logger.info("assigned source=%s from=%d", partition.source, partition.start)
        consumer.incremental_assign(list(given))

    def _revoked(self, consumer: "Consumer", taken: "Sequence[TopicPartition]") -> None:
        """Forget partitions; their next owner reads what was not stored."""
        for one in taken:
            self._partitions.pop((one.topic, one.partition), None)
        consumer.incremental_unassign(list(taken))

    def _gather(self, ending: threading.Event) -> None:
        """Read until it is time to store, or there is enough."""
        until = time.monotonic() + self._settings.listen.drain_interval.total_seconds()
        num_messages = num_bytes = 0
        while not ending.is_set() and num_messages < RANGE_MESSAGES and num_bytes < RANGE_BYTES and time.monotonic() < until:
            for message in self._consumer.consume(1_000, timeout=POLL_S):
                if message.error() is not None:
                    self._hear(message)
                    continue
                self._take(message)
                num_messages, num_bytes = num_messages + 1, num_bytes + len(message.value() or b"")

    def _hear(self, message: Any) -> None:  # noqa: ANN401 (confluent-kafka has no types)
        """Handle an error; after most of them the client goes on by itself."""
        from confluent_kafka import KafkaError, KafkaException

        error = message.error()
        if error.fatal():
            raise KafkaException(error)
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            self._find_place(message.topic(), message.partition(), message.offset())
        else:
            logger.warning("kafka %s: %s", error.name(), error.str())

    def _find_place(self, topic: str, number: int, wanted: int) -> None:
        """Go on at the oldest message of a partition whose next message has been deleted."""
        from confluent_kafka import TopicPartition

        partition = self._partitions.get((topic, number))
        if partition is None:  # it was taken from us since
            return
        oldest, end = self._consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=LOOK_UP_S)
        if wanted > end:
            raise SettingsError(
                f"A partition requires the offsets that the lake has seen; got {end} as the end of {partition.source}, after "
                f"{wanted}: the topic was made anew. Give it another listen.kafka.name."
            )
        first = max(wanted, partition.through)
        if partition.through and oldest > first:  # what was deleted before our first commit is not lost
            logger.error("retention was quicker, messages are lost source=%s from=%d to=%d", partition.source, first, oldest - 1)
        self._read_from(topic, number, max(oldest, wanted))

    def _take(self, message: Any) -> None:  # noqa: ANN401 (confluent-kafka has no types)
        partition = self._partitions.get((message.topic(), message.partition()))
        payload = message.value()
        if partition is None:  # it was taken from us since
            return
        if payload is None:  # it tells a compacted topic to forget a key; the lake forgets nothing
            self._skipped["tombstones"] += 1
            return
        types = [value for name, value in message.headers() or () if name.lower() == "content-type" and value is not None]
        content_type = types[-1].decode(errors="replace") if types else None
        if len(payload) > self._settings.listen.max_message_bytes:
            self._skipped["cut_short"] += 1
            payload, content_type = payload[: self._settings.listen.max_message_bytes], CUT_SHORT
        received = Message(CONNECTOR, message.topic(), payload, self._clock.now(), content_type)
        partition.waiting.append(Stored(message.offset(), received))

    def _store_one(self, topic: str, number: int, partition: Partition) -> None:
        """Store what waits of a partition and tell the group how far we are, or read again from where the lake is."""
        from confluent_kafka import TopicPartition

        if self._store.store(partition):
            self._consumer.commit(offsets=[TopicPartition(topic, number, partition.through)], asynchronous=True)
            return
        again = self._partitions[topic, number] = self._store.open(partition.source)
        self._read_from(topic, number, again.start)

    def _read_from(self, topic: str, number: int, offset: int) -> None:
        from confluent_kafka import TopicPartition

        # not `seek`, which a partition that has just stopped at an error refuses
        self._consumer.incremental_unassign([TopicPartition(topic, number)])
        self._consumer.incremental_assign([TopicPartition(topic, number, offset)])
