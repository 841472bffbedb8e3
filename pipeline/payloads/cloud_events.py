"""CloudEvents in JSON, one event or a batch: an envelope, whose data another decoder reads.

An event in binary mode, whose envelope is in the headers of its message, is written as one in structured mode when it comes: so the
inbox and quarantine hold it whole. Called by `decode.py`, and by the listeners of HTTP and MQTT.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from pipeline.payloads.json_values import NOT_JSON, JsonValue, NotJsonError, as_text, dump, parse_items
from pipeline.payloads.rows import Decoded, Found, Place

REQUIRED = ("specversion", "id", "source", "type")
_TEXTS = (*REQUIRED, "time", "datacontenttype", "data_base64")
_MEDIA_TYPE = "application/cloudevents"  # what those of structured mode begin with
_NO_ATTRIBUTES = ("data", "data_base64", "datacontenttype")  # in binary mode these are the payload and its content type


@dataclass(frozen=True)
class Event:
    """One event, out of its envelope.

    Attributes:
        place: where it is.
        data: the bytes of its data.
        content_type: the format of the data.
        time: when it happened, as it was written; None where it does not say.
        source: who sent it.
        seq: its id, where that is a whole number.
    """

    place: Place
    data: bytes
    content_type: str
    time: str | None
    source: str
    seq: str | None


def structured(attributes: Mapping[str, str], content_type: str | None, payload: bytes) -> tuple[str | None, bytes]:
    """Return content type and payload of a message: of an event in binary mode those of the same event in structured mode.

    Args:
        attributes: what its headers say by the names of CloudEvents; without `specversion` it is no event in binary mode.
        content_type: of the payload.
        payload: the data of the event.
    """
    if "specversion" not in attributes or (content_type or "").strip().lower().startswith(_MEDIA_TYPE):
        return content_type, payload
    event = {name: attributes[name] for name in sorted(attributes) if name not in _NO_ATTRIBUTES}
    event |= {} if content_type is None else {"datacontenttype": content_type}
    return f"{_MEDIA_TYPE}+json", json.dumps({**event, "data_base64": base64.b64encode(payload).decode()}).encode()


def unwrap(messages: pl.DataFrame) -> tuple[list[Event], Decoded]:
    """Take events out of messages.

    Args:
        messages: as `MESSAGES_SCHEMA`.

    Returns:
        The events in order, and what was none.
    """
    events: list[Event] = []
    refused = Found()
    for line, payload, text in messages.select("line", "payload", "text").iter_rows():
        try:
            items = parse_items(line, text, payload)
        except NotJsonError:
            refused.refuse(Place(line, None, payload), *NOT_JSON)
            continue
        for place, value in items:
            event = _event(place, value)
            if isinstance(event, str):
                refused.refuse(place, "unparseable_message", event)
            else:
                events.append(event)
    return events, refused.decoded()


def _event(place: Place, value: JsonValue) -> Event | str:
    """Read one envelope; a sentence where it is none."""
    if not isinstance(value, dict) or any(not value.get(name) for name in REQUIRED):
        return f"A CloudEvent requires an object with {', '.join(REQUIRED)}; got one without."
    texts = {name: value.get(name) for name in _TEXTS}
    if any(not isinstance(text, str | None) for text in texts.values()):
        return f"A CloudEvent requires text in {', '.join(_TEXTS)}; got something else."
    if not str(texts["specversion"]).startswith("1."):
        return f"A CloudEvent requires specversion 1.x; got {as_text(str(texts['specversion'])[:40])!r}."
    content_type = str(texts["datacontenttype"] or "application/json")
    data = _data(value, is_text=not _is_json(content_type))
    if data is None:
        return "A CloudEvent requires data, or data_base64 in base64; got neither."
    time, source, number = (as_text(value.get(name)) for name in ("time", "source", "id"))
    is_number = number is not None and number.isascii() and number.isdecimal() and len(number) <= 18  # fits Int64
    return Event(place, data, content_type, time, source or "", number if is_number else None)


def _data(value: dict[str, JsonValue], *, is_text: bool) -> bytes | None:
    """Return the bytes of an event's data; None where it has none."""
    encoded, data = value.get("data_base64"), value.get("data")
    if isinstance(encoded, str):
        try:
            return base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            return None
    if data is None:
        return None
    if is_text and isinstance(data, str):
        return data.encode(errors="replace")
    return dump(data).encode()


def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type.endswith(("/json", "+json"))
