"""Leases: one holder at a time, and a token that tells a replaced one."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.errors import LeaseLostError
from pipeline.schemas import Forecasts
from pipeline.store.commits import Fence
from pipeline.store.forecasts import append_forecasts, claim_forecasts
from pipeline.store.lake import Lake
from pipeline.store.lease import Leases
from tests.pipeline.test_forecasts_store import forecasts

NOW = datetime(2026, 3, 2, tzinfo=UTC)
LENGTH = timedelta(seconds=15)


def test_a_lease_is_held_by_one_until_it_ends(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    assert leases.take("forecast", "a", NOW, LENGTH) == 1
    assert leases.take("forecast", "b", NOW + LENGTH - timedelta(seconds=1), LENGTH) is None
    assert leases.take("forecast", "b", NOW + LENGTH, LENGTH) == 2


def test_a_renewed_lease_does_not_end_and_a_released_one_does(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    token = leases.take("forecast", "a", NOW, LENGTH)
    assert token is not None
    assert leases.renew("forecast", token, NOW + LENGTH, LENGTH)
    assert leases.take("forecast", "b", NOW + LENGTH, LENGTH) is None
    leases.release("forecast", token)
    assert leases.take("forecast", "b", NOW + LENGTH, LENGTH) == 2


def test_a_replaced_holder_can_neither_renew_nor_write_nor_release(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    assert leases.take("forecast", "a", NOW, LENGTH) == 1
    assert leases.take("forecast", "b", NOW + LENGTH, LENGTH) == 2
    assert not leases.renew("forecast", 1, NOW + LENGTH, LENGTH)
    leases.release("forecast", 1)
    assert leases.take("forecast", "a", NOW + LENGTH, LENGTH) is None
    with pytest.raises(LeaseLostError, match="got b, token 2 as its holder"), leases.fenced("forecast", 1):
        pytest.fail("the block of a replaced holder was run")


def test_nobody_takes_over_while_a_holder_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leases = Leases(tmp_path)
    monkeypatch.setattr("pipeline.store.state_files.BUSY_TIMEOUT_S", 0.05)
    leases.take("forecast", "a", NOW, LENGTH)
    with leases.fenced("forecast", 1), pytest.raises(Exception, match="database is locked"):
        leases.take("forecast", "b", NOW + LENGTH, LENGTH)


def test_tokens_go_on_rising_after_the_file_was_lost(tmp_path: Path) -> None:
    assert Leases(tmp_path).take("forecast", "a", NOW, LENGTH, floor=41) == 42


def test_a_commit_of_a_replaced_writer_is_refused_by_the_table(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    lake.create_all()
    claim_forecasts(lake, Fence("lease", 2))
    with pytest.raises(LeaseLostError, match="got token 1, and the table has 2"):
        append_forecasts(lake, forecasts("a", range(3)), Fence("lease", 1))
    assert append_forecasts(lake, forecasts("a", range(3)), Fence("lease", 2)) == 3
    assert lake.last_seq(Forecasts, "lease") == 2
