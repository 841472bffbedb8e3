"""CloudEvents in JSON, one event or a batch: an envelope, whose data another decoder reads.

An event in binary mode has its envelope in the headers of its message. It is rewritten in structured mode when it comes, so that the
inbox and quarantine hold it whole. Called by `decode.py`, and by the listeners of HTTP and MQTT.
"""

import base64
import binascii
import json
from collections.abc import Mapping

import polars as pl

from pipeline.payloads.json_values import NOT_JSON, JsonValue, NotJsonError, as_text, dump, parse_items
from pipeline.payloads.plain_json import SCALAR, TEXT
from pipeline.payloads.rows import PLACE_SCHEMA, WHOLE, Decoded, Found, Place

REQUIRED = ("specversion", "id", "source", "type")
_TEXTS = (*REQUIRED, "time", "datacontenttype", "data_base64")
_MEDIA_TYPE = "application/cloudevents"  # what those of structured mode begin with
_JSON = "application/json"  # the type of data that say none
# data: its bytes; content_type: of the data; time: when it happened, as it was written; source: who sent it; seq: its id, where that is
# a whole number
EVENTS_SCHEMA = pl.Schema(
    {**PLACE_SCHEMA, "data": pl.Binary(), **dict.fromkeys(("content_type", "time", "source", "seq"), pl.String())},
)
_Event = tuple[int, int | None, bytes, bytes, str, str | None, str, str | None]  # a row of it

# A plain event: on one line, no escapes, all members texts but the last, its data: an object of scalars and objects of scalars.
_BLANK = r"[ \t]*"
_COLON, _COMMA = rf"{_BLANK}:{_BLANK}", rf"{_BLANK},{_BLANK}"
_FLAT = rf"\{{{_BLANK}(?:{TEXT}{_COLON}{SCALAR}(?:{_COMMA}{TEXT}{_COLON}{SCALAR})*)?{_BLANK}\}}"
_MEMBER = rf"{TEXT}{_COLON}(?:{SCALAR}|{_FLAT})"
_DATA = rf"\{{{_BLANK}(?:{_MEMBER}(?:{_COMMA}{_MEMBER})*)?{_BLANK}\}}"
_PAIR = rf"{TEXT}{_COLON}{TEXT}"
_BEFORE_DATA = '"data":'  # in no text: they hold no quotes
_PLAIN = rf"^{_BLANK}\{{{_BLANK}(?:{_PAIR}{_COMMA})+{_BEFORE_DATA}{_BLANK}{_DATA}{_BLANK}\}}{_BLANK}$"
_ENVELOPE_DTYPE = pl.Struct(dict.fromkeys(_TEXTS, pl.String))
_KNOWN = rf'"(?:data|{"|".join(_TEXTS)})"{_BLANK}:'
_NO_ATTRIBUTES = ("data", "data_base64", "datacontenttype")  # in binary mode these are the payload and its content type


def structured(attributes: Mapping[str, str], content_type: str | None, payload: bytes) -> tuple[str | None, bytes]:
    """Rewrite an event in binary mode in structured mode; return content type and payload, those of any other message unchanged.

    Args:
        attributes: the headers that CloudEvents names; without `specversion` it is no event in binary mode.
        content_type: that of the payload.
        payload: the data of the event.
    """
    if "specversion" not in attributes or (content_type or "").strip().lower().startswith(_MEDIA_TYPE):
        return content_type, payload
    event = {name: attributes[name] for name in sorted(attributes) if name not in _NO_ATTRIBUTES}
    event |= {} if content_type is None else {"datacontenttype": content_type}
    return f"{_MEDIA_TYPE}+json", json.dumps({**event, "data_base64": base64.b64encode(payload).decode()}).encode()


def unwrap(messages: pl.DataFrame, *, in_bulk: bool = True) -> tuple[pl.DataFrame, Decoded]:
    """Take events out of messages.

    Args:
        messages: as `MESSAGES_SCHEMA`.
        in_bulk: whether plain events may be read together; the result is the same.

    Returns:
        The events, as `EVENTS_SCHEMA`, and what was no event.
    """
    events: list[_Event] = []
    refused = Found()
    bulk = EVENTS_SCHEMA.to_frame()
    if in_bulk:
        bulk, messages = _read_plain(messages)
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
    return pl.concat([bulk, pl.DataFrame(events, schema=EVENTS_SCHEMA, orient="row")]), refused.decoded()


def _read_plain(messages: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Read the messages that are one plain event each; return the events, as `EVENTS_SCHEMA`, and the other messages."""
    parts = pl.col("text").str.splitn(_BEFORE_DATA, 2).struct.rename_fields(["head", "data"]).alias("parts")
    plain = messages.filter(pl.col("text").str.contains(_PLAIN)).select("line", "payload", parts).unnest("parts")
    plain = plain.with_columns(
        pl.concat_str("head", pl.lit(_BEFORE_DATA + '""}')).alias("envelope"), pl.col("data").str.strip_chars_end(" \t").str.head(-1)
    )
    num_known = pl.col("envelope").str.count_matches(_KNOWN).alias("num_known")
    plain = plain.with_columns(num_known, pl.col("envelope").str.json_decode(_ENVELOPE_DTYPE).alias("said")).unnest("said")
    num_said = pl.sum_horizontal(pl.col(name).is_not_null().cast(pl.UInt32) for name in _TEXTS)
    is_once = num_said + 1 == pl.col("num_known")  # with data; a member that comes twice counts once
    is_once &= pl.col("data").str.contains(rf"^{_BLANK}\{{")  # else the first of several data was a text
    is_event = pl.all_horizontal(pl.col(REQUIRED).fill_null("") != "") & pl.col("specversion").str.starts_with("1.")
    events = plain.filter(is_once & is_event & pl.col("data_base64").is_null()).select(
        "line",
        WHOLE,
        "payload",
        pl.col("data").cast(pl.Binary),
        pl.col("datacontenttype").replace("", None).fill_null(_JSON).alias("content_type"),
        "time",
        "source",
        pl.col("id").str.extract(r"^([0-9]{1,18})$").alias("seq"),
    )
    return events, messages.join(events, on="line", how="anti", maintain_order="left")


def _event(place: Place, value: JsonValue) -> _Event | str:
    """Read one envelope; a sentence where it is none."""
    if not isinstance(value, dict) or any(not value.get(name) for name in REQUIRED):
        return f"A CloudEvent requires an object with {', '.join(REQUIRED)}; got one without."
    texts = {name: value.get(name) for name in _TEXTS}
    if any(not isinstance(text, str | None) for text in texts.values()):
        return f"A CloudEvent requires text in {', '.join(_TEXTS)}; got something else."
    if not str(texts["specversion"]).startswith("1."):
        return f"A CloudEvent requires specversion 1.x; got {as_text(str(texts['specversion'])[:40])!r}."
    content_type = str(texts["datacontenttype"] or _JSON)
    data = _data(value, is_text=not _is_json(content_type))
    if data is None:
        return "A CloudEvent requires data, or data_base64 in base64; got neither."
    time, source, number = (as_text(value.get(name)) for name in ("time", "source", "id"))
    is_number = number is not None and number.isascii() and number.isdecimal() and len(number) <= 18  # fits Int64
    return (place.line, place.item, place.payload, data, content_type, time, source or "", number if is_number else None)


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
