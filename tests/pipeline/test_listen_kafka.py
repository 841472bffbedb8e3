"""Kafka, against the mock cluster of the client library itself: real sockets and the real protocol, without a broker's own code."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from pipeline.clock import ReplayClock, SystemClock
from pipeline.doctor.doctor import repair
from pipeline.errors import SettingsError, StoreError
from pipeline.listen import kafka
from pipeline.listen.inbox import Stored
from pipeline.listen.kafka import KafkaSource
from pipeline.listen.kafka_client import new_consumer
from pipeline.listen.kafka_store import PartitionStore
from pipeline.payloads.message import Message
from pipeline.schemas import Quarantine, Readings
from pipeline.settings import KafkaSettings, ListenSettings, Settings
from pipeline.store.lake import Lake, read
from tests.waiting import until

NOW = SystemClock().now()  # a stamp far behind its arrival is quarantined
TOPIC = "river"
SOURCE = "kafka/test/river/0"
QUICK = {  # a member that is gone is missed after 45 s otherwise, and a topic that comes is noticed after 30 s
    "session.timeout.ms": "6000",
    "heartbeat.interval.ms": "1000",
    "topic.metadata.refresh.interval.ms": "500",
}
COMMAND = [sys.executable, "-c", "from flows.cli import main; main()", "listen", "kafka", "--topic", TOPIC, "--json"]


def payload(number: int, note: str = "") -> bytes:
    stamp = NOW - timedelta(hours=1) + timedelta(milliseconds=100 * number)  # thousands of them are no future
    return json.dumps({"ts": stamp.isoformat(), "device_id": "pump-1", "metric": "flow", "value": number, "note": note}).encode()


class Cluster:
    """A mock cluster of one broker, whose topics have four partitions; it lives as long as its producer."""

    def __init__(self) -> None:
        self._producer = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "none", "log_level": 0})
        (broker,) = self._producer.list_topics(timeout=30).brokers.values()
        self.servers = f"{broker.host}:{broker.port}"

    def send(self, *numbers: int, partition: int = 0) -> None:
        """Have messages acknowledged by the cluster."""
        self.send_bytes(*map(payload, numbers), partition=partition)

    def send_bytes(self, *payloads: bytes | None, partition: int = 0) -> None:
        """Have messages acknowledged by the cluster, whatever is in them; None is a tombstone."""
        for one in payloads:
            self._producer.produce(TOPIC, one, partition=partition)
        assert self._producer.flush(30) == 0

    def committed(self, partition: int = 0) -> int:
        """Return what the group believes to have been read."""
        consumer = Consumer({"bootstrap.servers": self.servers, "group.id": "tidecast"})
        (found,) = consumer.committed([TopicPartition(TOPIC, partition)], timeout=30)
        consumer.close()
        return int(found.offset)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@contextmanager
def reading(settings: Settings) -> Iterator[KafkaSource]:
    """Run a source, and stop it."""
    source = KafkaSource(settings, SystemClock(), None, threading.Event())
    source.start()
    try:
        yield source
    finally:
        source.stop()


def settings_of(folder: Path, servers: str = "localhost:1", max_message_bytes: int = 1024**2) -> Settings:
    kafka = KafkaSettings(servers=servers, topics=(TOPIC,), name="test", properties=QUICK)
    listen = ListenSettings(kafka=kafka, drain_interval=timedelta(seconds=1), max_message_bytes=max_message_bytes)
    return Settings(lake=str(folder / "lake"), listen=listen)


def values(settings: Settings) -> list[float]:
    return sorted(read(Lake(settings.lake).scan(Readings).select("value"))["value"].to_list())


def test_every_message_becomes_a_reading_once_and_a_restart_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, cluster.servers)
    cluster.send(0, 1, 2)
    cluster.send(3, partition=1)
    with reading(settings) as source:
        until(lambda: source.counts()["accepted"] == 4)
    cluster.send(4)
    with reading(settings) as source:
        until(lambda: source.counts()["messages"] > 0)
    assert source.counts()["messages"] == 1
    assert values(settings) == [0, 1, 2, 3, 4]
    assert Lake(settings.lake).last_seq(Readings, f"ingest/{SOURCE}") == 4
    assert cluster.committed() == 4


def test_what_a_repair_took_out_of_the_readings_is_read_again(cluster: Cluster, tmp_path: Path) -> None:
    """Shown to fail by setting the fence back to -1: that is Kafka's number for the end of a topic."""
    settings = settings_of(tmp_path, cluster.servers)
    cluster.send(0, 1, 2)
    with reading(settings) as source:
        until(lambda: source.counts()["accepted"] == 3)
    next(Path(settings.lake, "readings").glob("*/*.parquet")).write_bytes(b"")
    repair(settings, SystemClock())
    assert PartitionStore(settings, SystemClock()).open(SOURCE).start == 0
    with reading(settings) as source:
        until(lambda: source.counts()["accepted"] == 3)
    assert values(settings) == [0, 1, 2]


