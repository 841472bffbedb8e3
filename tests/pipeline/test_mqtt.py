"""MQTT with a real Mosquitto: what is acknowledged is in the inbox, what is not comes again, and everything in between."""

import logging
import subprocess
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest

from pipeline.clock import SystemClock
from pipeline.errors import SettingsError
from pipeline.listen import mqtt
from pipeline.listen.inbox import Inbox
from pipeline.listen.mqtt import MqttSource
from pipeline.listen.mqtt_broker import Credentials
from pipeline.payloads.message import CUT_SHORT, Message
from pipeline.settings import Settings
from tests.brokers import ANONYMOUS, NOON, Mosquitto, inbox_of, listening, payloads_of, refusal, running
from tests.fuzz import EVENT
from tests.messages import rows
from tests.waiting import PATIENCE_S, until

FULL = {"max_inbox_bytes": 1024**2}


@pytest.fixture
def broker(tmp_path) -> Iterator[Mosquitto]:
    with running(Mosquitto(tmp_path / "broker")) as started:
        yield started


def fill(settings: Settings) -> Inbox:
    """Return an open inbox that holds as much as it may."""
    inbox = Inbox(settings.state_dir)
    inbox.put([Message("mqtt", "old", b"0" * FULL["max_inbox_bytes"], NOON - timedelta(days=2))])
    return inbox


def test_every_byte_of_a_message_reaches_the_inbox_with_its_topic_and_its_instant(broker, tmp_path, caplog):
    settings = broker.settings(tmp_path / "lake", topics=("site/#",))
    with listening(settings, caplog) as source:
        broker.publish("elsewhere", b"not asked for")
        broker.publish("site/pümpe 1/°C", *[bytes(range(256)), b"", b"\xff\xfe", b'{"value": 1}'])
        until(lambda: source.counts()["acknowledged"] == 4)
    messages = inbox_of(settings)
    assert payloads_of(messages) == [bytes(range(256)), b"", b"\xff\xfe", b'{"value": 1}']
    assert {(message.source, message.received_at) for message in messages} == {("mqtt:site/pümpe 1/°C", NOON)}


def test_a_full_inbox_stops_acknowledging_but_more_than_twenty_messages_still_come(broker, tmp_path, caplog):
    """Shown to fail by asking for no ReceiveMaximum: Mosquitto then sends 20 that are not acknowledged, and waits."""
    settings = broker.settings(tmp_path / "lake", listen=FULL)
    inbox = fill(settings)
    with listening(settings, caplog) as source:
        broker.publish("a", *[b"%d" % number for number in range(200)])
        until(lambda: source.counts()["waiting"] == 200)
        assert (source.counts()["stored"], source.counts()["acknowledged"], inbox.last_seq()) == (0, 0, 1)
    inbox.close()


def test_a_full_inbox_that_gets_room_again_takes_everything_in_order(broker, tmp_path, caplog):
    settings = broker.settings(tmp_path / "lake", listen=FULL)
    inbox = fill(settings)
    with listening(settings, caplog) as source:
        broker.publish("a", *[b"%d" % number for number in range(50)])
        until(lambda: source.counts()["waiting"] == 50 and "inbox refused" in caplog.text)
        inbox.trim(1, received_before=NOON)
        until(lambda: source.counts()["acknowledged"] == 50)
    inbox.close()
    assert payloads_of(inbox_of(settings)) == [b"%d" % number for number in range(50)]


