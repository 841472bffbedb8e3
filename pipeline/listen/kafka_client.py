"""The consumer of Kafka as the promise wants it: no property of the user's may say otherwise. Called by `kafka.py`."""

import logging
import time
from typing import TYPE_CHECKING

from pipeline.errors import SettingsError
from pipeline.settings import KafkaSettings

if TYPE_CHECKING:
    from confluent_kafka import Consumer

OURS = {  # what the promise rests on
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "isolation.level": "read_committed",
    "auto.offset.reset": "error",  # where to go on is ours to say
    "partition.assignment.strategy": "cooperative-sticky",
}
DEFAULTS = {"topic.metadata.refresh.interval.ms": "30000"}  # topics and partitions that are new are noticed after 5 minutes otherwise
QUIET_S = 30.0  # between two equal log lines of the client, which reports a broker that is down 20 times a second


def new_consumer(section: KafkaSettings, password: str | None) -> "Consumer":
    """Return a consumer that has not connected yet.

    Args:
        section: where the brokers are, and what to read.
        password: for SASL, or None.

    Raises:
        SettingsError: when confluent-kafka is not installed, or a setting is impossible.
    """
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
    given = {"bootstrap.servers": section.servers, "group.id": section.group, **DEFAULTS, **section.properties, **secret, **OURS}
    try:
        return Consumer(given, logger=_quiet_logger())
    except KafkaException as error:
        raise SettingsError(f"listen.kafka requires properties that librdkafka knows; got {error}. Correct them.") from error


def _quiet_logger() -> logging.Logger:
    logger = logging.getLogger(f"{__name__}.librdkafka")
    if not logger.filters:
        logger.addFilter(_SaidBefore())
    return logger


class _SaidBefore(logging.Filter):
    """Leaves out what was said within the last `QUIET_S`."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        self._said = {text: at for text, at in self._said.items() if now - at < QUIET_S}
        text = record.getMessage().partition(" (after ")[0]  # so many milliseconds, in some state
        return self._said.setdefault(text, now) == now
