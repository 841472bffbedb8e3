"""A tick closes on everything that was acknowledged before it did, drained or not."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from unittest.mock import Mock

import pytest
from polars.exceptions import PanicException

from flows.closing import close_ticks, take_in
from pipeline.clock import ReplayClock
from pipeline.errors import StoreError
from pipeline.listen.inbox import Inbox, Stored
from pipeline.payloads.message import Message
from pipeline.prepare.regularise import regularise
from pipeline.settings import Settings
from pipeline.store.lake import Lake
from pipeline.store.observations import read_observations
from tests.arrivals import arrive
from tests.lakes import HOUR, START, TestLake, hourly_readings

NUM_HOURS, SERIES = 40, "north/temperature"
CLOSES = START + NUM_HOURS * HOUR + 1.5 * HOUR / 60


@pytest.fixture
def lake(tmp_path: Path) -> TestLake:
    """A lake of forty hours, and a reading of the next that waits in the inbox."""
    lake = TestLake.at(tmp_path)
    lake.ingest(hourly_readings(NUM_HOURS))
    payload = {"device_id": "north", "metric": "temperature", "ts": (START + NUM_HOURS * HOUR).isoformat(), "value": 7.5}
    with closing(Inbox(lake.settings.state_dir)) as inbox:
        inbox.put([Message("mqtt", "site", json.dumps(payload).encode(), CLOSES)], ReplayClock(CLOSES - HOUR / 60))
    return lake


def newest(lake: TestLake) -> float:
    return float(read_observations(Lake(lake.settings.lake), series=[SERIES]).sort("ts")["value"][-1])


def test_a_tick_closes_on_what_the_inbox_holds(lake: TestLake) -> None:
    """Shown to fail by closing without a drain."""
    regularise(lake.settings, ReplayClock(CLOSES))
    assert newest(lake) != 7.5
    close_ticks(lake.settings, ReplayClock(CLOSES))
    assert newest(lake) == 7.5


def test_ticks_are_closed_to_the_instant_up_to_which_the_readings_are_complete(lake: TestLake) -> None:
    assert take_in(lake.settings, ReplayClock(CLOSES)).until == CLOSES


def test_what_is_stored_after_the_readings_were_settled_is_left_to_the_next_tick(lake: TestLake) -> None:
    """It came after the instant up to which ticks close. Shown to fail by reading the newest version of the readings."""
    until, version = take_in(lake.settings, ReplayClock(CLOSES))
    arrive(lake.settings, [(SERIES, START + NUM_HOURS * HOUR, 9.5, CLOSES + HOUR / 120)])
    for _ in range(2):  # a run that is repeated takes no more
        regularise(lake.settings, ReplayClock(until), version)
        assert newest(lake) == 7.5
    regularise(lake.settings, ReplayClock(CLOSES + HOUR / 60))
    assert newest(lake) == 9.5


def test_messages_that_come_while_it_drains_count_as_in_time(lake: TestLake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown to fail by the instant of the drain's begin: what came meanwhile was known to ticks that close before it."""
    clock, read = ReplayClock(CLOSES), Inbox.read

    def coming(inbox: Inbox, after: int, **limits: int) -> list[Stored]:
        found = read(inbox, after, **limits)
        if found and clock.instant == CLOSES:
            clock.advance(HOUR / 3600)
            inbox.put([Message("mqtt", "site", b"garbage", clock.now())], clock)
        return found

    monkeypatch.setattr(Inbox, "read", coming)
    assert take_in(lake.settings, clock).until == CLOSES + HOUR / 3600


def test_an_inbox_that_cannot_be_read_does_not_stop_the_forecasts(lake: TestLake, caplog: pytest.LogCaptureFixture) -> None:
    with closing(sqlite3.connect(lake.settings.state_dir / "inbox.db")) as connection:
        connection.execute("DROP TABLE messages")
    assert take_in(lake.settings, ReplayClock(CLOSES)).until == CLOSES
    assert "without what waits in the inbox" in caplog.text


@pytest.mark.parametrize("failure", [PanicException("rust"), ValueError("poison")], ids=repr)
def test_a_drain_that_fails_in_any_way_does_not_stop_the_forecasts(
    lake: TestLake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, failure: BaseException
) -> None:
    """What is no fault of the store is told with its traceback. Shown to fail by catching what the store says alone."""
    monkeypatch.setattr(Inbox, "read", Mock(side_effect=failure))
    assert take_in(lake.settings, ReplayClock(CLOSES)) == (CLOSES, None)
    assert "without what waits in the inbox" in caplog.text
    assert "Traceback" in caplog.text


def test_without_an_inbox_none_is_made(tmp_path: Path) -> None:
    lake = TestLake.at(tmp_path)
    assert take_in(lake.settings, ReplayClock(CLOSES)).until == CLOSES
    assert not (lake.settings.state_dir / "inbox.db").exists()


def test_a_mistyped_lake_gets_no_state_folder(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="requires the table observations"):
        close_ticks(Settings(lake=str(tmp_path / "typo")), ReplayClock(CLOSES))
    assert list(tmp_path.iterdir()) == []
