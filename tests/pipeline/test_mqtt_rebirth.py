"""Rebirths of Sparkplug B: a node whose births are missing is asked for them, when somebody wants that, and no more often than it helps."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from pipeline.clock import ReplayClock
from pipeline.errors import SettingsError
from pipeline.listen.drain import drain
from pipeline.listen.mqtt_rebirth import PAUSE_S, Rebirths
from pipeline.listen.replay import replay_quarantine
from pipeline.payloads.message import Message
from pipeline.payloads.sparkplug_schema import parse_payload
from pipeline.schemas import Quarantine, Readings
from pipeline.settings import load_settings
from pipeline.store.lake import Lake
from tests.brokers import NOON, Mosquitto, inbox_of, listening, running
from tests.messages import message, sparkplug
from tests.waiting import until

DOUBLE = 10
DATA = {"alias": 1, "double_value": 1.5}


def numbered(kind: str, seq: int = 0, *, session: int = 1, device: str | None = None) -> Message:
    """Return a message of the node with its sequence number, and the number of its session where it is the node's birth or death."""
    return sparkplug(kind, *([{"name": b"bdSeq", "long_value": session}] if kind in ("NBIRTH", "NDEATH") else []), device=device, seq=seq)


def asked(messages: Sequence[Message], *, apart_s: float = PAUSE_S, connections: Sequence[int] | None = None) -> list[bool]:
    """Return after which messages, so far apart, a rebirth is asked for."""
    rebirths = Rebirths()
    return [
        rebirths.wanted(each.topic, each.payload, connection=(connections or [1] * len(messages))[at], at_s=at * apart_s) is not None
        for at, each in enumerate(messages)
    ]


class EdgeNode:
    """A node that was born before anybody listened, and answers commands as the specification wants."""

    def __init__(self, port: int) -> None:
        self.commands: list[MQTTMessage] = []
        self._seq = self._num_sent = 0
        self._is_ready = False
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._on_command
        self._client.on_subscribe = lambda *_: setattr(self, "_is_ready", True)
        self._client.connect("localhost", port)
        self._client.loop_start()
        self._client.subscribe("spBv1.0/plant/NCMD/gateway", qos=1)
        until(lambda: self._is_ready)

    def send(self) -> None:
        """Publish its metric by its alias alone."""
        self._seq += 1
        self._num_sent += 1
        self._publish(sparkplug("NDATA", DATA, seq=self._seq, at=NOON + self._num_sent * timedelta(seconds=1)))

    def leave(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def _on_command(self, _client: Client, _data: object, command: MQTTMessage) -> None:
        self.commands.append(command)
        (metric,) = parse_payload(command.payload).metrics
        if metric.name == b"Node Control/Rebirth" and metric.boolean_value:
            self._seq = 0
            self._publish(sparkplug("NBIRTH", {"name": b"power", "alias": 1, "datatype": DOUBLE, "double_value": 1.0}, at=NOON))

    def _publish(self, said: Message) -> None:
        self._client.publish(said.topic, said.payload, qos=0)


@contextmanager
def connected(broker: Mosquitto) -> Iterator[EdgeNode]:
    """Run an edge node for the length of a block."""
    node = EdgeNode(broker.port)
    try:
        yield node
    finally:
        node.leave()


@pytest.fixture
def broker(tmp_path) -> Iterator[Mosquitto]:
    with running(Mosquitto(tmp_path / "broker")) as started:
        yield started


def test_a_node_that_was_up_before_the_listener_is_asked_and_read_from_its_birth_on(broker, tmp_path, caplog):
    """Shown to fail without the request, by a metric of another name, and by taking what was asked as a message of the node."""
    settings = broker.settings(tmp_path / "lake", sparkplug_rebirth=True)
    with connected(broker) as node, listening(settings, caplog):
        node.send()
        until(lambda: "NBIRTH" in str([each.topic for each in inbox_of(settings)]))
        node.send()
        until(lambda: len(inbox_of(settings)) == 3)
    assert [each.topic.split("/")[2] for each in inbox_of(settings)] == ["NDATA", "NBIRTH", "NDATA"]
    report = drain(settings, ReplayClock(NOON))
    assert (report.accepted, report.reasons) == (2, {"missing_birth": 1})
    assert replay_quarantine(settings, ReplayClock(NOON), accept=("missing_birth",)).accepted == 1
    assert Lake(settings.lake).scan(Readings).collect()["series_id"].to_list() == ["plant/gateway/power"] * 3


def test_the_request_is_what_the_specification_wants(broker, tmp_path, caplog):
    settings = broker.settings(tmp_path / "lake", sparkplug_rebirth=True)
    with connected(broker) as node, listening(settings, caplog):
        node.send()
        until(lambda: len(node.commands) == 1)
    (command,) = node.commands
    said = parse_payload(command.payload)
    (metric,) = said.metrics
    assert (command.qos, command.retain, said.timestamp, said.HasField("seq")) == (0, False, NOON.timestamp() * 1000, False)
    assert (metric.name, metric.datatype, metric.boolean_value, metric.alias) == (b"Node Control/Rebirth", 11, True, 0)


def test_nobody_is_commanded_unless_somebody_wants_it(broker, tmp_path, caplog):
    """The command that is published here comes to the node behind any that the listener had sent."""
    settings = broker.settings(tmp_path / "lake")
    with connected(broker) as node, listening(settings, caplog) as source:
        node.send()
        until(lambda: source.counts()["stored"] == 1)
        broker.publish("spBv1.0/plant/NCMD/gateway", sparkplug("NCMD", {"name": b"ours"}).payload)
        until(lambda: node.commands)
        assert [parse_payload(each.payload).metrics[0].name for each in node.commands] == [b"ours"]
    drain(settings, ReplayClock(NOON))
    missing = Lake(settings.lake).scan(Quarantine).collect().filter(error_code="missing_birth")
    assert "listen.mqtt.sparkplug_rebirth" in missing["error_text"].item()


def test_births_of_this_connection_alone_count():
    """Shown to fail by keeping those of the one before: the node may have been born anew between the two."""
    assert asked([numbered("NBIRTH"), numbered("NDATA", 1), numbered("NDATA", 2)], connections=[1, 1, 2]) == [False, False, True]


def test_no_node_is_asked_twice_within_a_minute_whatever_becomes_of_the_connection():
    """Shown to fail by forgetting with the connection who was asked."""
    data = [numbered("NDATA", seq) for seq in range(5)]
    assert asked(data, apart_s=25.0, connections=[1, 1, 2, 2, 2]) == [True, False, False, True, False]


def test_a_node_that_is_asked_holds_up_no_other():
    others = [message(b"", topic=f"spBv1.0/plant/NDATA/{name}") for name in "abab"]
    assert asked(others, apart_s=1.0) == [True, True, False, False]


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [((1, 2), [False] * 2), ((2, 3), [True] * 2), ((1, 1, 2), [False] * 3), ((1, 2, 1, 3), [False] * 4), ((1, 3, 2), [False, True, True])],
)
def test_a_gap_in_the_sequence_numbers_may_have_been_a_birth(numbers, expected):
    """Shown to fail by taking what comes twice, as from overlapping subscriptions, for 255 missing ones."""
    assert asked([numbered("NBIRTH"), *(numbered("NDATA", number) for number in numbers)])[1:] == expected


