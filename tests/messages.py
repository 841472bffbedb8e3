"""Messages made by hand, and what `decode` makes of them, in a form that tests compare."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime

import polars as pl
from hypothesis import strategies as st

from pipeline.ingest.timestamps import StampRules, parse_stamps
from pipeline.payloads.complete import COLUMNS
from pipeline.payloads.decode import decode
from pipeline.payloads.message import Message
from pipeline.payloads.rows import MESSAGES_SCHEMA, Decoded
from pipeline.payloads.sparkplug_schema import payload_class
from pipeline.schemas import UTC_US
from pipeline.settings import Route

ARRIVED = datetime(2026, 1, 1, 12, tzinfo=UTC)
STAMP = datetime(2026, 1, 1, tzinfo=UTC)
STAMP_S = int(STAMP.timestamp())

# What one reading says, in text that every format can carry; instants in milliseconds since 1970, from 1979 (a
# number below 2**28 seconds is relative in SenML) to 2100.
WORDS = st.from_regex(r"[a-zA-Z][a-zA-Z0-9_-]{0,9}", fullmatch=True)
MILLIS = st.integers(300_000_000_000, 4_102_444_800_000)
VALUES = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)
READINGS = st.lists(st.tuples(MILLIS, WORDS, WORDS, VALUES), min_size=1, max_size=8)

Reading = tuple[object, ...]


def message(payload: bytes | str, *, topic: str = "a/b", content_type: str | None = None) -> Message:
    """Return a message of MQTT that came at `ARRIVED`."""
    return Message("mqtt", topic, payload if isinstance(payload, bytes) else payload.encode(), ARRIVED, content_type)


def sparkplug(kind: str, *metrics: dict[str, object], device: str | None = None, seq: int = 0, at: datetime = STAMP) -> Message:
    """Return a message of a node of Sparkplug B, or of a device below it, with metrics by their fields."""
    payload = payload_class()(timestamp=int(at.timestamp() * 1000), seq=seq)
    for fields in metrics:
        payload.metrics.add(**fields)
    topic = "/".join(["spBv1.0", "plant", kind, "gateway", *([] if device is None else [device])])
    return message(payload.SerializeToString(), topic=topic)


def rows(messages: Sequence[Message], *routes: Route, births: Sequence[Message] = ()) -> pl.DataFrame:
    """Return all rows with line and item, by place, their stamps as instants, null where they are none."""
    found = [batch.origins.select("line", "item").hstack(batch.rows) for batch in decode(messages, routes, births)]
    stamps = [[parse_stamps(frame[name], StampRules())["stamp"].alias(name) for name in ("ts", "received_at")] for frame in found]
    return pl.concat([frame.with_columns(*pair) for frame, pair in zip(found, stamps, strict=True)]).sort(
        "line", "item", maintain_order=True
    )


def said(
    payload: bytes | str, *columns: str, route: Route | None = None, topic: str = "a/b", content_type: str | None = None
) -> list[Reading]:
    """Return some columns of the readings of one message."""
    return rows([message(payload, topic=topic, content_type=content_type)], route or Route()).select(columns or COLUMNS).rows()


def broken(messages: Sequence[Message], *routes: Route, births: Sequence[Message] = ()) -> list[tuple[str, bytes, str]]:
    """Return position, payload and error code of what could not become a row."""
    found = pl.concat([batch.broken for batch in decode(messages, routes, births)])
    return found.select("position", "payload", "error_code").sort("position").rows()


def unaccounted(messages: Sequence[Message], *routes: Route) -> set[int]:
    """Return the messages that are neither in the rows nor in what is broken; what is broken must be bytes of its message."""
    batches = decode(messages, routes)
    heard: set[int] = set()
    for batch in batches:
        assert batch.rows.columns == list(COLUMNS)
        assert len(batch.rows) == len(batch.origins)
        heard |= set(batch.origins["line"])
        for position, payload in batch.broken.select("position", "payload").iter_rows():
            line = int(re.fullmatch(r"message:(\d+)(?:\[\d+\])?", position)[1])
            assert payload in messages[line].payload
            heard.add(line)
    return set(range(len(messages))) - heard


def numbers(found: pl.DataFrame) -> list[Reading]:
    """Return readings as (milliseconds, device, metric, value)."""
    millis = pl.col("ts").dt.timestamp("ms")
    return found.select(millis, "device_id", "metric", pl.col("value").cast(pl.Float64)).rows()


def frame(texts: Sequence[str]) -> pl.DataFrame:
    """Return texts as the decoders of one format take them."""
    return pl.DataFrame(
        {"line": range(len(texts)), "payload": [text.encode() for text in texts], "text": texts, "received_at": ARRIVED},
        schema={**MESSAGES_SCHEMA, "received_at": UTC_US},
    )


def as_found(decoded: Decoded) -> list[list[Reading]]:
    """Return what a decoder found, in an order of its own."""
    return [table.sort(pl.all()).rows() for table in (decoded.rows, decoded.broken)]
