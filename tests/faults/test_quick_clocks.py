"""Clocks that jump, ours and those of devices, while messages come from a real broker."""

import logging
import threading
from datetime import timedelta

import pytest

from pipeline.clock import ReplayClock
from pipeline.listen.drain import drain
from pipeline.listen.mqtt import MqttSource
from pipeline.listen.replay import replay_quarantine
from pipeline.prepare.regularise import regularise
from pipeline.schemas import Quarantine
from pipeline.store.catalog import Catalog
from pipeline.store.lake import Lake, read
from pipeline.store.observations import read_observations
from tests.brokers import ANONYMOUS, NOON, Mosquitto, inbox_of, running, until
from tests.faults.fleet import Fleet
from tests.faults.oracle import account
from tests.faults.producer import line_of

FLEET = Fleet(num_devices=5, start=NOON.isoformat(), interval_s=60)
HOUR, TEN_YEARS = timedelta(hours=1), timedelta(days=3653)
TICKS = 5  # in a row, before a clock jumps


@pytest.fixture
def broker(tmp_path):
    with running(Mosquitto(tmp_path / "broker")) as started:
        yield started


class Site:
    """A source whose clock is set by hand."""

    def __init__(self, broker, folder, caplog):
        self.broker, self.settings, self.caplog = broker, broker.settings(folder / "lake", client_id=folder.name), caplog
        self.clock, self.ledger, self.seq = ReplayClock(NOON), folder / "ledger", 0
        folder.mkdir()

    def take(self, *payloads, jump=timedelta(0)):
        """Take in the fleet's next readings and some other payloads, with our clock off by a jump, then drain."""
        readings = [FLEET.reading(device, self.seq + tick) for tick in range(TICKS) for device in range(FLEET.num_devices)]
        self.seq += TICKS
        self.clock.instant = NOON + self.seq * timedelta(minutes=1) + jump
        self.caplog.set_level(logging.INFO)
        self.caplog.clear()
        source = MqttSource(self.settings, self.clock, ANONYMOUS, threading.Event())
        source.start()
        until(lambda: "subscribed" in self.caplog.text)
        before = len(inbox_of(self.settings))
        for reading in readings:
            self.broker.publish(reading.topic, reading.payload())
        for payload in payloads:
            self.broker.publish("fleet/other", payload)
        until(lambda: len(inbox_of(self.settings)) == before + len(readings) + len(payloads))
        source.stop()
        with self.ledger.open("a") as ledger:
            ledger.writelines(f"{line_of(reading)}\n" for reading in readings)
        drain(self.settings, self.clock)

    def account(self):
        """Hold the lake against everything that was published."""
        return account(self.settings.lake, self.ledger, FLEET)

    def reasons(self):
        """Return the error codes in quarantine."""
        return set(read(Lake(self.settings.lake).scan(Quarantine))["error_code"])


def test_what_came_while_our_clock_was_wrong_is_stored_or_comes_back_from_quarantine(broker, tmp_path, caplog):
    site = Site(broker, tmp_path / "site", caplog)
    for jump in (timedelta(0), HOUR, timedelta(0), TEN_YEARS, timedelta(0)):
        site.take(jump=jump)
    assert (site.account().lost, site.reasons()) == (TICKS * FLEET.num_devices, {"stale_timestamp"})
    replay_quarantine(site.settings, site.clock, accept=("stale_timestamp",))
    assert site.account().is_whole


def test_what_is_ahead_of_a_clock_of_ours_that_was_set_back_comes_back_from_quarantine_at_a_persons_word(broker, tmp_path, caplog):
    site = Site(broker, tmp_path / "site", caplog)
    for jump in (timedelta(0), -HOUR, timedelta(0)):
        site.take(jump=jump)
    assert (site.account().lost, site.reasons()) == (TICKS * FLEET.num_devices, {"future_timestamp"})
    assert len(read(Lake(site.settings.lake).scan(Quarantine))) == TICKS * FLEET.num_devices
    replay_quarantine(site.settings, site.clock)
    assert site.account().lost == TICKS * FLEET.num_devices
    replay_quarantine(site.settings, site.clock, accept=("future_timestamp",))
    assert site.account().is_whole


def test_devices_whose_clocks_are_wrong_change_nothing_for_the_others(broker, tmp_path, caplog):
    stamp = b'{"device_id": "broken", "metric": "temperature", "ts": "%s", "value": 1}'
    wrong = [stamp % ts for ts in (b"2099-01-01T00:00:00Z", b"1970-01-01T00:00:07Z", b"2000-01-01T00:00:00Z", b"2024-02-30T00:00:00Z")]
    for name, others in (("with", wrong), ("without", [])):
        site = Site(broker, tmp_path / name, caplog)
        site.take(*others)
        site.take()
        regularise(site.settings, site.clock)
    with_them, without = (broker.settings(tmp_path / name / "lake") for name in ("with", "without"))
    assert read_observations(Lake(with_them.lake)).equals(read_observations(Lake(without.lake)))
    assert Catalog(with_them.state_dir).series().equals(Catalog(without.state_dir).series())
    assert len(read(Lake(with_them.lake).scan(Quarantine))) == len(wrong)
