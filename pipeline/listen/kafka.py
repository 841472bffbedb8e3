"""Readings from Kafka: a consumer that goes on from the offset in the lake, whatever the broker believes that it has read.

Offsets are committed to the group too, but only so that its lag can be watched. Run by `run_listener`, made by `tidecast listen kafka`.
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.clock import Clock
from pipeline.errors import SettingsError, StoreError
from pipeline.listen.inbox import Stored
from pipeline.listen.kafka_store import Partition, PartitionStore
from pipeline.payloads.message import Message
from pipeline.settings import KafkaSettings, Settings

if TYPE_CHECKING:
    from confluent_kafka import Consumer, TopicPartition

logger = logging.getLogger(__name__)

CONNECTOR = "kafka"
MAX_MESSAGES, MAX_BYTES = 50_000, 32 * 1024**2  # waiting at once, which bounds the memory; as in the drain
POLL_S = 0.25
LOOK_UP_S = 30.0  # for the name of the cluster
RETRY_S = 2.0
OURS = {  # what the promise rests on, so that no property of the user's may say otherwise
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "isolation.level": "read_committed",
    "auto.offset.reset": "earliest",
    "partition.assignment.strategy": "cooperative-sticky",
}


class KafkaSource:
    """A member of a consumer group as a source of `run_listener`; it stores by itself, every `listen.drain_interval`."""

    def __init__(self, settings: Settings, clock: Clock, password: str | None, stop: threading.Event) -> None:
        """Make the consumer; it connects when it starts.

        Args:
            settings: the lake, the state folder, and the sections ingest, listen and metrics.
            clock: says when a message was received.
            password: of SASL, or None.
            stop: set here when the source cannot go on.

        Raises:
            SettingsError: when confluent-kafka is not installed, or a setting is impossible.
        """
        self._settings, self._clock, self._stop = settings, clock, stop
        self._section = settings.listen.kafka
        self._consumer = _consumer(self._section, password)
        self._store = PartitionStore(settings, clock)
        self._partitions: dict[tuple[str, int], Partition] = {}
        self._ending = threading.Event()
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="kafka", daemon=True)

    def start(self) -> None:
        """Join the group and begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Store what was read and leave the group; raise why it ended, if it did so by itself."""
        self._ending.set()
        self._thread.join()
        if self._fault is not None:
            raise self._fault

    def counts(self) -> Mapping[str, int]:
        """Return messages stored, and what became of their readings, by name."""
        return dict(self._store.counts)

    def _run(self) -> None:
        try:
            self._name = self._section.name or self._cluster()
            self._consumer.subscribe(list(self._section.topics), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked)
            while not self._ending.is_set():
                self._gather()
                self._store_all()
        except BaseException as error:  # noqa: BLE001 (the end of a thread: `stop` raises it where somebody hears it)
            self._fault = error
            self._stop.set()
        finally:
            self._consumer.close()

    def _cluster(self) -> str:
        from confluent_kafka import KafkaException

        try:
            name: str | None = self._consumer.cluster_id(LOOK_UP_S)
        except KafkaException:
            name = None
        if not name:
            raise SettingsError(f"Kafka requires a broker that answers; got none at {self._section.servers}. Check listen.kafka.servers.")
        return name

    def _assigned(self, consumer: "Consumer", given: "Sequence[TopicPartition]") -> None:
        for one in given:
            partition = self._store.open(f"{CONNECTOR}/{self._name}/{one.topic}/{one.partition}")
            self._partitions[one.topic, one.partition] = partition
            one.offset = partition.start
            logger.info("assigned source=%s from=%d", partition.source, partition.start)
        consumer.incremental_assign(list(given))

    def _revoked(self, consumer: "Consumer", taken: "Sequence[TopicPartition]") -> None:
        """Forget partitions; who has them next reads what was not stored."""
        for one in taken:
            self._partitions.pop((one.topic, one.partition), None)
        consumer.incremental_unassign(list(taken))

    def _gather(self) -> None:
        """Read until it is time to store, or there is enough."""
        until = time.monotonic() + self._settings.listen.drain_interval.total_seconds()
        num_messages = num_bytes = 0
        while not self._ending.is_set() and num_messages < MAX_MESSAGES and num_bytes < MAX_BYTES and time.monotonic() < until:
            for message in self._consumer.consume(1_000, timeout=POLL_S):
                if message.error() is not None:
                    logger.warning("kafka: %s", message.error())  # the client tries again by itself
                    continue
                payload = message.value() or b""
                self._take(message, payload)
                num_messages, num_bytes = num_messages + 1, num_bytes + len(payload)

    def _take(self, message: Any, payload: bytes) -> None:  # noqa: ANN401 (confluent-kafka has no types)
        partition = self._partitions.get((message.topic(), message.partition()))
        if partition is None:  # it was taken from us since
            return
        if message.offset() < partition.start:
            raise StoreError(
                f"A partition requires the offsets that the lake has seen; got {message.offset()} of {partition.source}, after "
                f"{partition.start}: the topic was made anew. Give it another listen.kafka.name."
            )
        types = [value for name, value in message.headers() or () if name.lower() == "content-type" and value is not None]
        content_type = types[-1].decode(errors="replace") if types else None
        received = Message(CONNECTOR, message.topic(), payload, self._clock.now(), content_type)
        partition.waiting.append(Stored(message.offset(), received))

    def _store_all(self) -> None:
        for (topic, number), partition in list(self._partitions.items()):
            if not partition.waiting:
                continue
            try:
                is_ours = self._store.store(partition)
            except StoreError as error:
                logger.error("kafka source=%s retry_s=%.0f: %s", partition.source, RETRY_S, error)
                self._ending.wait(RETRY_S)
                is_ours = False
            self._go_on(topic, number, partition, is_ours=is_ours)

    def _go_on(self, topic: str, number: int, partition: Partition, *, is_ours: bool) -> None:
        """Tell the group how far we are, or read again from where the lake is."""
        from confluent_kafka import TopicPartition

        if is_ours:
            self._consumer.commit(offsets=[TopicPartition(topic, number, partition.through)], asynchronous=True)
            return
        again = self._partitions[topic, number] = self._store.open(partition.source)
        self._consumer.seek(TopicPartition(topic, number, again.start))


def _consumer(section: KafkaSettings, password: str | None) -> "Consumer":
    try:
        from confluent_kafka import Consumer, KafkaException
    except ImportError as error:
        raise SettingsError("tidecast listen kafka requires confluent-kafka; got none. Run pip install 'tidecast[kafka]'.") from error
    if not section.topics:
        raise SettingsError("tidecast listen kafka requires a topic; got none. Name it with --topic or listen.kafka.topics.")
    taken = sorted(OURS.keys() & section.properties.keys())
    if taken:
        raise SettingsError(f"listen.kafka.properties requires properties that are free; got {', '.join(taken)}. Leave them out.")
    secret = {} if password is None else {"sasl.password": password}
    given = {"bootstrap.servers": section.servers, "group.id": section.group, **section.properties, **secret, **OURS}
    try:
        return Consumer(given, logger=logger)
    except KafkaException as error:
        raise SettingsError(f"listen.kafka requires properties that librdkafka knows; got {error}. Correct them.") from error
