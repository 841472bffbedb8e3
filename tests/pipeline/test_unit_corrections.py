"""A metric's unit is the first that came, until somebody declares it: then all that was stored comes right."""

import json
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from pipeline.clock import ReplayClock
from pipeline.listen.drain import drain
from pipeline.listen.inbox import Inbox
from pipeline.listen.replay import replay_quarantine
from pipeline.payloads.message import Message
from pipeline.prepare.regularise import regularise
from pipeline.schemas import Observations, Readings
from pipeline.settings import MetricSettings, PrepareSettings, Settings
from pipeline.store.catalog import Catalog
from pipeline.store.lake import Lake

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
CLOCK = ReplayClock(NOON + timedelta(days=1))


class Site:
    """A lake, with the metric t in a declared unit or in the first that comes."""

    def __init__(self, folder, unit=None):
        self.settings = Settings(
            lake=str(folder), metrics={"t": MetricSettings(unit=unit)}, prepare=PrepareSettings(sample_interval=MINUTE)
        )

    def receive(self, *readings):
        """Take in (device, minute, value, unit), a message each, and bring them to the observations."""
        inbox = Inbox(self.settings.state_dir)
        for device, minute, value, unit in readings:
            said = {"device_id": device, "metric": "t", "ts": (NOON + minute * MINUTE).isoformat(), "value": value, "unit": unit}
            inbox.put([Message("mqtt", "site", json.dumps(said).encode(), NOON + minute * MINUTE)])
        inbox.close()
        drain(self.settings, CLOCK)
        return self.observed()

    def observed(self):
        """Regularise; return series, minute and value of each observation."""
        regularise(self.settings, CLOCK)
        rows = Lake(self.settings.lake).scan(Observations).drop_nulls("value").sort(Observations.key).collect()
        return [(row["series_id"], (row["ts"] - NOON) // MINUTE, pytest.approx(row["value"])) for row in rows.to_dicts()]

    def units(self):
        """Return the units of the series in the catalog."""
        return set(Catalog(self.settings.state_dir).series()["unit"])


SENT = [("faulty", 0, 50.0, "degF"), ("a", 0, 20.0, "degC"), ("a", 1, 293.65, "K"), ("b", 0, 30.0, None)]
TRUTH = [("a/t", 0, 20.0), ("a/t", 1, 20.5), ("b/t", 0, 30.0), ("faulty/t", 0, 10.0)]


def test_what_was_stored_in_the_first_unit_comes_right_when_it_is_declared(tmp_path) -> None:
    """Shown to fail by leaving stored values as they are, and by writing down the metric's unit where a reading named none."""
    first = Site(tmp_path / "lake").receive(*SENT)
    assert [value for _, _, value in first] == [68.0, 68.9, 30.0, 50.0]
    declared = Site(tmp_path / "lake", "degC")
    assert declared.observed() == TRUTH
    assert declared.units() == {"degC"}
    assert declared.receive(("a", 2, 21.0, "degC")) == sorted([*TRUTH, ("a/t", 2, 21.0)], key=lambda row: row[:2])
    assert Site(tmp_path / "lake").observed() == declared.observed()


def test_a_first_unit_that_nothing_converts_to_costs_no_reading_of_the_others(tmp_path, caplog) -> None:
    site = Site(tmp_path / "lake")
    assert site.receive(("faulty", 0, 7.0, "widgets"), *SENT[1:]) == [("b/t", 0, 30.0), ("faulty/t", 0, 7.0)]
    site = Site(tmp_path / "lake", "degC")
    assert replay_quarantine(site.settings, CLOCK).accepted == 2
    assert site.observed() == TRUTH[:3]
    assert "left out num_readings=1 in units that do not convert, as widgets of faulty/t" in caplog.text


def test_readings_keep_the_unit_they_were_stored_in(tmp_path) -> None:
    site = Site(tmp_path / "lake")
    site.receive(*SENT)
    Site(tmp_path / "lake", "degC").observed()
    stored = Lake(site.settings.lake).scan(Readings).collect()
    assert set(stored.filter(pl.col("device_id") != "b")["unit"]) == {"degF"}
    assert stored.filter(device_id="b").select("value", "unit").rows() == [(30.0, None)]