def test_no_more_is_read_than_memory_is_meant_for(broker, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(mqtt, "MAX_WAITING_BYTES", 100_000)
    settings = broker.settings(tmp_path / "lake", listen=FULL)
    with listening(settings, caplog):
        pass
    broker.publish("a", *[b"%d" % number * 40_000 for number in range(8)])  # all of which then come at once
    inbox = fill(settings)
    with listening(settings, caplog, sign="connected") as source:
        until(lambda: "inbox refused" in caplog.text)
        assert source.counts()["received"] <= 3
        inbox.trim(1, received_before=NOON)
        until(lambda: source.counts()["acknowledged"] == 8)
    inbox.close()


def test_what_could_not_be_stored_comes_again_to_the_next_listener(broker, tmp_path, caplog):
    settings = broker.settings(tmp_path / "lake", listen=FULL)
    fill(settings).close()
    with listening(settings, caplog) as source:
        broker.publish("a", b"1", b"2", b"3")
        until(lambda: source.counts()["waiting"] == 3)
    roomy = broker.settings(tmp_path / "lake")
    with listening(roomy, caplog) as source:
        until(lambda: source.counts()["acknowledged"] == 3)
    assert payloads_of(inbox_of(roomy)[1:]) == [b"1", b"2", b"3"]


def test_a_broker_that_is_restarted_gracefully_loses_nothing(broker, tmp_path, caplog):
    settings = broker.settings(tmp_path / "lake")
    with listening(settings, caplog) as source:
        broker.publish("a", b"before")
        until(lambda: source.counts()["acknowledged"] == 1)
        broker.stop()
        broker.start()
        broker.publish("a", b"after")  # perhaps before the listener is back: the session keeps it
        until(lambda: source.counts()["acknowledged"] == 2)
    assert payloads_of(inbox_of(settings)) == [b"before", b"after"]


def test_an_acknowledgement_earned_on_an_older_connection_is_dropped(broker, tmp_path, caplog):
    settings = broker.settings(tmp_path / "lake", listen=FULL)
    inbox = fill(settings)
    with listening(settings, caplog) as source:
        broker.publish("a", *[b"%d" % number for number in range(5)])
        until(lambda: source.counts()["waiting"] == 5)
        broker.stop()
        broker.start()
        until(lambda: source.counts()["waiting"] == 10)  # the broker has sent them again
        inbox.trim(1, received_before=NOON)
        until(lambda: source.counts()["stored"] == 10)
    inbox.close()
    assert source.counts()["acknowledged"] == 5


def test_a_listener_waits_for_a_broker_that_is_not_there_yet(tmp_path, caplog):
    broker = Mosquitto(tmp_path / "broker")
    with listening(broker.settings(tmp_path / "lake"), caplog, sign="no connection") as source, running(broker):
        until(lambda: "subscribed" in caplog.text)
        broker.publish("a", b"1")
        until(lambda: source.counts()["acknowledged"] == 1)


def test_a_listener_that_leaves_amid_a_flood_is_sent_nothing_again_that_it_has_acknowledged(broker, tmp_path, caplog):
    """Shown to fail by closing the socket behind the goodbye: what nobody reads then makes a reset, which overtakes the last ones."""
    settings = broker.settings(tmp_path / "lake", receive_maximum=1000)
    with listening(settings, caplog):
        pass
    wanted = [b"%d" % number for number in range(20_000)]
    broker.publish("a", *wanted)
    while len(inbox_of(settings)) < len(wanted):
        with listening(settings, caplog) as source:
            until(lambda source=source: source.counts()["acknowledged"] > 0)
    assert payloads_of(inbox_of(settings)) == wanted


def test_what_is_published_while_the_listener_is_away_is_kept_even_through_a_restart_of_the_broker(broker, tmp_path, caplog):
    """Shown to fail by `clean_start=True`, and by a SessionExpiryInterval of 0."""
    settings = broker.settings(tmp_path / "lake")
    with listening(settings, caplog):
        pass
    broker.publish("a", *[b"%d" % number for number in range(30)])
    broker.stop()
    broker.start()
    with listening(settings, caplog) as source:
        until(lambda: source.counts()["acknowledged"] == 30)
    assert payloads_of(inbox_of(settings)) == [b"%d" % number for number in range(30)]


def test_a_retained_message_is_acknowledged_and_counted_but_not_taken(broker, tmp_path, caplog):
    broker.publish("a", b"stale", retain=True)
    settings = broker.settings(tmp_path / "lake")
    with listening(settings, caplog) as source:
        broker.publish("a", b"live", retain=True)
        until(lambda: source.counts()["acknowledged"] == 2)
        assert source.counts()["retained"] == 1
    assert payloads_of(inbox_of(settings)) == [b"live"]


def test_a_message_that_is_too_long_is_kept_cut_and_marked(broker, tmp_path, caplog):
    settings = broker.settings(tmp_path / "lake", listen={"max_message_bytes": 1024})
    with listening(settings, caplog) as source:
        broker.publish("a", b"x" * 1025, b"y" * 1024)
        until(lambda: source.counts()["acknowledged"] == 2)
        assert source.counts()["cut_short"] == 1
    assert [(m.payload, m.content_type) for m in inbox_of(settings)] == [(b"x" * 1024, CUT_SHORT), (b"y" * 1024, None)]


def test_an_event_whose_envelope_is_in_user_properties_is_read_as_the_same_in_structured_mode(broker, tmp_path, caplog):
    settings = broker.settings(tmp_path / "lake")
    with listening(settings, caplog) as source:
        broker.publish("a", b"m value=1.5", content_type="text/plain", user=[*EVENT.items(), ("site", "b")])
        broker.publish("a", b"m,device=d value=2", content_type="text/plain", user=[("site", "b")])
        until(lambda: source.counts()["acknowledged"] == 2)
    found = rows(inbox_of(settings)).select("device_id", "metric", "value", "seq").rows()
    assert found == [("m", "value", "1.5", "7"), ("d", "m", "2", None)]


def test_a_message_that_its_publisher_does_not_want_confirmed_is_stored_all_the_same(broker, tmp_path, caplog):
    settings = broker.settings(tmp_path / "lake")
    with listening(settings, caplog) as source:
        broker.publish("a", b"qos 0", qos=0)
        broker.publish("a", b"qos 2", qos=2)
        until(lambda: source.counts()["stored"] == 2)
    assert (source.counts()["acknowledged"], payloads_of(inbox_of(settings))) == (1, [b"qos 0", b"qos 2"])


def test_listeners_that_share_a_subscription_take_each_message_once_also_what_came_while_one_was_away(broker, tmp_path, caplog):
    settings = [broker.settings(tmp_path / "lake", client_id=name, topics=("$share/plant/a",)) for name in ("one", "other")]
    with listening(settings[0], caplog), listening(settings[1], caplog):
        broker.publish("a", *[b"%d" % number for number in range(100)])
        until(lambda: len(inbox_of(settings[0])) == 100)
    with listening(settings[0], caplog) as one:
        broker.publish("a", *[b"%d" % number for number in range(100, 200)])
        until(lambda: one.counts()["acknowledged"] > 0)
        with listening(settings[1], caplog):
            until(lambda: len(inbox_of(settings[0])) == 200)
    assert sorted(map(int, payloads_of(inbox_of(settings[0])))) == list(range(200))


def test_of_two_listeners_with_one_client_id_one_gives_up_and_one_stays(broker, tmp_path):
    stops = [threading.Event(), threading.Event()]
    settings = [broker.settings(tmp_path / name) for name in ("one", "other")]
    sources = [MqttSource(one, SystemClock(), Credentials(), stop) for one, stop in zip(settings, stops, strict=True)]
    for source in sources:
        source.start()
    until(lambda: any(stop.is_set() for stop in stops))
    loser = next(number for number, stop in enumerate(stops) if stop.is_set())
    with pytest.raises(SettingsError, match="requires a client id of its own; got 'listener'"):
        sources[loser].stop()
    assert not stops[1 - loser].is_set()
    sources[1 - loser].stop()


def test_commits_that_end_by_a_fault_end_the_listener_with_it(broker, tmp_path, monkeypatch):
    """Shown to fail by a thread that nobody watches: the listener read on, and acknowledged nothing any more."""
    monkeypatch.setattr(Inbox, "put", lambda *_: 1 / 0)
    over = threading.Event()
    source = MqttSource(broker.settings(tmp_path / "lake"), SystemClock(), ANONYMOUS, over)
    source.start()
    until(source.is_connected)
    broker.publish("a", b"1")
    assert over.wait(PATIENCE_S)
    with pytest.raises(ZeroDivisionError):
        source.stop()


def test_a_source_that_was_never_started_can_be_stopped(tmp_path):
    MqttSource(Mosquitto(tmp_path / "broker").settings(tmp_path / "lake"), SystemClock(), ANONYMOUS, threading.Event()).stop()


def test_a_broker_that_grants_less_than_quality_1_is_refused(tmp_path):
    with running(Mosquitto(tmp_path / "broker", "allow_anonymous true", "max_qos 0")) as weak:
        assert "leave to subscribe with QoS 1; got # (Granted QoS 0)" in refusal(weak.settings(tmp_path / "lake"))


def test_a_password_lets_in_and_a_wrong_one_is_refused_without_being_repeated(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    passwords = tmp_path / "passwords"
    passwords.write_text("listener:s3cret-enough\n")
    subprocess.run(["mosquitto_passwd", "-U", passwords], check=True)  # hashes it
    with running(Mosquitto(tmp_path / "broker", f"password_file {passwords}", "allow_anonymous false")) as locked:
        settings = locked.settings(tmp_path / "lake")
        with listening(settings, caplog, Credentials("listener", "s3cret-enough")) as source:
            pass
        assert "not authori" in refusal(settings, Credentials("listener", "wr0ng-indeed")).lower()
        assert source.counts()["received"] == 0
    assert not [word for word in ("s3cret-enough", "wr0ng-indeed") if word in caplog.text]
