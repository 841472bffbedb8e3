"""Sparkplug B: protobuf payloads of SCADA gateways, whose births say once what the short names in later messages stand for.

A data message names its metrics by aliases, and may leave out their types; both are in the newest births of its edge node. Births are
messages like all others, so nothing else is kept of them: who decodes a range of messages also hands in the births before it, and
decoding the same range again gives the same readings. Called by `decode.py`.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.payloads.json_values import as_text
from pipeline.payloads.message import Message
from pipeline.payloads.rows import Decoded, Found, Place
from pipeline.payloads.sparkplug_schema import payload_class

logger = logging.getLogger(__name__)

NAMESPACE = "spBv1.0"
SEQ_NUMBERS = 256
_BIRTHS, _READINGS = ("NBIRTH", "DBIRTH"), ("NBIRTH", "DBIRTH", "NDATA", "DDATA")
_SIGNED_BITS, _UNSIGNED_BITS = {1: 8, 2: 16, 3: 32, 4: 64}, {5: 8, 6: 16, 7: 32, 8: 64}  # by datatype
_FLOAT, _DOUBLE, _BOOLEAN = 9, 10, 11
_GOOD = 192  # of the property Quality
_OF_THE_SESSION = ("bdSeq", "Node Control/", "Device Control/")  # such metrics are no measurements


@dataclass(frozen=True)
class Topic:
    """A topic of the namespace: spBv1.0/group/type/node, and a device where the message is about one."""

    group: str
    kind: str
    node: str
    device: str | None

    @classmethod
    def of(cls, topic: str) -> "Topic | None":
        """Split a topic; None where it is none of edge nodes and devices."""
        levels = topic.split("/")
        if levels[0] != NAMESPACE or len(levels) not in (4, 5):
            return None
        return cls(levels[1], levels[2], levels[3], levels[4] if len(levels) == 5 else None)

    @property
    def device_id(self) -> str:
        """The device of its readings: names of devices are unique below their node alone."""
        return "/".join(name for name in (self.group, self.node, self.device) if name is not None)


@dataclass
class _Node:
    """What the births of an edge node say, and the number of its last message.

    Attributes:
        aliases: name behind each alias; an alias is unique on its node, devices included.
        datatypes: of a metric, by device (None: the node itself) and name.
        last_seq: from 0 to 255; None before the first.
    """

    aliases: dict[int, str] = field(default_factory=dict)
    datatypes: dict[tuple[str | None, str], int] = field(default_factory=dict)
    last_seq: int | None = None


def is_birth(topic: str) -> bool:
    """Whether a topic carries births: its newest message must be handed in with the messages that follow."""
    found = Topic.of(topic)
    return found is not None and found.kind in _BIRTHS


def decode_sparkplug(messages: Sequence[tuple[int, Message]], births: Sequence[Message] = ()) -> Decoded:
    """Decode messages of edge nodes, in their order; gaps in their sequence numbers are counted in the log.

    Args:
        messages: each with its line.
        births: the newest births of each node and device before these messages, in their order.

    Returns:
        A reading for each metric that is a number or a boolean and not null, with stamps in milliseconds since 1970.
    """
    nodes: dict[tuple[str, str], _Node] = {}
    found, num_missing = Found(), 0
    for birth in births:
        topic, payload = Topic.of(birth.topic), _parse(birth.payload)
        if topic is not None and payload is not None:
            _learn(nodes, topic, payload)
    for line, message in messages:
        place, topic = Place(line, None, message.payload), Topic.of(message.topic)
        payload = _parse(message.payload)
        if payload is None:
            found.refuse(place, "unparseable_message", "A Sparkplug B message requires a protobuf payload; got something else.")
        elif topic is None or topic.kind not in _READINGS:
            found.refuse(place, "no_reading", "A Sparkplug B reading requires a birth or data message; got one about the session.")
        else:
            node = _learn(nodes, topic, payload)
            num_missing += _count_missing(node, topic, payload)
            _read_metrics(found, node, topic, place, payload)
    if num_missing:
        logger.warning("sparkplug sequence gaps num_missing=%d num_messages=%d", num_missing, len(messages))
    return found.decoded()


def _parse(payload: bytes) -> Any:  # noqa: ANN401 (a message that protobuf makes)
    """Return the payload; None where the bytes are none."""
    from google.protobuf.message import DecodeError

    try:
        return payload_class().FromString(payload)
    except DecodeError:
        return None


def _learn(nodes: dict[tuple[str, str], _Node], topic: Topic, payload: Any) -> _Node:  # noqa: ANN401
    """Take in a birth; that of a node ends all its earlier ones. Return what is known of the node."""
    key = (topic.group, topic.node)
    if topic.kind == "NBIRTH" or key not in nodes:
        nodes[key] = _Node()
    node = nodes[key]
    if topic.kind in _BIRTHS:
        for metric in payload.metrics:
            name = _name(metric)
            node.datatypes[topic.device, name] = metric.datatype
            if metric.HasField("alias"):
                node.aliases[metric.alias] = name
    return node


def _count_missing(node: _Node, topic: Topic, payload: Any) -> int:  # noqa: ANN401
    """Return how many messages of a node are missing before this one; it starts anew with its birth."""
    if not payload.HasField("seq"):
        return 0
    seq = payload.seq % SEQ_NUMBERS
    is_first = node.last_seq is None or topic.kind == "NBIRTH"
    num_missing = 0 if is_first else (seq - (node.last_seq or 0) - 1) % SEQ_NUMBERS
    node.last_seq = seq
    return num_missing


def _read_metrics(found: Found, node: _Node, topic: Topic, place: Place, payload: Any) -> None:  # noqa: ANN401
    for item, metric in enumerate(payload.metrics):
        here = Place(place.line, item, place.payload)
        name = node.aliases.get(metric.alias) if metric.HasField("alias") and not metric.name else _name(metric)
        if name is None:
            found.refuse(here, "missing_birth", f"Alias {metric.alias} requires the birth that names it; got none from {topic.device_id}.")
            continue
        if metric.is_null or name.startswith(_OF_THE_SESSION):
            continue
        datatype = metric.datatype or node.datatypes.get((topic.device, name), 0)
        if not datatype and not _is_plain(metric):
            found.refuse(
                here, "missing_birth", f"{name[:80]} requires a datatype, its own or from a birth; got none from {topic.device_id}."
            )
            continue
        said_at = metric if metric.HasField("timestamp") else payload
        ts = str(said_at.timestamp) if said_at.HasField("timestamp") else None
        value = _value(metric, datatype)
        if value is not None:
            found.add(here, ts=ts, device_id=as_text(topic.device_id), metric=name, value=value, quality=_quality(metric))


def _is_plain(metric: Any) -> bool:  # noqa: ANN401
    """Whether a value says its type by itself; whole numbers do not, because negative ones are sent as great positive ones."""
    return not (metric.HasField("int_value") or metric.HasField("long_value"))


def _value(metric: Any, datatype: int) -> str | None:  # noqa: ANN401
    """Return a number as text, a boolean as 1 or 0; None for texts, dates, data sets and what is not there."""
    whole = metric.int_value if metric.HasField("int_value") else metric.long_value if metric.HasField("long_value") else None
    bits = _SIGNED_BITS.get(datatype) or _UNSIGNED_BITS.get(datatype)
    if bits is not None and whole is not None:
        kept = whole % 2**bits
        return str(kept - 2**bits if datatype in _SIGNED_BITS and kept >= 2 ** (bits - 1) else kept)
    if metric.HasField("float_value") and datatype in (_FLOAT, 0):
        return as_text(metric.float_value)
    if metric.HasField("double_value") and datatype in (_DOUBLE, 0):
        return as_text(metric.double_value)
    if metric.HasField("boolean_value") and datatype in (_BOOLEAN, 0):
        return "1" if metric.boolean_value else "0"
    return None


def _quality(metric: Any) -> str | None:  # noqa: ANN401
    """Return our code of the property Quality: 0 is good, and a bad one is never 0; None where it has none."""
    for key, value in _properties(metric):
        if key == b"Quality":
            return "0" if value.int_value == _GOOD else str(value.int_value or -1)
    return None


def _properties(metric: Any) -> Iterator[tuple[bytes, Any]]:  # noqa: ANN401
    return zip(metric.properties.keys, metric.properties.values, strict=False)


def _name(metric: Any) -> str:  # noqa: ANN401
    return str(metric.name.decode(errors="replace"))
