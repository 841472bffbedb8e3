"""Who forecasts: a holder that renews its lease, whatever any wall clock says."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from unittest.mock import Mock

import pytest

from pipeline.clock import ReplayClock
from pipeline.errors import StoreError
from pipeline.forecast.leadership import LENGTH, PROCESS, Candidate, Leadership, lease_name
from pipeline.schemas import EPOCH
from pipeline.settings import Settings
from pipeline.store.lake import Lake
from pipeline.store.lease import Leases

SECOND = timedelta(seconds=1)


@dataclass
class JumpingClock(ReplayClock):
    """A clock that is corrected by an hour, to and fro, each time somebody asks it what time it is."""

    correction: timedelta = timedelta(hours=1)

    def now(self) -> datetime:
        """Return the instant, and correct the clock."""
        self.correction = -self.correction
        return self.instant + self.correction


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(lake=str(tmp_path))
    Lake(made.lake).create_all()
    return made


def held_elsewhere(settings: Settings) -> tuple[Leases, int]:
    """Let a process of another machine take the lease."""
    leases = Leases(settings.state_dir)
    token = leases.take(lease_name(settings), f"elsewhere{PROCESS}1")
    assert token == 1
    return leases, token


def test_a_holder_that_renews_is_never_replaced_and_a_silent_one_is_after_its_length(settings: Settings) -> None:
    """Shown to fail by ends of leases in wall-clock time: an hour back kept a dead holder for it, one ahead replaced a live one."""
    leases, token = held_elsewhere(settings)
    clock = JumpingClock(EPOCH)
    standby = Candidate(settings, clock)
    for _ in range(40):
        assert standby.ask() is None
        clock.advance(SECOND)
        leases.renew(lease_name(settings), token)
    assert standby.ask() is None
    clock.advance(LENGTH - SECOND)
    assert standby.ask() is None
    clock.advance(SECOND)
    taken = standby.ask()
    assert taken is not None
    assert taken.fence.token == token + 1


def test_a_process_of_this_machine_that_has_ended_need_not_be_waited_for(settings: Settings) -> None:
    taken = Candidate(settings, ReplayClock(EPOCH)).ask()
    assert taken is not None
    leases = Leases(settings.state_dir)
    holder = leases.holder(taken.name)
    assert holder is not None
    machine, _, _ = holder.name.rpartition(PROCESS)
    leases.release(taken.name, taken.fence.token)
    assert leases.take(taken.name, f"{machine}{PROCESS}{2**22 + 1}") == 2  # no process has so high a number
    assert Candidate(settings, ReplayClock(EPOCH)).ask() is not None


@pytest.mark.parametrize(("is_alive", "looks"), [(True, 2), (False, LENGTH // SECOND + 1)])
def test_a_single_run_watches_a_holder_of_another_machine_until_it_knows(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, is_alive: bool, looks: int
) -> None:
    """Shown to fail by a run that gives up at once: no snapshot was ever written again after its container was killed."""
    leases, token = held_elsewhere(settings)
    clock, slept = ReplayClock(EPOCH), []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.advance(timedelta(seconds=seconds))
        if is_alive:
            leases.renew(lease_name(settings), token)

    monkeypatch.setattr("pipeline.forecast.leadership.time.sleep", sleep)
    assert (Leadership.take(settings, clock) is None) == is_alive
    assert len(slept) == looks - 1


def test_a_single_run_watches_a_holder_for_no_longer_than_a_lease(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown to fail by a last look that is slept through and then not taken."""
    held_elsewhere(settings)
    slept: list[float] = []
    monkeypatch.setattr("pipeline.forecast.leadership.time.sleep", slept.append)
    assert Leadership.take(settings, ReplayClock(EPOCH)) is None
    assert sum(slept) == LENGTH.total_seconds()


def test_a_lease_that_could_not_be_claimed_is_given_back(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown to fail by raising alone: the next attempt stood by for its own process."""
    clock = ReplayClock(EPOCH)
    taken = Candidate(settings, clock).ask()
    assert taken is not None
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.forecast.leadership.claim_forecasts", Mock(side_effect=StoreError("disk full")))
        with pytest.raises(StoreError, match="disk full"):
            taken.claim(settings)
    assert Candidate(settings, clock).ask() is not None


def test_a_lease_that_cannot_be_released_hides_no_fault_of_the_block(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Shown to fail by a release that raises at the end of the block."""
    taken = Candidate(settings, ReplayClock(EPOCH)).ask()
    assert taken is not None
    monkeypatch.setattr(Leases, "release", Mock(side_effect=StoreError("disk full")))
    with pytest.raises(ZeroDivisionError), taken.renewed():
        _ = 1 / 0
    assert "lease not released" in caplog.text
