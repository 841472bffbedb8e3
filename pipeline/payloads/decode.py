"""From messages to raw rows: each message is read by its route and format, and what is none becomes broken, whole.

The same code validates these rows and those of files. Called by `pipeline.listen.judge`.
"""

from collections.abc import Callable, Sequence
from typing import cast

import polars as pl

from pipeline.ingest.mapping import ColumnMapping
from pipeline.ingest.raw import RawBatch
from pipeline.ingest.timestamps import EpochUnit
from pipeline.payloads.choose import NO_ROUTE, UNKNOWN_FORMAT, UTF_8, charset_of, named_format, route_at, route_of, sniff
from pipeline.payloads.cloud_events import unwrap
from pipeline.payloads.complete import ENVELOPES_SCHEMA, as_batch, complete, together, unanswered
from pipeline.payloads.json_decoder import decode_json, decode_ndjson
from pipeline.payloads.line_protocol import decode_line_protocol
from pipeline.payloads.message import Message, arrivals
from pipeline.payloads.rows import PLACE_SCHEMA, ROWS_SCHEMA, WHOLE, Decoded, refused
from pipeline.payloads.senml import decode_senml
from pipeline.payloads.sparkplug import decode_sparkplug
from pipeline.settings import PayloadFormat, Route

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
_KINDS_SCHEMA = pl.Schema(
    {"route": pl.Int64(), "device_id": pl.String(), "metric": pl.String(), "format": pl.String(), "charset": pl.String()}
)
_BOM = "\ufeff"
_ITEMS_OF_EVENT = 10**9  # more than a message can hold: what orders the readings of the events of one batch


def decode(messages: Sequence[Message], routes: Sequence[Route], births: Sequence[Message] = ()) -> list[RawBatch]:
    """Decode messages of any formats, whatever their bytes are; nothing is dropped.

    Args:
        messages: in the order in which they came.
        routes: the first whose topic fits reads a message; one that none fits is read by usual names.
        births: for Sparkplug B, the newest message of each topic of births and deaths (`is_certificate`) before these, in order.

    Returns:
        A batch for each format that occurs. Its rows have the columns of `MAPPING`: text, except that `ts` and `received_at` may be
        instants. In its origins `line` is the index of the message, and `item` the number of the reading in it, null for an only one.
        Each message is in the rows or in `broken` of one batch, or in both.
    """
    if not messages:
        return []
    frame, envelopes = _tabulate(messages, routes)
    births_and_data = frame.filter(pl.col("format") == "sparkplug")["line"]  # of all routes: one may read what another one's births name
    sparkplug = decode_sparkplug([(line, messages[line]) for line in births_and_data], births)
    parts: dict[str | None, list[Decoded]] = {}
    for (name, number), group in frame.group_by("format", "route", maintain_order=True):
        route = route_at(cast(int | None, number), routes)
        if name == "sparkplug":
            part = _complete_sparkplug(sparkplug, group["line"], route, envelopes)
        elif name == "cloud_events":
            part = _decode_events(group, route, envelopes)
        else:
            part = _decode_text(cast(PayloadFormat | None, name), group, route, envelopes)
        parts.setdefault(cast(str | None, name), []).append(part)
    return [
        as_batch(together(found), frame.filter(pl.col("format").eq_missing(name)), is_numbered=name == "sparkplug")
        for name, found in parts.items()
    ]


