"""Quarantined messages, parsed again: what is good now becomes the readings it would have been, once."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from flows.cli import app
from pipeline.clock import ReplayClock
from pipeline.errors import SettingsError
from pipeline.ingest.ingest import IngestOptions, ingest_paths
from pipeline.listen.drain import drain
from pipeline.listen.inbox import Inbox
from pipeline.listen.replay import replay_quarantine
from pipeline.payloads.message import CUT_SHORT, Message
from pipeline.schemas import Quarantine, Readings
from pipeline.settings import MetricSettings, Settings
from pipeline.store.catalog import Catalog
from pipeline.store.known_units import KnownUnits
from pipeline.store.lake import Lake

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def reading(value: float | str, *, days_ago: float = 0, **more: object) -> dict[str, object]:
    return {"device_id": "d", "metric": "t", "ts": (NOON - days_ago * DAY).isoformat(), "value": value, **more}


class Site:
    """A lake whose metric t is in degC, with an inbox and a clock."""

    def __init__(self, folder, unit="degC"):
        self.settings = Settings(lake=str(folder), metrics={"t": MetricSettings(unit=unit)})
        self.clock = ReplayClock(NOON + DAY)

    def with_unit(self, unit):
        """Return the same lake under other settings."""
        return Site(self.settings.lake, unit)

    def receive(self, *payloads, topic="site/d", content_type=None):
        """Take messages in, and drain them."""
        inbox = Inbox(self.settings.state_dir)
        inbox.put([Message("mqtt", topic, json.dumps(payload).encode(), NOON, content_type) for payload in payloads])
        inbox.close()
        drain(self.settings, self.clock)

    def replay(self, **options):
        """Replay and return accepted, duplicate, refused and the reasons."""
        report = replay_quarantine(self.settings, self.clock, **options)
        return report.accepted, report.duplicate, report.refused, report.reasons

    def table(self, schema=Readings):
        """Read one whole table."""
        return Lake(self.settings.lake).scan(schema).collect()


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path / "lake")


def test_what_another_unit_makes_good_becomes_readings_as_they_came(site) -> None:
    site.receive(reading(5.0, unit="bar"), reading("soon", days_ago=1))
    site = site.with_unit("kPa")
    assert site.replay() == (1, 0, 1, {"not_a_number": 1})
    assert site.table().select("source", "series_id", "value", "unit", "received_at").row(0) == ("mqtt:site/d", "d/t", 500.0, "kPa", NOON)
    assert Catalog(site.settings.state_dir).series().select("series_id", "last_ts").row(0) == ("d/t", NOON)


def test_a_replay_may_be_repeated(site) -> None:
    site.receive(reading(5.0, unit="bar"), reading(6.0, unit="bar", days_ago=1))
    site = site.with_unit("kPa")
    assert site.replay()[:2] == (2, 0)
    assert site.replay()[:2] == (0, 2)
    assert (len(site.table()), len(site.table(Quarantine))) == (2, 2)


def test_of_a_message_only_the_readings_that_were_refused_are_taken(site) -> None:
    """Shown to fail by taking all that a payload holds: where it is the whole message, its good readings were stored once more."""
    site.receive([reading(1.0, days_ago=1), reading(5.0, unit="bar"), reading("x", days_ago=2)])
    assert len(site.table()) == 1
    site = site.with_unit("kPa")
    assert site.replay() == (1, 0, 1, {"not_a_number": 1})


def test_a_stale_stamp_is_let_in_by_a_person_alone(site) -> None:
    site.receive(reading(1.0, days_ago=60))
    assert site.replay() == (0, 0, 1, {"stale_timestamp": 1})
    assert site.replay(accept=("stale_timestamp",)) == (1, 0, 0, {})
    with pytest.raises(SettingsError, match="--accept requires one of"):
        site.replay(accept=("not_a_number",))


def test_what_was_ahead_of_our_clock_is_let_in_by_a_person_alone_and_never_before_its_time(site) -> None:
    site.receive(reading(1.0, days_ago=-2))
    assert site.replay(accept=("future_timestamp",)) == (0, 0, 1, {"future_timestamp": 1})
    site.clock.advance(timedelta(days=1))
    assert site.replay() == (0, 0, 1, {"future_timestamp": 1})
    assert site.replay(accept=("future_timestamp",)) == (1, 0, 0, {})


def test_a_dry_run_writes_nothing(site) -> None:
    site.receive(reading(5.0, unit="bar"), {**reading(7.0, days_ago=60, unit="W"), "metric": "power"})
    site, lake = site.with_unit("kPa"), Lake(site.settings.lake)
    before, series = [lake.version(schema) for schema in (Readings, Quarantine)], Catalog(site.settings.state_dir).series()
    assert site.replay(is_dry_run=True, accept=("stale_timestamp",))[0] == 2
    assert [lake.version(schema) for schema in (Readings, Quarantine)] == before
    assert Catalog(site.settings.state_dir).series().equals(series)
    assert KnownUnits(site.settings.state_dir).settle({"power": "kW"}) == {"power": "kW"}


def test_connectors_are_chosen_by_pattern(site) -> None:
    for topic in ("site/a", "site/b"):
        site.receive(reading(5.0, unit="bar", days_ago=len(topic) + ord(topic[-1]) / 100), topic=topic)
    assert site.with_unit("kPa").replay(connector="mqtt:*/b")[0] == 1


def test_the_beginning_of_a_message_is_never_a_reading(site) -> None:
    site.receive(reading(5.0), content_type=CUT_SHORT)
    assert site.table(Quarantine)["error_code"].to_list() == ["too_long"]
    assert site.replay() == (0, 0, 1, {"too_long": 1})


def test_rows_of_files_are_named_and_left(site, tmp_path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("ts,value\n2026-05-01T00:00:00Z,1\n2026-05-02T00:00:00Z,none of it\n")
    ingest_paths(site.settings, [file], IngestOptions(), site.clock)
    report = replay_quarantine(site.settings, site.clock)
    assert (report.payloads, report.files) == (0, {"file:x.csv": 1})


def test_the_verb_says_what_became_of_the_payloads(site, tmp_path) -> None:
    site.receive(reading(1.0, days_ago=60), reading("[red]"))
    shown = CliRunner().invoke(app, ["replay-quarantine", "--lake", site.settings.lake, "--dry-run", "--accept", "stale_timestamp"])
    assert "2 payloads: 1 readings would be stored, 0 were there already, 1 payloads still hold none." in shown.stdout
    told = CliRunner().invoke(app, ["replay-quarantine", "--lake", site.settings.lake, "--json", "--accept", "stale_timestamp"])
    assert json.loads(told.stdout)["reasons"] == {"not_a_number": 1}
    assert len(site.table()) == 1
