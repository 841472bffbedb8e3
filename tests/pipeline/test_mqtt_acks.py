"""Which messages are acknowledged: those of this connection that are stored, each once, in the order of arrival."""

from itertools import takewhile

from hypothesis import given
from hypothesis import strategies as st

from pipeline.listen.mqtt_acks import Acknowledgements

# Messages of three connections, (connection, packet id); each connection has the same packet ids, for other messages.
MESSAGES = [(connection, packet_id) for connection in range(3) for packet_id in range(4)]


@given(steps=st.lists(st.sampled_from(MESSAGES), max_size=40), reconnects=st.sets(st.integers(0, 40), max_size=2))
def test_what_is_due_is_every_stored_message_of_this_connection_that_nothing_unstored_came_before(steps, reconnects):
    """Shown to fail by not clearing in `reconnect`, by ignoring the connection in `due`, and by not waiting for what came before."""
    acks, due, stored = Acknowledgements(), [], set()
    for number in range(len(steps) + 1):
        if number in reconnects or number == 0:
            acks.reconnect()
            due.clear()
            for packet_id in range(4):
                acks.arrive(packet_id)
        if number < len(steps) and steps[number] not in stored and steps[number][0] < acks.connection:
            stored.add(steps[number])
            acks.stored(steps[number][0] + 1, steps[number][1])
        due += acks.due()
        mine = [(acks.connection - 1, packet_id) for packet_id in range(4)]
        assert due == [packet_id for _, packet_id in takewhile(lambda message: message in stored, mine)]
