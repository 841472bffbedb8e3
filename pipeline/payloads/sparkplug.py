"""Sparkplug B: protobuf payloads of SCADA gateways, whose births say once what the short names in later messages stand for.

A data message names its metrics by aliases, and may leave out their types; both are in the newest births of its edge node, until a death
ends them. Births and deaths are stored like all messages: the caller hands in the newest of each topic before a range, so what is read does
not depend on where ranges begin. Called by `decode.py`.
"""

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.payloads.json_values import as_text
from pipeline.payloads.message import Message
from pipeline.payloads.rows import Decoded, Found, Place
from pipeline.payloads.sparkplug_schema import parse_payload, payload_class
from pipeline.payloads.sparkplug_session import (
    BIRTHS,
    BOOLEAN,
    DATA,
    NAMESPACE,
    NUMBERED,
    SEQ_NUMBERS,
    Topic,
    is_certificate,
    is_of_session,
    session_number,
)

logger = logging.getLogger(__name__)

MISSING_BIRTH = "missing_birth"
_MEND = "`listen.mqtt.sparkplug_rebirth` asks the node for one; then `tidecast replay-quarantine --accept missing_birth` reads this."
_SIGNED_BITS, _UNSIGNED_BITS = {1: 8, 2: 16, 3: 32, 4: 64}, {5: 8, 6: 16, 7: 32, 8: 64}  # by datatype
_FLOAT, _DOUBLE = 9, 10
_WHOLE, _REAL = ("int_value", "long_value"), ("float_value", "double_value")
_VALUES = ("double_value", "int_value", "float_value", "long_value", "boolean_value", "string_value")  # the usual ones first
_NUMBERS = range(1, 12)  # datatypes that are readings; then come texts, dates, data sets, templates and arrays
_GOOD = 192  # of the property Quality
_OF_THE_SESSION = ("bdSeq", "Node Control/", "Device Control/")  # such metrics are no measurements


@dataclass
class _Birth:
    """What the newest birth of a node itself or of one of its devices says of its metrics.

    Attributes:
        aliases: name behind each alias.
        datatypes: data type of each metric, by name.
    """

    aliases: dict[int, str] = field(default_factory=dict)
    datatypes: dict[str, int] = field(default_factory=dict)


@dataclass
class _Node:
    """The newest births and deaths of an edge node, and the number of its last message.

    Attributes:
        births: by device; None is the node itself.
        number: number of the session that its own birth began.
        is_dead: whether its newest death, if any, is of that session.
        last_seq: from 0 to 255; None before the first.
    """

    births: dict[str | None, _Birth] = field(default_factory=dict)
    number: int | None = None
    is_dead: bool = False
    last_seq: int | None = None

    def birth_of(self, device: str | None) -> _Birth:
        """Return what is known of the metrics of a device: nothing before its birth or after a death."""
        return _Birth() if self.is_dead else self.births.get(device) or _Birth()


def decode_sparkplug(messages: Sequence[tuple[int, Message]], births: Sequence[Message] = ()) -> Decoded:
    """Decode messages of edge nodes, in their order; gaps in their sequence numbers are counted in the log.

    Args:
        messages: each with its line.
        births: the newest birth and death of each node and device before these messages, in their order.

    Returns:
        A reading for each metric that is a number or a boolean and not null, with stamps in milliseconds since 1970. Its item is the
        number of the metric in its message, whatever is read of the others.
    """
    nodes: dict[tuple[str, str], _Node] = {}
    found, num_missing = Found(), 0
    _learn_all(nodes, births)
    for line, message in messages:
        place, topic, payload = Place(line, None, message.payload), Topic.of(message.topic), parse_payload(message.payload)
        node = _Node() if topic is None else _learn(nodes, topic, payload)
        num_missing += 0 if topic is None or payload is None else _count_missing(node, topic, payload)
        if payload is None:
            found.refuse(place, "unparseable_message", "A Sparkplug B message requires a protobuf payload; got something else.")
        elif topic is None or topic.kind not in (*BIRTHS, *DATA):
            found.refuse(place, "no_reading", "A Sparkplug B reading requires a birth or data message; got one about the session.")
        else:
            _read_metrics(found, node.birth_of(topic.device), topic, place, payload)
    if num_missing:
        logger.warning("sparkplug sequence gaps num_missing=%d num_messages=%d", num_missing, len(messages))
    return found.decoded()


