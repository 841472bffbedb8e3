"""Quarantined messages, parsed again: what is good now becomes the readings it would have been, once."""

import json
import shutil
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake
from typer.testing import CliRunner

from flows.cli import app
from pipeline.clock import ReplayClock
from pipeline.errors import SettingsError
from pipeline.ingest.ingest import IngestOptions, ingest_paths
from pipeline.ingest.validate import ACCEPTABLE
from pipeline.listen.drain import drain
from pipeline.listen.inbox import Inbox
from pipeline.listen.replay import replay_quarantine
from pipeline.payloads.message import CUT_SHORT, Message
from pipeline.payloads.sparkplug import MISSING_BIRTH
from pipeline.schemas import Quarantine, Readings
from pipeline.settings import IngestSettings, ListenSettings, MetricSettings, Route, Settings
from pipeline.store.catalog import Catalog
from pipeline.store.known_units import KnownUnits
from pipeline.store.lake import Lake
from tests.messages import sparkplug

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
LATIN_SENML = "application/senml+json; charset=iso-8859-1"


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

    def with_route(self, **route):
        """Return the same lake under one route."""
        site = Site(self.settings.lake)
        site.settings = site.settings.model_copy(update={"listen": ListenSettings(routes=(Route(**route),))})
        return site

    def receive(self, *payloads, topic="site/d", content_type=None):
        """Take messages in, and drain them."""
        self.receive_messages(*(Message("mqtt", topic, json.dumps(payload).encode(), NOON, content_type) for payload in payloads))

    def receive_messages(self, *messages):
        """Take messages in, as they are, and drain them."""
        with closing(Inbox(self.settings.state_dir)) as inbox:
            inbox.put([replace(message, received_at=NOON) for message in messages])
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


def test_a_payload_is_read_again_under_the_content_type_that_it_came_with(site) -> None:
    """Shown to fail by a quarantine without it: the bytes are no UTF-8, and a record of SenML is read without its base."""
    pack = [{"bn": "größe/", "bt": NOON.timestamp() - 5, "n": "x", "v": 1}, {"n": "t", "u": "bar", "v": 5}]
    site.receive_messages(Message("mqtt", "a", json.dumps(pack, ensure_ascii=False).encode("latin-1"), NOON, LATIN_SENML))
    site = site.with_unit("kPa")
    assert site.replay() == (1, 0, 0, {})
    assert site.table().filter(metric="t").select("series_id", "ts", "value").row(0) == ("größe/t", NOON - timedelta(seconds=5), 500.0)


def test_an_item_that_was_cut_out_of_another_character_set_is_read_again(site) -> None:
    """Shown to fail by keeping the character set of the message."""
    array = json.dumps([reading(1.0, days_ago=1), reading(5.0, unit="bar", note="größe")], ensure_ascii=False)
    site.receive_messages(Message("mqtt", "a", array.encode("utf-16"), NOON, "application/json; charset=utf-16"))
    assert site.with_unit("kPa").replay() == (1, 0, 0, {})


def test_a_route_mends_a_wrong_content_type(site) -> None:
    site.receive(reading(5.0), content_type="application/vnd.influx.line-protocol")
    assert site.replay() == (0, 0, 1, {"unparseable_message": 1})
    assert site.with_route(format="json").replay() == (1, 0, 0, {})


def test_a_quarantine_of_before_is_read_and_gains_what_was_not_kept(site) -> None:
    """Shown to fail by a write that adds no columns."""
    lake = Lake(site.settings.lake)
    lake.create_all()
    shutil.rmtree(lake.table_uri(Quarantine))
    kept = {name: dtype for name, dtype in Quarantine.columns.items() if name not in Quarantine.added}
    DeltaTable.create(lake.table_uri(Quarantine), pl.Schema(kept), partition_by=["ingest_date"])
    row = ("mqtt:site/d", "a", json.dumps(reading(5.0)).encode(), "unknown_format", "", NOON, NOON.date())
    write_deltalake(lake.table_uri(Quarantine), pl.DataFrame([row], schema=kept, orient="row"), mode="append")
    assert site.replay(is_dry_run=True)[0] == 1
    site.receive("no reading", content_type="application/json")
    assert sorted(site.table(Quarantine)["content_type"], key=str) == [None, "application/json"]
    assert site.replay() == (1, 0, 1, {"unknown_format": 1})


