"""Kafka, against the mock cluster of the client library itself: real sockets and the real protocol, without a broker's own code."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from pipeline.clock import ReplayClock, SystemClock
from pipeline.doctor.doctor import repair
from pipeline.errors import SettingsError, StoreError
from pipeline.listen.inbox import Stored
from pipeline.listen.kafka import KafkaSource
from pipeline.listen.kafka_store import PartitionStore
from pipeline.payloads.message import Message
from pipeline.schemas import Quarantine, Readings
from pipeline.settings import KafkaSettings, ListenSettings, Settings
from pipeline.store.lake import Lake, read
from tests.waiting import until

NOW = SystemClock().now()  # a stamp far behind its arrival is quarantined
TOPIC = "river"
SOURCE = "kafka/test/river/0"
QUICK = {"session.timeout.ms": "6000", "heartbeat.interval.ms": "1000"}  # a member that is gone is missed after 45 s otherwise
COMMAND = [sys.executable, "-c", "from flows.cli import main; main()", "listen", "kafka", "--topic", TOPIC, "--json"]


def payload(number: int) -> bytes:
    stamp = NOW - timedelta(hours=1) + timedelta(seconds=number)
    return json.dumps({"ts": stamp.isoformat(), "device_id": "pump-1", "metric": "flow", "value": number}).encode()


class Cluster:
    """A mock cluster of one broker, whose topics have four partitions; it lives as long as its producer."""

    def __init__(self) -> None:
        self._producer = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "none", "log_level": 0})
        (broker,) = self._producer.list_topics(timeout=30).brokers.values()
        self.servers = f"{broker.host}:{broker.port}"

    def send(self, *numbers: int, partition: int = 0) -> None:
        """Have messages acknowledged by the cluster."""
        for number in numbers:
            self._producer.produce(TOPIC, payload(number), partition=partition)
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


def settings_of(folder: Path, servers: str = "localhost:1") -> Settings:
    kafka = KafkaSettings(servers=servers, topics=(TOPIC,), name="test", properties=QUICK)
    return Settings(lake=str(folder / "lake"), listen=ListenSettings(kafka=kafka, drain_interval=timedelta(seconds=1)))


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


@pytest.mark.slow
def test_a_kill_behind_the_commit_loses_and_repeats_nothing(cluster: Cluster, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, cluster.servers)
    cluster.send(0, 1, 2)
    environment = {
        **os.environ,
        "TIDECAST_FAILPOINT": "drain.after_readings:1",
        "TIDECAST_LISTEN__KAFKA__NAME": "test",
        "TIDECAST_LISTEN__KAFKA__PROPERTIES": json.dumps(QUICK),
        "TIDECAST_LISTEN__DRAIN_INTERVAL": "PT1S",
    }
    died = subprocess.run([*COMMAND, "--servers", cluster.servers, "--lake", settings.lake], env=environment, check=False, timeout=120)
    assert died.returncode == 137
    cluster.send(3)
    with reading(settings) as source:
        until(lambda: source.counts()["accepted"] > 0)
    assert source.counts()["messages"] == 1
    assert values(settings) == [0, 1, 2, 3]


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


def test_garbage_goes_to_quarantine_once_and_stops_nothing(stores: tuple[PartitionStore, PartitionStore], tmp_path: Path) -> None:
    store, _ = stores
    partition = store.open(SOURCE)
    partition.waiting = [Stored(0, Message("kafka", TOPIC, b"\xff{", NOW)), *stored(1)]
    assert store.store(partition)
    assert read(Lake(settings_of(tmp_path).lake).scan(Quarantine))["payload"].to_list() == [b"\xff{"]
    assert (store.counts["read"], store.counts["accepted"], store.counts["quarantined"]) == (2, 1, 1)


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
    with pytest.raises(StoreError, match="the topic was made anew"):
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


def test_a_broker_that_does_not_answer_is_told_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown to fail by what the client raises instead of an empty name: the listener ended with a traceback."""
    monkeypatch.setattr("pipeline.listen.kafka.LOOK_UP_S", 0.1)
    nowhere = KafkaSettings(servers="127.0.0.1:9", topics=(TOPIC,))
    stop = threading.Event()
    source = KafkaSource(Settings(lake=str(tmp_path), listen=ListenSettings(kafka=nowhere)), SystemClock(), None, stop)
    source.start()
    assert stop.wait(30)
    with pytest.raises(SettingsError, match="a broker that answers; got none at"):
        source.stop()