def needed_births(messages: Sequence[tuple[int, Message]], births: Sequence[Message], wanted: Collection[int]) -> dict[int, bytes]:
    """Return what it takes to decode some data messages without the messages before them.

    Args:
        messages: in their order, each with its line.
        births: as `decode_sparkplug` takes them.
        wanted: the lines of some messages.

    Returns:
        By line, the payload of a birth of the message's own metrics, as the newest births before it describe them; a message that needs
        none, or whose births are missing, is left out.
    """
    nodes: dict[tuple[str, str], _Node] = {}
    needed: dict[int, bytes] = {}
    _learn_all(nodes, births)
    for line, message in messages:
        topic = Topic.of(message.topic)
        if topic is None:
            continue
        _learn_all(nodes, [message] if is_certificate(message.topic) else [])
        node = nodes.get((topic.group, topic.node)) if line in wanted and topic.kind in DATA else None
        birth = None if node is None else _birth_for(node.birth_of(topic.device), parse_payload(message.payload))
        if birth:
            needed[line] = birth
    return needed


def births_for_it_alone(message: Message, birth: bytes | None) -> list[Message]:
    """Return the births to put before a quarantined data message so that it decodes exactly as it did when it arrived.

    Args:
        message: the data message.
        birth: what `needed_births` returned for it; None where it needs none.
    """
    topic = Topic.of(message.topic)
    if topic is None or topic.kind not in DATA:
        return []
    node = replace(message, topic=f"{NAMESPACE}/{topic.group}/NBIRTH/{topic.node}", payload=b"", content_type=None)
    if topic.device is None:
        return [replace(node, payload=birth or b"")]
    return [node, replace(node, topic=f"{NAMESPACE}/{topic.group}/DBIRTH/{topic.node}/{topic.device}", payload=birth or b"")]


def _birth_for(known: _Birth, payload: Any) -> bytes:  # noqa: ANN401 (a message that protobuf makes)
    """Return a birth that describes the metrics of a payload, as far as the payload does not itself."""
    birth = payload_class()()
    for metric in [] if payload is None else payload.metrics:
        name = _name_of(known, metric)
        datatype = known.datatypes.get(name, 0) if name is not None else 0
        if name is not None and (not metric.name or (datatype and not metric.datatype)):
            described = birth.metrics.add(name=name.encode(), datatype=datatype, is_null=True)
            if metric.HasField("alias"):
                described.alias = metric.alias
    return bytes(birth.SerializeToString())


def _learn_all(nodes: dict[tuple[str, str], _Node], certificates: Sequence[Message]) -> None:
    for certificate in certificates:
        topic = Topic.of(certificate.topic)
        if topic is not None:
            _learn(nodes, topic, parse_payload(certificate.payload))


def _learn(nodes: dict[tuple[str, str], _Node], topic: Topic, payload: Any) -> _Node:  # noqa: ANN401
    """Take in a birth or a death, the newest of its topic, whatever is in it; return what is known of the node."""
    key = (topic.group, topic.node)
    said = payload_class()() if payload is None else payload
    if topic.kind == "NBIRTH" or key not in nodes:
        nodes[key] = _Node(number=session_number(said) if topic.kind == "NBIRTH" else None)
    node = nodes[key]
    if topic.kind in BIRTHS:
        node.births[topic.device] = _born(said)
    elif topic.kind == "NDEATH":
        node.is_dead = is_of_session(session_number(said), node.number)
    elif topic.kind == "DDEATH":
        node.births.pop(topic.device, None)
    return node


def _born(payload: Any) -> _Birth:  # noqa: ANN401
    birth = _Birth()
    for metric in payload.metrics:
        name = _name(metric)
        birth.datatypes[name] = metric.datatype
        if metric.HasField("alias"):
            birth.aliases[metric.alias] = name
    return birth


