"""From messages to raw rows: flat JSON objects, and arrays of them."""

import json
from collections.abc import Sequence

import polars as pl

from pipeline.ingest.mapping import ColumnMapping
from pipeline.ingest.raw import ORIGIN_SCHEMA, RawBatch, broken_rows
from pipeline.payloads.message import Message
from pipeline.schemas import UTC_US
from pipeline.settings import Route

SOURCE = "message"
_TEXTS = ("ts", "device_id", "metric", "value", "unit", "quality", "seq")
MAPPING = ColumnMapping(
    ts=("ts",),
    value=("value",),
    device_id="device_id",
    metric="metric",
    unit="unit",
    quality="quality",
    received_at="received_at",
    seq="seq",
    layout="long",
)


def decode(messages: Sequence[Message], routes: Sequence[Route]) -> list[RawBatch]:  # noqa: ARG001 (the contract)
    """Return one batch of rows; what is no flat object is broken."""
    rows: list[tuple[object, ...]] = []
    origins: list[tuple[int, int | None, bytes]] = []
    refused: list[tuple[int, int | None, bytes]] = []
    for line, message in enumerate(messages):
        try:
            parsed = json.loads(message.payload)
        except (ValueError, RecursionError):
            parsed = None
        items = list(enumerate(parsed)) if isinstance(parsed, list) else [(None, parsed)]
        for item, found in items:
            origin = (line, item, message.payload if item is None else json.dumps(found).encode())
            if isinstance(found, dict):
                texts = ((name, found.get(name)) for name in _TEXTS)
                rows.append((*(None if value is None else str(value) for _, value in texts), message.received_at))
                origins.append(origin)
            else:
                refused.append(origin)
    schema = {**dict.fromkeys(_TEXTS, pl.String), "received_at": UTC_US}
    broken = broken_rows(SOURCE, pl.DataFrame(refused, schema=ORIGIN_SCHEMA, orient="row"), "unparseable_message", "Not JSON.")
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return [RawBatch(SOURCE, frame, pl.DataFrame(origins, schema=ORIGIN_SCHEMA, orient="row"), broken)]