def _tabulate(messages: Sequence[Message], routes: Sequence[Route]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the messages as `MESSAGES_SCHEMA` with received_at, format and route; and what their envelopes say."""
    kinds: dict[tuple[str, str | None], int] = {}
    numbers = [kinds.setdefault((message.topic, message.content_type), len(kinds)) for message in messages]
    of_kinds = pl.DataFrame([_kind(topic, content_type, routes) for topic, content_type in kinds], schema=_KINDS_SCHEMA, orient="row")
    around = of_kinds[numbers]
    payloads = [message.payload for message in messages]
    received_at = arrivals(messages)
    frame = around.select("format", "route").with_columns(
        pl.int_range(pl.len(), dtype=pl.Int64).alias("line"),
        pl.Series("payload", payloads, dtype=pl.Binary),
        _texts(payloads, around["charset"]),
        received_at,
    )
    said = around.select("device_id", "metric").with_columns(received_at, ts=pl.lit(None, pl.String), seq=pl.lit(None, pl.String))
    return frame.with_columns(pl.coalesce("format", sniff(pl.col("text")))), said.select(ENVELOPES_SCHEMA.names())


def _kind(topic: str, content_type: str | None, routes: Sequence[Route]) -> tuple[int | None, str | None, str | None, str | None, str]:
    """Return what all messages of one topic and content type share, as `_KINDS_SCHEMA`."""
    number, said = route_of(topic, routes)
    name = named_format(route_at(number, routes), content_type, topic)
    return number, said.get("device_id"), said.get("metric"), name, charset_of(content_type)


def _texts(payloads: Sequence[bytes], charsets: pl.Series) -> pl.Series:
    """Decode payloads; null where the bytes are no text of their character set."""
    is_utf8 = bool((charsets == UTF_8).all())
    try:
        if is_utf8:
            return pl.Series("text", payloads, dtype=pl.Binary).cast(pl.String).str.strip_prefix(_BOM)
    except pl.exceptions.ComputeError:  # Polars names no row, also where it is asked not to be strict: look at each
        pass
    texts = _utf8_texts(payloads) if is_utf8 else [_text(*pair) for pair in zip(payloads, charsets, strict=True)]
    return pl.Series("text", texts, dtype=pl.String).str.strip_prefix(_BOM)


def _utf8_texts(payloads: Sequence[bytes]) -> list[str | None]:
    """Decode each payload, in a loop without calls: garbage makes every payload of its range come this way."""
    texts: list[str | None] = []
    for payload in payloads:
        try:
            texts.append(payload.decode())
        except UnicodeDecodeError:
            texts.append(None)
    return texts


def _text(payload: bytes, charset: str) -> str | None:
    try:
        return payload.decode(charset)
    except (LookupError, UnicodeDecodeError):
        return None


def _decode_text(name: PayloadFormat | None, group: pl.DataFrame, route: Route, envelopes: pl.DataFrame) -> Decoded:
    """Decode and complete the messages of one format of text; None is a format that nothing names."""
    decoders: dict[PayloadFormat, tuple[Callable[[], Decoded], EpochUnit | None]] = {
        "json": (lambda: decode_json(group, route), route.epoch_unit),
        "ndjson": (lambda: decode_ndjson(group, route), route.epoch_unit),
        "senml": (lambda: decode_senml(group), "us"),
        "line_protocol": (lambda: decode_line_protocol(group, route), route.epoch_unit or "ns"),
    }
    if name not in decoders:
        unread = refused(group.with_columns(WHOLE), UNKNOWN_FORMAT)
        return complete(Decoded(ROWS_SCHEMA.to_frame(), unread), envelopes, None, is_stamped_on_arrival=False)
    read, unit = decoders[name]
    return complete(read(), envelopes, unit, is_stamped_on_arrival=route.stamp_on_arrival or name == "line_protocol")


def _complete_sparkplug(decoded: Decoded, lines: pl.Series, route: Route, envelopes: pl.DataFrame) -> Decoded:
    """Complete what came of the messages of one route, of all those of Sparkplug B, which were decoded together."""
    is_ours = pl.col("line").is_in(lines.implode())
    rows, broken = decoded.rows.filter(is_ours), decoded.broken.filter(is_ours)
    if "{device_id}" in route.topic:  # else a device is known by all its topic's levels
        rows = rows.with_columns(pl.lit(None, pl.String).alias("device_id"))
    return complete(Decoded(rows, broken), envelopes, "ms", is_stamped_on_arrival=route.stamp_on_arrival)


def _decode_events(group: pl.DataFrame, route: Route, envelopes: pl.DataFrame) -> Decoded:
    """Decode the data of events, each in its own format, and complete its readings by its envelope."""
    events, no_events = unwrap(group)
    places = events.select(PLACE_SCHEMA.names())
    around = envelopes[places["line"]].with_columns(
        pl.coalesce("device_id", events["source"]).alias("device_id"), events["time"].alias("ts"), events["seq"]
    )
    data = _tabulate_events(events, around["received_at"])
    parts = [
        _decode_text(cast(PayloadFormat | None, name), of_format, route, around)
        for (name,), of_format in data.group_by("format", maintain_order=True)
    ]
    found = together([_decode_text(None, data.clear(), route, around), *parts])
    rows, broken = (_in_messages(frame, places) for frame in (found.rows, pl.concat([found.broken, unanswered(found, data)])))
    kept = pl.col("item").fill_null(0) * _ITEMS_OF_EVENT
    return Decoded(rows, pl.concat([broken, no_events.broken.with_columns(kept)]))


def _in_messages(of_events: pl.DataFrame, places: pl.DataFrame) -> pl.DataFrame:
    """Place what came out of events, whose line is the number of the event, in their messages."""
    event = places[of_events["line"]]
    item = event["item"].fill_null(0) * _ITEMS_OF_EVENT + of_events["item"].fill_null(0)
    return of_events.with_columns(event["line"], item.alias("item"), event["payload"])


def _tabulate_events(events: pl.DataFrame, received_at: pl.Series) -> pl.DataFrame:
    """Return the data of events as messages, with received_at and format."""
    types = events["content_type"]
    kinds = {said: (named_format(NO_ROUTE, said, ""), charset_of(said)) for said in types.unique()}
    charsets = pl.Series([kinds[said][1] for said in types], dtype=pl.String)
    frame = pl.DataFrame(
        {
            "line": pl.int_range(len(events), eager=True),
            "payload": events["data"],
            "text": _texts(events["data"].to_list(), charsets),
            "received_at": received_at,
            "format": pl.Series([kinds[said][0] for said in types], dtype=pl.String),
        }
    )
    return frame.with_columns(pl.coalesce("format", sniff(pl.col("text"))))