def test_members_that_come_and_go_share_the_partitions_and_store_each_message_once(cluster: Cluster, tmp_path: Path) -> None:
    """The counts are those of what was committed, so that a message stored twice and taken for a duplicate would show."""
    settings = settings_of(tmp_path, cluster.servers)
    numbers = iter(range(10_000))
    one, other = (KafkaSource(settings, SystemClock(), None, threading.Event()) for _ in range(2))

    def flowing(source: KafkaSource, at_least: int) -> bool:
        for partition in range(4):
            cluster.send(next(numbers), partition=partition)
        return source.counts()["messages"] >= at_least

    one.start()
    until(lambda: flowing(one, 1))
    other.start()
    until(lambda: flowing(other, 1))
    one.stop()
    before = other.counts()["messages"]
    until(lambda: flowing(other, before + 1))
    sent = next(numbers)
    until(lambda: one.counts()["messages"] + other.counts()["messages"] == sent)
    other.stop()
    assert one.counts()["accepted"] + other.counts()["accepted"] == sent
    assert values(settings) == list(range(sent))


def test_what_retention_took_before_it_was_read_is_said_and_the_rest_is_read(
    cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The mock cluster keeps 5 MB of a partition."""
    settings = settings_of(tmp_path, cluster.servers)
    cluster.send_bytes(*[payload(number, "x" * 900_000) for number in range(10)])
    store = PartitionStore(settings, ReplayClock(NOW))
    partition = store.open(SOURCE)
    partition.waiting = stored(0, 1)
    assert store.store(partition)
    with reading(settings) as source:
        until(lambda: source.counts()["accepted"] == 5)
    assert f"messages are lost source={SOURCE} from=2 to=4" in caplog.text
    assert values(settings) == [0, 1, 5, 6, 7, 8, 9]
    assert PartitionStore(settings, ReplayClock(NOW)).open(SOURCE).through == 10


def test_a_topic_that_does_not_exist_yet_is_read_from_its_first_message(
    cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With a tombstone, which is no reading, and a message that is too long, whose beginning goes to quarantine."""
    settings = settings_of(tmp_path, cluster.servers, max_message_bytes=1024)
    with reading(settings) as source:
        until(lambda: "Unknown topic" in caplog.text)
        cluster.send_bytes(payload(0), None, b"x" * 1025, payload(1))
        until(lambda: source.counts()["accepted"] == 2)
    counts = source.counts()
    assert counts == {**counts, "messages": 3, "quarantined": 1, "tombstones": 1, "cut_short": 1}
    assert read(Lake(settings.lake).scan(Quarantine))["payload"].to_list() == [b"x" * 1024]


def test_a_lake_that_cannot_be_read_is_tried_again(cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Shown to fail by letting what `_assigned` raises end the thread."""
    settings = settings_of(tmp_path, cluster.servers)
    cluster.send(0, 1)
    source = KafkaSource(settings, SystemClock(), None, threading.Event())
    away = Path(settings.lake).rename(tmp_path / "away")
    source.start()
    until(lambda: "kafka failed" in caplog.text)
    away.rename(settings.lake)
    until(lambda: source.counts()["accepted"] == 2)
    source.stop()


def listener(cluster: Cluster, settings: Settings, **environment: str) -> subprocess.Popen[bytes]:
    """Start a member of the group as a process of its own."""
    said = {
        "TIDECAST_LISTEN__KAFKA__NAME": "test",
        "TIDECAST_LISTEN__KAFKA__PROPERTIES": json.dumps(QUICK),
        "TIDECAST_LISTEN__DRAIN_INTERVAL": "PT1S",
    }
    command = [*COMMAND, "--servers", cluster.servers, "--lake", settings.lake]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **said, **environment})


def test_a_kill_behind_the_commit_loses_and_repeats_nothing(cluster: Cluster, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, cluster.servers)
    cluster.send(0, 1, 2)
    with listener(cluster, settings, TIDECAST_FAILPOINT="drain.after_readings:1") as died:
        assert died.wait(120) == 137
    cluster.send(3)
    with reading(settings) as source:
        until(lambda: source.counts()["accepted"] > 0)
    assert source.counts()["messages"] == 1
    assert values(settings) == [0, 1, 2, 3]


def test_the_partitions_of_a_member_that_is_killed_go_on_where_its_commits_ended(cluster: Cluster, tmp_path: Path) -> None:
    """What the other process finds again would be counted by it as a duplicate."""
    settings = settings_of(tmp_path, cluster.servers)
    numbers = iter(range(10_000))

    def flowing(holds: Callable[[], bool]) -> bool:
        for partition in range(4):
            cluster.send(next(numbers), partition=partition)
        return holds()

    with listener(cluster, settings, TIDECAST_FAILPOINT="drain.after_readings:12") as one, listener(cluster, settings) as other:
        until(lambda: flowing(lambda: one.poll() is not None))
        before = sum(cluster.committed(partition) for partition in range(4))
        until(lambda: flowing(lambda: sum(cluster.committed(partition) for partition in range(4)) > before + 4))
        sent = next(numbers)
        until(lambda: len(values(settings)) == sent)
        other.send_signal(signal.SIGTERM)
        report = json.loads(other.communicate()[0])
    assert one.returncode == 137
    assert values(settings) == list(range(sent))
    assert report["counts"]["duplicate"] == 0


@pytest.fixture
def stores(tmp_path: Path) -> tuple[PartitionStore, PartitionStore]:
    """Two processes that both believe a partition to be theirs."""
    settings = settings_of(tmp_path)
    return PartitionStore(settings, ReplayClock(NOW)), PartitionStore(settings, ReplayClock(NOW))


def stored(*offsets: int) -> list[Stored]:
    return [Stored(offset, Message("kafka", TOPIC, payload(offset), NOW)) for offset in offsets]


def test_a_zombie_is_fenced_off_and_stores_nothing(stores: tuple[PartitionStore, PartitionStore], tmp_path: Path) -> None:
    """Shown to fail by appending without `after`: offsets 3 to 5 would hide that 0 to 2 are stored twice."""
    zombie, owner = stores
    old, new = zombie.open(SOURCE), owner.open(SOURCE)
    old.waiting, new.waiting = stored(0, 1, 2, 3, 4, 5), stored(0, 1, 2)
    assert owner.store(new)
    assert not zombie.store(old)
    assert values(settings_of(tmp_path)) == [0, 1, 2]
    assert zombie.open(SOURCE).through == 3
    assert zombie.counts["messages"] == 0


def test_a_partition_that_comes_back_is_judged_by_what_its_holder_meanwhile_saw(stores: tuple[PartitionStore, PartitionStore]) -> None:
    """Shown to fail by keeping what was known before: the reading that came ten minutes late would be on time."""
    one, other = stores
    for store, number in ((one, 0), (other, 6000)):
        partition = store.open(SOURCE)
        partition.waiting = stored(number)
        assert store.store(partition)
    partition = one.open(SOURCE)
    partition.waiting = [Stored(6001, Message("kafka", TOPIC, payload(1), NOW))]
    assert one.store(partition)
    assert one.counts["late"] == 1


def test_a_message_is_received_when_it_is_stored_however_long_ago_it_was_read(tmp_path: Path) -> None:
    """Else a tick that had closed between the two would have known it."""
    settings = settings_of(tmp_path)
    store = PartitionStore(settings, ReplayClock(NOW + timedelta(seconds=10)))
    partition = store.open(SOURCE)
    partition.waiting = stored(0)
    assert store.store(partition)
    received = read(Lake(settings.lake).scan(Readings).select("received_at"))["received_at"].to_list()
    assert received == [NOW + timedelta(seconds=10)]


def test_garbage_goes_to_quarantine_once_and_stops_nothing(stores: tuple[PartitionStore, PartitionStore], tmp_path: Path) -> None:
    store, _ = stores
    partition = store.open(SOURCE)
    partition.waiting = [Stored(0, Message("kafka", TOPIC, b"\xff{", NOW)), *stored(1)]
    assert store.store(partition)
    assert read(Lake(settings_of(tmp_path).lake).scan(Quarantine))["payload"].to_list() == [b"\xff{"]
    assert (store.counts["read"], store.counts["accepted"], store.counts["quarantined"]) == (2, 1, 1)


def test_every_consumer_is_closed_also_when_it_stops_in_the_pause_behind_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Shown to fail by making the next consumer when nobody takes part any more: its threads and sockets stayed."""
    made: list[Consumer] = []
    monkeypatch.setattr(kafka, "new_consumer", lambda *given: made.append(new_consumer(*given)) or made[-1])
    monkeypatch.setattr(KafkaSource, "_take_part", lambda *_: (_ for _ in ()).throw(StoreError("the lake is away")))
    with reading(settings_of(tmp_path)):
        until(lambda: "the lake is away" in caplog.text)
    for consumer in made:
        with pytest.raises(RuntimeError, match="closed"):
            consumer.assignment()


def test_a_topic_that_was_made_anew_is_refused_and_not_taken_for_known(cluster: Cluster, tmp_path: Path) -> None:
    """Shown to fail by storing what lies behind the lake as known: it would be dropped."""
    settings = settings_of(tmp_path, cluster.servers)
    store = PartitionStore(settings, ReplayClock(NOW))
    partition = store.open(SOURCE)
    partition.waiting = stored(1_000)
    assert store.store(partition)
    cluster.send(0)
    stop = threading.Event()
    source = KafkaSource(settings, SystemClock(), None, stop)
    source.start()
    assert stop.wait(60)
    with pytest.raises(SettingsError, match="the topic was made anew"):
        source.stop()


@pytest.mark.parametrize(
    ("kafka", "sentence"),
    [
        (KafkaSettings(), "requires a topic"),
        (KafkaSettings(topics=("a",), properties={"enable.auto.commit": "true"}), "got enable.auto.commit"),
        (KafkaSettings(topics=("a",), properties={"no.such.thing": "1"}), "no.such.thing"),
    ],
)
def test_impossible_settings_are_refused(tmp_path: Path, kafka: KafkaSettings, sentence: str) -> None:
    settings = Settings(lake=str(tmp_path), listen=ListenSettings(kafka=kafka))
    with pytest.raises(SettingsError, match=sentence):
        KafkaSource(settings, SystemClock(), None, threading.Event())


def test_without_the_extra_the_error_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(SettingsError, match=r"pip install 'tidecast\[kafka\]'"):
        KafkaSource(settings_of(tmp_path), SystemClock(), None, threading.Event())


def test_brokers_that_do_not_answer_are_told_in_one_sentence_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Shown to fail by letting through what the client raises: it asks for a version of brokers, whatever is wrong."""
    monkeypatch.setattr("pipeline.listen.kafka.FIND_S", 0.1)
    monkeypatch.setattr("pipeline.listen.kafka.RETRY_S", 0.1)
    nowhere = KafkaSettings(servers="127.0.0.1:9", topics=(TOPIC,))
    source = KafkaSource(Settings(lake=str(tmp_path), listen=ListenSettings(kafka=nowhere)), SystemClock(), None, threading.Event())
    source.start()
    until(lambda: caplog.text.count("no connection servers=127.0.0.1:9") > 1)
    assert not source.is_connected()
    source.stop()
    assert "KIP-78" not in caplog.text
    assert "Traceback" not in caplog.text
