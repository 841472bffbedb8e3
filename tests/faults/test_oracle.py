"""The oracle, on a lake whose stages are made to skip or to make up: what it is there to see."""

from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest

from flows.closing import close_ticks
from pipeline.clock import ReplayClock
from pipeline.listen.drain import drain
from pipeline.listen.inbox import Inbox
from pipeline.payloads.message import Message
from pipeline.prepare import regularise as stage
from pipeline.settings import IngestSettings, PrepareSettings, Settings
from pipeline.store.lake import Lake
from tests.faults.fleet import Fleet
from tests.faults.oracle import Account, ForecastAccount, acknowledged, wrong_ticks
from tests.faults.outcome import Outcome

FLEET = Fleet(num_devices=2, start="2026-03-02T00:00:00+00:00", interval_s=5)
SKIPPED = ("d00001/temperature", FLEET.reading(1, 3).ts)


@pytest.fixture
def settings(tmp_path):
    lake = str(tmp_path / "lake")
    Lake(lake).create_all()
    return Settings(lake=lake, ingest=IngestSettings(allowed_lateness="PT1S"), prepare=PrepareSettings(sample_interval="PT5S"))


def acknowledge(settings, ticks, device=None):
    """Put readings into the inbox, each half a second after its stamp."""
    devices = range(FLEET.num_devices) if device is None else [device]
    readings = [FLEET.reading(one, tick) for tick in ticks for one in devices]
    inbox = Inbox(settings.state_dir)
    inbox.put([Message("mqtt", one.topic, one.payload(), one.ts + timedelta(seconds=0.5)) for one in readings])
    inbox.close()


def close(settings, tick):
    """Close the ticks up to one."""
    close_ticks(settings, ReplayClock(FLEET.reading(0, tick).ts + settings.ingest.allowed_lateness))


def left_out(frame):
    """Return a frame without the row of one tick."""
    grid = pl.col("tick") * 5_000_000 == pl.lit(SKIPPED[1]).dt.timestamp("us") if "tick" in frame.columns else pl.col("ts") == SKIPPED[1]
    return frame.filter(~(grid & (pl.col("series_id") == SKIPPED[0])))


def test_a_lake_of_which_every_reading_is_observed_has_no_wrong_ticks(settings):
    acknowledge(settings, range(6))
    close(settings, 5)
    assert wrong_ticks(settings, FLEET).is_empty()


def test_what_was_stored_or_closed_only_after_the_follower_had_ended_is_not_wrong(settings):
    acknowledge(settings, range(4), device=0)
    acknowledge(settings, range(2), device=1)
    close(settings, 2)
    acknowledge(settings, range(2, 6), device=1)
    drain(settings, ReplayClock(FLEET.reading(0, 6).ts))
    assert wrong_ticks(settings, FLEET).is_empty()


@pytest.mark.parametrize("stage_of", ["due_ticks", "observe"])
def test_a_stored_reading_whose_closed_tick_has_no_observation_is_wrong(settings, monkeypatch, stage_of):
    acknowledge(settings, range(6))
    true = getattr(stage, stage_of)
    monkeypatch.setattr(stage, stage_of, lambda *args, **options: left_out(true(*args, **options)))
    close(settings, 5)
    monkeypatch.undo()
    assert wrong_ticks(settings, FLEET).rows() == [SKIPPED]


def test_a_tick_that_was_left_out_is_wrong_even_where_the_next_close_brings_it(settings, monkeypatch):
    acknowledge(settings, range(4))
    true = stage.due_ticks
    monkeypatch.setattr(stage, "due_ticks", lambda *args: left_out(true(*args)))
    close(settings, 3)
    monkeypatch.undo()
    acknowledge(settings, [4])
    assert wrong_ticks(settings, FLEET).rows() == [SKIPPED]


def test_a_reading_that_was_stored_after_the_follower_had_ended_and_is_never_observed_is_wrong(settings, monkeypatch):
    acknowledge(settings, range(3))
    close(settings, 2)
    acknowledge(settings, range(3, 6))
    true = stage.due_ticks
    monkeypatch.setattr(stage, "due_ticks", lambda *args: left_out(true(*args)))
    assert wrong_ticks(settings, FLEET).rows() == [SKIPPED]


def test_an_observation_of_another_value_is_wrong(settings, monkeypatch):
    acknowledge(settings, range(6))
    true = stage.observe
    monkeypatch.setattr(stage, "observe", lambda *args, **options: true(*args, **options).with_columns(pl.col("value") + 1))
    close(settings, 5)
    monkeypatch.undo()
    assert len(wrong_ticks(settings, FLEET)) == 12


def test_a_ledger_names_each_reading_once(tmp_path):
    ledger = tmp_path / "ledger"
    ledger.write_text("d00000 1\nd00001 4\nd00000 1\n")
    expected = [(one.series_id, one.ts, one.value) for one in (FLEET.reading(0, 1), FLEET.reading(1, 4))]
    assert acknowledged(ledger, FLEET).rows() == expected


@pytest.mark.parametrize("forecasts", [ForecastAccount(0, 0, 0), ForecastAccount(5, 1, 0), ForecastAccount(5, 0, 1)])
def test_a_run_with_a_follower_requires_forecasts_each_of_them_once(forecasts):
    outcome = Outcome("followed", readings=Account(5, 5, 0, 0, 0), forecasts=ForecastAccount(5, 0, 0))
    assert outcome.is_whole
    assert replace(outcome, forecasts=None).is_whole
    assert not replace(outcome, forecasts=forecasts).is_whole
