"""From the inbox to the lake: every acknowledged message once, whatever dies, comes twice or cannot be read."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from polars.exceptions import PanicException

from pipeline.clock import ReplayClock
from pipeline.errors import SettingsError, StoreError
from pipeline.failpoints import KILLED, VARIABLE
from pipeline.listen import drain as drain_module
from pipeline.listen import judge, range_commit
from pipeline.listen.drain import drain
from pipeline.listen.inbox import Inbox
from pipeline.payloads.message import Message
from pipeline.schemas import Quarantine, Readings
from pipeline.settings import Settings
from pipeline.store.catalog import Catalog
from pipeline.store.lake import Lake

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
GARBAGE = b'{"device_id":"d","metric"'
SAME_TO_ALL = pl.exclude("ingested_at", "ingest_date")

# Drains the lake in argv[1], two messages a commit, an hour after noon.
DRAIN = """
import sys
from datetime import UTC, datetime
from pipeline.clock import ReplayClock
from pipeline.listen import drain
from pipeline.settings import Settings

drain.RANGE_MESSAGES = 2
drain.drain(Settings(lake=sys.argv[1]), ReplayClock(datetime(2026, 6, 1, 13, tzinfo=UTC)))
"""


def reading(minute: float, value: float | str, device: str = "d", **more: object) -> dict[str, object]:
    return {"device_id": device, "metric": "t", "ts": (NOON + minute * MINUTE).isoformat(), "value": value, **more}


class Site:
    """A lake with an inbox, and a clock an hour after noon."""

    def __init__(self, folder, **sections):
        self.settings = Settings(lake=str(folder), **sections)
        self.clock = ReplayClock(NOON + 60 * MINUTE)

    def receive(self, *payloads, at=NOON + 10 * MINUTE, topic="site/d"):
        """Put messages into the inbox: bytes as they are, all else as JSON."""
        inbox = Inbox(self.settings.state_dir)
        bodies = [body if isinstance(body, bytes) else json.dumps(body).encode() for body in payloads]
        inbox.put([Message("mqtt", topic, body, at) for body in bodies])
        inbox.close()

    def drain(self):
        """Drain and return the counts: messages, read, accepted, duplicate, late, quarantined, through."""
        report = drain(self.settings, self.clock)
        self.reasons = report.reasons
        return report.messages, report.read, report.accepted, report.duplicate, report.late, report.quarantined, report.through

    def table(self, schema=Readings):
        """Read one whole table."""
        return Lake(self.settings.lake).scan(schema).collect()

    def rows(self, schema=Readings):
        """Return the rows of a table without when they were committed, in an order of their own."""
        frame = self.table(schema).select(SAME_TO_ALL)
        return frame.sort(frame.columns)

    def values(self):
        """Return the stored values by stamp."""
        return self.table().sort("ts", "source_seq")["value"].to_list()


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path / "lake")


def receive_everything(site):
    """Receive good, late, duplicate, corrected and garbage messages, and arrays that hold several of them."""
    site.receive(reading(1, 20.0), reading(9, 21.0))
    site.receive(reading(2, 22.0), reading(1, 20.0), at=NOON + 11 * MINUTE)  # late; a duplicate
    site.receive(GARBAGE, reading(9, 23.0), at=NOON + 12 * MINUTE)  # garbage; a correction
    site.receive([reading(10, 1.0), reading(10, "soon"), 7, reading(11, 2.0, "e")], GARBAGE, at=NOON + 13 * MINUTE)
    site.receive(reading(5000, 24.0), reading(10, 1.5, seq=7), at=NOON + 14 * MINUTE)  # from the future; a correction with a number


def test_every_message_is_accounted_for(site) -> None:
    receive_everything(site)
    assert site.drain() == (10, 13, 7, 1, 1, 5, 10)
    assert site.reasons == {"unparseable_message": 3, "not_a_number": 1, "future_timestamp": 1}
    late = site.table().filter("is_late").sort("ts")
    assert late.select("value", "source", "source_seq", "received_at").row(0) == (22.0, "mqtt:site/d", 3, NOON + 11 * MINUTE)
    assert site.drain() == (0, 0, 0, 0, 0, 0, 10)


def test_a_payload_that_comes_again_is_in_quarantine_once(site) -> None:
    """Shown to fail by a position that holds the number of the message."""
    site.receive(GARBAGE, [1, reading(1, "x")], GARBAGE)
    site.drain()
    site.receive(GARBAGE, [1, reading(1, "x")], at=NOON + 30 * MINUTE)
    site.clock.advance(timedelta(days=1))
    assert site.drain()[5] == 3
    stored = site.table(Quarantine).sort("position")
    assert sorted(stored["payload"].to_list()) == sorted([GARBAGE, b"1", json.dumps(reading(1, "x")).encode()])
    assert (stored["connector"].unique().to_list(), stored["received_at"].unique().to_list()) == (["mqtt:site/d"], [NOON + 10 * MINUTE])
    assert stored["position"].str.extract(r"(\[.*)$").to_list().count("[0]") == 1


def test_the_same_bytes_on_another_topic_are_another_payload(site) -> None:
    site.receive(GARBAGE)
    site.receive(GARBAGE, topic="site/e")
    site.drain()
    assert sorted(site.table(Quarantine)["connector"]) == ["mqtt:site/d", "mqtt:site/e"]


def test_the_fence_moves_where_no_row_is_new(site) -> None:
    site.receive(reading(1, 20.0))
    site.drain()
    site.receive(reading(1, 20.0), GARBAGE)
    assert site.drain() == (2, 2, 0, 1, 0, 1, 3)
    assert site.drain()[0] == 0


def undisturbed(folder):
    """Drain everything in one process that nothing disturbs."""
    site = Site(folder)
    receive_everything(site)
    subprocess.run([sys.executable, "-c", DRAIN, site.settings.lake], check=True)
    return site


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return undisturbed(tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.parametrize("point", ["drain.after_read", "drain.after_quarantine", "drain.after_readings"])
@pytest.mark.parametrize("passes", [1, 2, 4])
def test_a_drain_that_dies_anywhere_leaves_what_an_undisturbed_one_does(tmp_path, reference, point, passes) -> None:
    """Shown to fail by quarantine rows appended without a look, and by spans that a death keeps from the catalog (`is_late`)."""
    site = Site(tmp_path)
    receive_everything(site)
    died = subprocess.run([sys.executable, "-c", DRAIN, site.settings.lake], env={**os.environ, VARIABLE: f"{point}:{passes}"}, check=False)
    assert died.returncode == KILLED
    site.receive()
    site.drain()
    assert site.rows().equals(reference.rows())
    assert site.rows(Quarantine).equals(reference.rows(Quarantine))
    spans = ("series_id", "unit", "aggregation", "first_ts", "last_ts")
    assert Catalog(site.settings.state_dir).series().select(spans).equals(Catalog(reference.settings.state_dir).series().select(spans))


def test_two_drains_at_once_store_each_message_once(site, reference, monkeypatch) -> None:
    """More messages come while both are at it, so that their ranges end at different numbers."""
    monkeypatch.setattr(drain_module, "RANGE_MESSAGES", 3)
    with ThreadPoolExecutor(3) as pool:
        drains = [pool.submit(site.drain) for _ in range(2)]
        receive_everything(site)
        drains += [pool.submit(site.drain) for _ in range(2)]
    assert sum(done.result()[2] for done in drains) + site.drain()[2] == 7
    same = ("series_id", "ts", "value", "received_at", "source_seq")
    assert site.rows().select(same).equals(reference.rows().select(same))
    assert site.rows(Quarantine).equals(reference.rows(Quarantine))


def test_a_range_that_another_drain_has_begun_is_not_stored_again(site, monkeypatch) -> None:
    """The other drain commits messages 1 and 2 while this one is at 1 to 3. Shown to fail without `after`: its end, 3, is a new number."""
    site.receive(reading(1, 1.0), reading(2, 2.0), reading(3, 3.0))
    split, others = range_commit.split_duplicates, [2]

    def overtaken(lake, readings):
        found = split(lake, readings)
        while others:
            monkeypatch.setattr(drain_module, "RANGE_MESSAGES", others.pop())
            other = drain_module._Drain(range_commit.RangeCommits.open(site.settings, site.clock), Inbox(site.settings.state_dir))
            assert other.commit_next()
        return found

    monkeypatch.setattr(range_commit, "split_duplicates", overtaken)
    assert site.drain()[2] == 1
    assert site.values() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("failure", [PanicException("rust"), RecursionError(), ValueError("poison")])
def test_a_message_that_breaks_the_decoder_stops_nothing(site, monkeypatch, failure) -> None:
    """Shown to fail by `except Exception` around the panic, which is none."""
    decode = judge.decode

    def poisoned(messages, routes, births):
        if any(b"poison" in message.payload for message in messages):
            raise failure
        return decode(messages, routes, births)

    monkeypatch.setattr(judge, "decode", poisoned)
    site.receive(*(reading(minute, float(minute)) for minute in range(5)), b"poison", *(reading(minute, 1.0) for minute in range(5, 9)))
    assert site.drain() == (10, 10, 9, 0, 0, 1, 10)
    assert site.table(Quarantine).select("payload", "error_code").rows() == [(b"poison", "undecodable")]
    assert site.table().sort("ts")["source_seq"].to_list() == [1, 2, 3, 4, 5, 7, 8, 9, 10]


def test_a_fault_of_the_settings_is_no_fault_of_the_messages(site, monkeypatch) -> None:
    def refuse(messages, routes, births):
        raise SettingsError("a route that is none")

    monkeypatch.setattr(judge, "decode", refuse)
    site.receive(reading(1, 1.0))
    with pytest.raises(SettingsError, match="a route that is none"):
        site.drain()
    assert len(site.table(Quarantine)) == 0


def test_a_clock_that_was_set_back_rejects_nothing(site) -> None:
    """Shown to fail by holding stamps against the clock: they were all from its future."""
    site.receive(reading(9, 1.0))
    site.clock.instant = NOON - timedelta(days=1)
    assert site.drain()[2] == 1


def test_units_are_those_of_the_metric_as_for_files(site) -> None:
    site.receive(reading(1, 20.0, unit="degC"), reading(2, 50.0, unit="degF"), reading(3, 1.0, unit="bar"))
    assert site.drain()[2:] == (2, 0, 0, 1, 3)
    assert (site.values(), site.reasons) == ([20.0, pytest.approx(10.0)], {"unknown_unit": 1})
    assert Catalog(site.settings.state_dir).series().select("unit", "aggregation").rows() == [("degC", "mean")]


def test_a_lake_that_lost_its_tail_is_filled_from_the_inbox(site, caplog) -> None:
    site.receive(reading(1, 1.0))
    site.drain()
    shutil.copytree(site.settings.lake, f"{site.settings.lake}-before")
    site.receive(reading(2, 2.0), GARBAGE)
    site.drain()
    whole, refused = site.rows(), site.rows(Quarantine)
    for table in ("readings", "quarantine"):
        shutil.rmtree(f"{site.settings.lake}/{table}")
        shutil.copytree(f"{site.settings.lake}-before/{table}", f"{site.settings.lake}/{table}")
    assert site.drain()[0] == 2
    assert (site.values(), site.rows(Quarantine).equals(refused), len(whole)) == ([1.0, 2.0], True, 2)
    assert "lost its tail: messages 2 to 3" in caplog.text


def test_what_a_lost_tail_brings_again_is_as_late_as_it_was(site) -> None:
    """Shown to fail by judging it by the catalog, which has seen the newest of it: all else of the tail is then late."""
    site.receive(reading(1, 1.0))
    site.drain()
    shutil.copytree(f"{site.settings.lake}/readings", f"{site.settings.lake}-before")
    site.receive(reading(2, 2.0), at=NOON + 11 * MINUTE)
    site.receive(reading(8, 3.0), reading(2.5, 4.0), at=NOON + 12 * MINUTE)  # the second is late
    site.receive(reading(9, 5.0), at=NOON + 200 * MINUTE)  # after a silence: late too
    site.drain()
    whole = site.rows()
    shutil.rmtree(f"{site.settings.lake}/readings")
    shutil.copytree(f"{site.settings.lake}-before", f"{site.settings.lake}/readings")
    assert site.drain()[4] == 2
    assert site.rows().equals(whole)


def test_messages_that_neither_has_any_more_are_told_loudly(tmp_path, caplog) -> None:
    site = Site(tmp_path / "lake", state=str(tmp_path / "state"), listen={"keep_messages": 0})
    site.receive(reading(1, 1.0), reading(2, 2.0))
    site.drain()
    shutil.rmtree(site.settings.lake)
    site.receive(reading(3, 3.0))
    assert site.drain()[0] == 1
    assert "messages 1 to 2 are in neither" in caplog.text


def test_an_inbox_from_an_old_copy_loses_no_new_message(site, caplog) -> None:
    """Shown to fail by trusting the numbers: the next messages bore some that the lake had already."""
    site.receive(reading(-3000, 0.0), at=NOON - timedelta(days=2))
    site.receive(reading(1, 1.0))
    site.drain()
    old = site.settings.state_dir / "inbox.db"
    shutil.copy(old, f"{old}-copy")
    site.receive(reading(2, 2.0), reading(3, 3.0))
    site.drain()
    shutil.copy(f"{old}-copy", old)
    site.receive(reading(4, 4.0))
    assert site.drain()[2] == 1
    assert site.values() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert "is older than the lake" in caplog.text
    assert "in neither" not in caplog.text


def test_messages_are_kept_for_as_long_as_the_settings_say(site) -> None:
    site.receive(reading(1, 1.0))
    site.receive(reading(2, 2.0), at=NOON + 40 * MINUTE)
    site.clock.instant = NOON + timedelta(days=1, minutes=20)
    site.drain()
    assert [one.seq for one in Inbox(site.settings.state_dir).read(0, max_messages=9, max_bytes=9_999)] == [2]


def test_an_inbox_that_is_nearly_full_forgets_earlier(tmp_path) -> None:
    site = Site(tmp_path, listen={"max_inbox_bytes": 1024**2})
    site.receive(*(b"x" * 100_000 for _ in range(10)))
    site.drain()
    assert not Inbox(site.settings.state_dir).is_full(850_000)


def test_a_message_that_came_during_the_drain_counts_for_what_it_read_alone(site, monkeypatch) -> None:
    """Shown to fail by looking at the first message behind those that were forgotten: it had come too late for this drain."""
    site.receive(reading(1, 1.0))
    site.clock.instant = NOON + timedelta(days=2)
    trim = Inbox.trim

    def trim_and_receive(self, *given, **more):
        trimmed = trim(self, *given, **more)
        site.clock.instant += MINUTE
        site.receive(reading(2, 2.0), at=site.clock.instant)
        return trimmed

    monkeypatch.setattr(Inbox, "trim", trim_and_receive)
    assert drain(site.settings, site.clock).until == NOON + timedelta(days=2)


def test_a_lake_that_was_moved_away_is_not_made_anew_and_goes_on_when_it_is_back(tmp_path):
    """Shown to fail by making what is missing: an empty lake and inbox stood in the way of the one that was moved back."""
    site, away = Site(tmp_path / "lake"), tmp_path / "away"
    site.receive(reading(1, 1.0))
    site.drain()
    inbox = Inbox(site.settings.state_dir)
    (tmp_path / "lake").rename(away)
    assert site.drain() == (0, 0, 0, 0, 0, 0, 0)
    with pytest.raises(StoreError, match="The inbox requires"):
        inbox.put([Message("mqtt", "site/d", json.dumps(reading(2, 2.0)).encode(), NOON)])
    assert not (tmp_path / "lake").exists()
    away.rename(tmp_path / "lake")
    inbox.put([Message("mqtt", "site/d", json.dumps(reading(3, 3.0)).encode(), NOON + 10 * MINUTE)])
    assert site.drain() == (1, 1, 1, 0, 0, 0, 2)