def _count_missing(node: _Node, topic: Topic, payload: Any) -> int:  # noqa: ANN401
    """Return how many messages of a node are missing before this one; its birth restarts the count."""
    if topic.kind not in NUMBERED or not payload.HasField("seq"):
        return 0
    seq = payload.seq % SEQ_NUMBERS
    is_first = node.last_seq is None or topic.kind == "NBIRTH"
    num_missing = 0 if is_first else (seq - (node.last_seq or 0) - 1) % SEQ_NUMBERS
    node.last_seq = seq
    return num_missing


def _read_metrics(found: Found, birth: _Birth, topic: Topic, place: Place, payload: Any) -> None:  # noqa: ANN401
    for item, metric in enumerate(payload.metrics):
        here = Place(place.line, item, place.payload) if len(payload.metrics) > 1 else place
        name = _name_of(birth, metric)
        if name is None:
            lack = f"Alias {metric.alias} requires the birth that names it; got none from {topic.device_id}. {_MEND}"
            found.refuse(here, MISSING_BIRTH, lack)
            continue
        if metric.is_null or name.startswith(_OF_THE_SESSION):
            continue
        datatype = metric.datatype or birth.datatypes.get(name, 0)
        sent = _sent(metric)
        if not datatype and sent in _WHOLE:  # -1 is sent as a great positive number
            lack = f"{name[:80]} requires a datatype, its own or from a birth; got none from {topic.device_id}. {_MEND}"
            found.refuse(here, MISSING_BIRTH, lack)
            continue
        said_at = metric if metric.HasField("timestamp") else payload
        ts = str(said_at.timestamp) if said_at.HasField("timestamp") else None
        value = _value(metric, sent, datatype)
        if value is not None:
            found.add(here, ts=ts, device_id=topic.device_id, metric=name, value=value, quality=_quality(metric))
        elif sent is not None and datatype in _NUMBERS:
            found.refuse(here, "unparseable_message", f"{name[:80]} requires a value of its datatype, {datatype}; got one in {sent}.")


def _sent(metric: Any) -> str | None:  # noqa: ANN401
    """Return the field that holds the value; None where there is none that we know."""
    for name in _VALUES:
        if metric.HasField(name):
            return name
    return None


def _value(metric: Any, sent: str | None, datatype: int) -> str | None:  # noqa: ANN401
    """Return a number as text, a boolean as 1 or 0; None for texts, dates, data sets, what is not there and what is of another type."""
    bits = _SIGNED_BITS.get(datatype) or _UNSIGNED_BITS.get(datatype)
    if sent in _WHOLE and bits is not None:
        kept = getattr(metric, sent) % 2**bits
        return str(kept - 2**bits if datatype in _SIGNED_BITS and kept >= 2 ** (bits - 1) else kept)
    if sent in _REAL and datatype in (_FLOAT, _DOUBLE, 0):
        value = repr(getattr(metric, sent))
        return as_text(float(value)) if "e" in value else value.removesuffix(".0")
    if sent == "boolean_value" and datatype in (BOOLEAN, 0):
        return "1" if metric.boolean_value else "0"
    return None


def _quality(metric: Any) -> str | None:  # noqa: ANN401
    """Return our code of the property Quality: 0 is good, and a bad one is never 0; None where it has none."""
    for key, value in _properties(metric) if metric.HasField("properties") else ():
        if key == b"Quality":
            return "0" if value.int_value == _GOOD else str(value.int_value or -1)
    return None


def _properties(metric: Any) -> Iterator[tuple[bytes, Any]]:  # noqa: ANN401
    return zip(metric.properties.keys, metric.properties.values, strict=False)


def _name_of(birth: _Birth, metric: Any) -> str | None:  # noqa: ANN401
    """Return the name of a metric; None where its birth would say it."""
    return birth.aliases.get(metric.alias) if metric.HasField("alias") and not metric.name else _name(metric)


def _name(metric: Any) -> str:  # noqa: ANN401
    return str(metric.name.decode(errors="replace"))
