"""Which edge nodes of Sparkplug B must be asked for their births: those whose data come on a connection that has not brought them.

A birth is published once, with QoS 0 and not retained. A listener that connects while a node is up has not seen it, and may hold an
outdated one. Therefore, as for every host application (specification 3.0, chapter 5), only births of this connection count, and a gap in
a node's sequence numbers may hide one. The specification lets a host wait for a missing message; here none comes later, because a
connection keeps the order of a publisher. Used by `mqtt.py`, on the thread of the connection.
"""

from dataclasses import dataclass

from pipeline.payloads.sparkplug_schema import parse_payload
from pipeline.payloads.sparkplug_session import DATA, NUMBERED, SEQ_NUMBERS, Topic, is_of_session, session_number

PAUSE_S = 60.0  # between two requests to one node


@dataclass
class _Session:
    """What this connection has brought of a node since its birth.

    Attributes:
        number: the session's own, which its death will repeat.
        last_seq: from 0 to 255; None where the node does not count.
        devices: the devices born in it; None is the node itself.
    """

    number: int | None
    last_seq: int | None
    devices: set[str | None]

    def skips(self, seq: int) -> bool:
        """Take the number of the next message; return whether some before it are missing. A repeated or late message is no gap."""
        ahead = 0 if self.last_seq is None else (seq - self.last_seq - 1) % SEQ_NUMBERS
        self.last_seq = seq if ahead < SEQ_NUMBERS // 2 else self.last_seq
        return 0 < ahead < SEQ_NUMBERS // 2


class Rebirths:
    """Follows the sessions of edge nodes over one connection at a time."""

    def __init__(self) -> None:
        self._connection = 0
        self._sessions: dict[tuple[str, str], _Session] = {}
        self._asked_at_s: dict[tuple[str, str], float] = {}  # of the last minute, the oldest first

    def wanted(self, topic: str, payload: bytes, *, connection: int, at_s: float) -> Topic | None:
        """Take in a message; return its topic where its node must be asked for a rebirth now.

        Args:
            topic: of any message.
            payload: its bytes.
            connection: the number of the connection that brought it.
            at_s: when, on a monotonic clock, in seconds; no node is asked twice within a minute.
        """
        if connection != self._connection:
            self._connection = connection
            self._sessions.clear()
        found = Topic.of(topic)
        if found is None or not self._lacks_birth(found, payload):
            return None
        while self._asked_at_s and at_s - next(iter(self._asked_at_s.values())) >= PAUSE_S:
            del self._asked_at_s[next(iter(self._asked_at_s))]
        node = found.group, found.node
        if node in self._asked_at_s:
            return None
        self._asked_at_s[node] = at_s
        return found

    def _lacks_birth(self, topic: Topic, payload: bytes) -> bool:
        """Whether a message shows that a birth is missing, its own session's or one that a gap may have held."""
        said = parse_payload(payload) if topic.kind in (*NUMBERED, "NDEATH") else None
        if said is None:
            return False
        node = topic.group, topic.node
        if topic.kind == "NBIRTH":
            self._sessions[node] = _Session(session_number(said), said.seq % SEQ_NUMBERS if said.HasField("seq") else None, {None})
            return False
        session = self._sessions.get(node)
        if topic.kind == "NDEATH":
            if session is not None and is_of_session(session_number(said), session.number):
                del self._sessions[node]
            return False
        if session is None:
            return True
        if said.HasField("seq") and session.skips(said.seq % SEQ_NUMBERS):
            del self._sessions[node]  # until it is born again, each of its messages says so
            return True
        if topic.kind == "DBIRTH":
            session.devices.add(topic.device)
        elif topic.kind == "DDEATH":
            session.devices.discard(topic.device)
        return topic.kind in DATA and topic.device not in session.devices
