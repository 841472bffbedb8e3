"""Leases: one holder at a time, and a token that tells a replaced one."""

from pathlib import Path

import pytest

from pipeline.errors import LeaseLostError, StoreError
from pipeline.schemas import Forecasts
from pipeline.store.commits import Fence
from pipeline.store.forecasts import append_forecasts, claim_forecasts
from pipeline.store.lake import Lake
from pipeline.store.lease import Leases
from tests.pipeline.test_forecasts_store import forecasts


def test_a_lease_is_held_by_one_until_it_is_given_back(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    assert leases.take("forecast", "a") == 1
    assert leases.take("forecast", "b") is None
    leases.release("forecast", 1)
    assert leases.take("forecast", "b") == 2


def test_a_dead_holder_is_replaced_and_one_that_has_renewed_since_is_not(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    leases.take("forecast", "a")
    seen = leases.holder("forecast")
    assert leases.renew("forecast", 1)
    assert leases.take("forecast", "b", instead_of=seen) is None
    assert leases.take("forecast", "b", instead_of=leases.holder("forecast")) == 2


def test_a_replaced_holder_can_neither_renew_nor_write_nor_release(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    assert leases.take("forecast", "a") == 1
    assert leases.take("forecast", "b", instead_of=leases.holder("forecast")) == 2
    assert not leases.renew("forecast", 1)
    leases.release("forecast", 1)
    assert leases.take("forecast", "a") is None
    with pytest.raises(LeaseLostError, match="got b, token 2 as its holder"), leases.fenced("forecast", 1):
        pytest.fail("the block of a replaced holder was run")


def test_nobody_takes_over_while_a_holder_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leases = Leases(tmp_path)
    monkeypatch.setattr("pipeline.store.state_files.BUSY_TIMEOUT_S", 0.05)
    leases.take("forecast", "a")
    dead = leases.holder("forecast")
    with leases.fenced("forecast", 1), pytest.raises(StoreError, match="database is locked"):
        leases.take("forecast", "b", instead_of=dead)


def test_what_goes_wrong_under_a_lease_is_no_fault_of_the_lease(tmp_path: Path) -> None:
    """Shown to fail by what it was: 'A lease requires a readable, writable SQLite file', for a full disk under the snapshots."""
    leases = Leases(tmp_path)
    leases.take("forecast", "a")
    with pytest.raises(OSError, match="No space left") as caught, leases.fenced("forecast", 1):
        raise OSError(28, "No space left on device")
    assert type(caught.value) is OSError


def test_a_folder_that_was_moved_away_is_not_made_anew(tmp_path: Path) -> None:
    leases = Leases(tmp_path / "state")
    leases.take("forecast", "a")
    (tmp_path / "state").rename(tmp_path / "away")
    with pytest.raises(StoreError, match="unable to open database file"):
        leases.renew("forecast", 1)
    assert leases.holder("forecast") is None
    assert not (tmp_path / "state").exists()


def test_tokens_go_on_rising_after_the_file_was_lost(tmp_path: Path) -> None:
    assert Leases(tmp_path).take("forecast", "a", floor=41) == 42


def test_a_commit_of_a_replaced_writer_is_refused_by_the_table(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    lake.create_all()
    claim_forecasts(lake, Fence("lease", 2))
    with pytest.raises(LeaseLostError, match="got token 1, and the table has 2"):
        append_forecasts(lake, forecasts("a", range(3)), Fence("lease", 1))
    assert append_forecasts(lake, forecasts("a", range(3)), Fence("lease", 2)) == 3
    assert lake.last_seq(Forecasts, "lease") == 2