def test_sequence_numbers_begin_again_behind_255_and_with_each_birth():
    rounds = [numbered("NDATA", seq % 256) for seq in range(1, 457)]  # the last is 200: 0 comes 56 later
    assert not any(asked([numbered("NBIRTH"), *rounds, numbered("NBIRTH"), numbered("NDATA", 1)]))


@pytest.mark.parametrize(("session", "expected"), [(1, True), (0, False)])
def test_after_a_death_the_births_before_it_do_not_count(session, expected):
    """The death of a session before is the will of a connection that the node gave up."""
    assert asked([numbered("NBIRTH"), numbered("NDEATH", session=session), numbered("NDATA", 1)]) == [False, False, expected]


def test_a_device_is_born_and_dies_by_itself():
    said = [numbered("NBIRTH"), numbered("DBIRTH", 1, device="d"), numbered("DDATA", 2, device="d")]
    assert asked([*said, numbered("DDEATH", 3, device="d"), numbered("NDATA", 4)]) == [False] * 5
    assert asked([*said, numbered("DDEATH", 3, device="d"), numbered("DDATA", 4, device="d")])[-1]
    assert asked([*said, numbered("DDATA", 3, device="e")])[-1]


@pytest.mark.parametrize("topic", ["site/a", "spBv1.0/STATE/host", "spBv1.0/plant/NCMD/gateway", "spBv1.0/plant/NDEATH/gateway"])
def test_only_what_a_living_node_says_is_answered(topic):
    assert asked([message(b"", topic=topic), message(b"\xff", topic="spBv1.0/plant/NDATA/gateway")]) == [False, False]


def test_who_shares_a_subscription_cannot_know_what_is_missing(tmp_path):
    file = tmp_path / "tidecast.toml"
    file.write_text("[listen.mqtt]\nsparkplug_rebirth = true\ntopics = ['$share/plant/#']\n")
    with pytest.raises(SettingsError, match=r"sparkplug_rebirth requires topics .* got '\$share/plant/#'"):
        load_settings(file)