def test_a_sparkplug_metric_is_read_again_by_the_births_before_it(site) -> None:
    """Shown to fail by a quarantine without births, and by those of the message before it in the same replay."""
    for number, name in enumerate((b"t", b"u")):
        birth = sparkplug("DBIRTH", {"name": name, "alias": 1, "datatype": 3, "is_null": True}, device="d")
        data = sparkplug("DDATA", {"alias": 1, "int_value": 5}, device="d", seq=number, at=NOON - 60 * DAY)
        site.receive_messages(birth, data)
    site.receive_messages(sparkplug("NBIRTH"), sparkplug("DDATA", {"alias": 1, "int_value": 5}, device="d", at=NOON - DAY))
    assert site.replay(accept=("stale_timestamp",)) == (2, 0, 4, {"no_reading": 3, "missing_birth": 1})
    assert sorted(site.table()["series_id"]) == ["plant/gateway/d/t", "plant/gateway/d/u"]


def test_a_missing_birth_is_made_up_for_by_a_later_one_on_a_persons_word_alone(site) -> None:
    """Shown to fail by numbering the metrics that are read: the text, whose name nobody knew, shifts the others."""
    named = {"name": b"v", "datatype": 10, "double_value": 1.0}
    site.receive_messages(sparkplug("NDATA", {"alias": 1, "string_value": b"on"}, {"alias": 2, "int_value": 5}, named, at=NOON))
    assert sorted(site.table(Quarantine)["error_code"]) == ["missing_birth", "missing_birth"]
    births = [{"name": b"s", "alias": 1, "datatype": 12, "is_null": True}, {"name": b"t", "alias": 2, "datatype": 3, "is_null": True}]
    site.receive_messages(sparkplug("NBIRTH", *births))
    assert site.replay()[:2] == (0, 0)
    assert site.replay(accept=("missing_birth",)) == (1, 0, 2, {"no_reading": 2})  # the birth, and the text
    assert site.table().filter(metric="t")["value"].to_list() == [5.0]


def test_a_person_may_have_data_read_by_the_births_of_a_node_that_has_died_since(site) -> None:
    """Shown to fail by taking the newest deaths with the newest births."""
    birth, session = {"name": b"t", "alias": 1, "datatype": 3, "is_null": True}, {"name": b"bdSeq", "datatype": 4, "long_value": 1}
    site.receive_messages(sparkplug("NDATA", {"alias": 1, "int_value": 5}, at=NOON))
    site.receive_messages(sparkplug("NBIRTH", session, birth), sparkplug("NDEATH", session))
    site.receive_messages(sparkplug("NDATA", {"alias": 1, "int_value": 6}, seq=1, at=NOON))
    assert site.table(Quarantine).filter(error_code="missing_birth").height == 2
    assert site.replay(accept=("missing_birth",))[:2] == (2, 0)


def test_series_beyond_the_limit_come_back_when_it_is_raised(site) -> None:
    """Shown to fail by refusing every reading once the registry is full."""
    site.settings = site.settings.model_copy(update={"ingest": IngestSettings(max_series=2)})
    site.receive(reading(1.0), reading(2.0, device_id="e"), reading(3.0, device_id="f"), reading(4.0, days_ago=1))
    assert site.table()["value"].sort().to_list() == [1.0, 2.0, 4.0]
    assert site.replay() == (0, 0, 1, {"too_many_series": 1})
    site.settings = site.settings.model_copy(update={"ingest": IngestSettings(max_series=3)})
    assert site.replay() == (1, 0, 0, {})
    assert site.table()["series_id"].unique().sort().to_list() == ["d/t", "e/t", "f/t"]


def test_rows_of_files_are_named_and_left(site, tmp_path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("ts,value\n2026-05-01T00:00:00Z,1\n2026-05-02T00:00:00Z,none of it\n")
    ingest_paths(site.settings, [file], IngestOptions(), site.clock)
    report = replay_quarantine(site.settings, site.clock)
    assert (report.payloads, report.files) == (0, {"file:x.csv": 1})


def test_the_verb_says_what_became_of_the_payloads(site, tmp_path) -> None:
    site.receive(reading(1.0, days_ago=60), reading("[red]"))
    shown = CliRunner().invoke(app, ["replay-quarantine", "--lake", site.settings.lake, "--dry-run", "--accept", "stale_timestamp"])
    assert "Payloads read again: 2. Readings that would be stored: 1; there already: 0. Payloads that still hold none: 1." in shown.stdout
    told = CliRunner().invoke(app, ["replay-quarantine", "--lake", site.settings.lake, "--json", "--accept", "stale_timestamp"])
    assert json.loads(told.stdout)["reasons"] == {"not_a_number": 1}
    assert len(site.table()) == 1


def test_the_verb_names_every_reason_that_a_person_may_overrule() -> None:
    shown = CliRunner().invoke(app, ["replay-quarantine", "--help"], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"}).stdout
    assert [code for code in (*ACCEPTABLE, MISSING_BIRTH) if code not in shown] == []
