"""The sessions of Sparkplug B: the topics of an edge node, what begins and ends its sessions, and how it is asked to begin anew.

Used by `sparkplug.py`, by what keeps births and deaths with the messages after them, and by the MQTT source, which asks for births.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any

from pipeline.payloads.json_values import as_text
from pipeline.payloads.sparkplug_schema import payload_class

NAMESPACE = "spBv1.0"
SEQ_NUMBERS = 256
BIRTHS, DATA = ("NBIRTH", "DBIRTH"), ("NDATA", "DDATA")
NUMBERED = (*BIRTHS, *DATA, "DDEATH")  # kinds of messages that a node counts from 0 to 255; its own death it cannot count
REBIRTH = "Node Control/Rebirth"  # the one command that every node must know
BOOLEAN = 11
_CERTIFICATES = (*BIRTHS, "NDEATH", "DDEATH")


@dataclass(frozen=True)
class Topic:
    """A topic of the namespace: spBv1.0/group/type/node, and a device where the message is about one."""

    group: str
    kind: str
    node: str
    device: str | None

    @classmethod
    @lru_cache(maxsize=4096)
    def of(cls, topic: str) -> "Topic | None":
        """Split a topic; None where it is none of edge nodes and devices."""
        levels = topic.split("/")
        if levels[0] != NAMESPACE or len(levels) not in (4, 5):
            return None
        return cls(levels[1], levels[2], levels[3], levels[4] if len(levels) == 5 else None)

    @cached_property
    def device_id(self) -> str:
        """The device of its readings: names of devices are unique below their node alone."""
        return as_text("/".join(name for name in (self.group, self.node, self.device) if name is not None)) or ""


def is_birth(topic: str) -> bool:
    """Whether a topic carries births, which say what the names in later messages stand for."""
    found = Topic.of(topic)
    return found is not None and found.kind in BIRTHS


def is_certificate(topic: str) -> bool:
    """Whether a topic carries births or deaths: its newest message must be handed in with the messages that follow."""
    found = Topic.of(topic)
    return found is not None and found.kind in _CERTIFICATES


def session_number(payload: Any) -> int | None:  # noqa: ANN401 (a message that protobuf makes)
    """Return the session number (`bdSeq`) of a node's birth or death; None where it has none."""
    numbers = (metric.long_value or metric.int_value for metric in payload.metrics if metric.name == b"bdSeq" and not metric.is_null)
    return next(numbers, None)


def is_of_session(death: int | None, birth: int | None) -> bool:
    """Whether a death ends the session of a birth: their bdSeq numbers match, or one of them has none.

    The death of an older session is its MQTT will, which the broker may publish after the node is back.
    """
    return death is None or birth is None or death == birth


def rebirth_request(topic: Topic, now: datetime) -> tuple[str, bytes]:
    """Return topic and payload of the command that makes a node publish all of its births again."""
    stamp = int(now.timestamp() * 1000)
    command = payload_class()(timestamp=stamp)
    command.metrics.add(name=REBIRTH.encode(), timestamp=stamp, datatype=BOOLEAN, boolean_value=True)
    return f"{NAMESPACE}/{topic.group}/NCMD/{topic.node}", bytes(command.SerializeToString())
