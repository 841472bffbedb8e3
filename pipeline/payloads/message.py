"""One message of a live source, as it came: the unit that is stored, acknowledged and decoded.

Made by the listeners, kept by the inbox, decoded by `pipeline.payloads.decode`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from pipeline.schemas import EPOCH, MICROSECOND, UTC_US

CUT_SHORT = "application/vnd.tidecast.cut-short"  # the content type of the beginning of a message that was too long: never decoded


@dataclass(frozen=True, slots=True)
class Message:
    """What a source delivered, nothing judged yet.

    Attributes:
        connector: the kind of source: mqtt, http or kafka.
        topic: where it was published, which may name its device; the path of an HTTP request.
        payload: the bytes, whole.
        received_at: when it was stored, UTC; on its way there, when we first saw it.
        content_type: what the sender says of its format; None where it says nothing.
        idempotency_key: two messages of one connector with the same key are one; None where the sender gives none.
    """

    connector: str
    topic: str
    payload: bytes
    received_at: datetime
    content_type: str | None = None
    idempotency_key: str | None = None

    @property
    def source(self) -> str:
        """How readings and quarantine name where it came from."""
        return f"{self.connector}:{self.topic}"


def arrivals(messages: Iterable[Message]) -> pl.Series:
    """Return when each message was received, as `received_at`; counted by hand, because Polars takes 1 µs for a datetime of Python's."""
    return pl.Series("received_at", [(message.received_at - EPOCH) // MICROSECOND for message in messages], dtype=pl.Int64).cast(UTC_US)
