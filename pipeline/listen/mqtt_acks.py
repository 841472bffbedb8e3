"""Which messages of a connection are to be acknowledged: those on disk, in the order of arrival, and none of an older connection.

MQTT asks for that order (MQTT-4.6.0-2). After a reconnect a packet id may mean another message, so acknowledgements that were due on an
older connection are dropped: the broker sends those messages again. Used by `mqtt_connection.py`.
"""

from collections import deque


class Acknowledgements:
    """The packet ids of one connection at a time; `stored` may be called by any thread, the rest by that of the network."""

    def __init__(self) -> None:
        self.connection = 0
        self._arrived: deque[int] = deque()
        self._done: set[int] = set()
        self._stored: deque[tuple[int, int]] = deque()  # appending and popping are atomic

    def reconnect(self) -> None:
        """Begin a connection: what arrived on the one before is not acknowledged any more."""
        self.connection += 1
        self._arrived.clear()
        self._done.clear()

    def arrive(self, packet_id: int) -> None:
        """Remember that a message came which will want an acknowledgement."""
        self._arrived.append(packet_id)

    def stored(self, connection: int, packet_id: int) -> None:
        """Say that a message of a connection needs no further care: it is on disk, or is not taken at all."""
        self._stored.append((connection, packet_id))

    def due(self) -> list[int]:
        """Return, once each, the packet ids to acknowledge now: done, and nothing before them is not.

        >>> acks = Acknowledgements()
        >>> acks.arrive(7), acks.arrive(8), acks.stored(0, 8)
        (None, None, None)
        >>> acks.due()
        []
        >>> acks.stored(0, 7)
        >>> acks.due()
        [7, 8]
        """
        while self._stored:
            connection, packet_id = self._stored.popleft()
            if connection == self.connection:
                self._done.add(packet_id)
        ready: list[int] = []
        while self._arrived and self._arrived[0] in self._done:
            ready.append(self._arrived.popleft())
            self._done.remove(ready[-1])
        return ready
