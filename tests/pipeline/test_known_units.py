"""What the catalog knows of units: the first one settled holds for all, and intervals never overlap."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from pipeline.errors import DataError
from pipeline.store.known_units import UNIT_INTERVALS, KnownUnits
from tests.rivals import race

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def known(tmp_path: Path) -> KnownUnits:
    return KnownUnits(tmp_path / "lake" / "state")


def test_first_unit_settled_holds_for_all_processes(known: KnownUnits) -> None:
    """Shown to fail by returning what was proposed."""
    outputs = race(
        "import os, sys; from pathlib import Path; from pipeline.store.known_units import KnownUnits",
        "print(KnownUnits(Path(sys.argv[1])).settle({'heat': f'unit {os.getpid()}'}))",
        str(known.state_dir),
    )
    assert set(outputs) == {f"{known.settle({'heat': 'another'})}\n"}
    assert known.settle({"heat": "other", "flow": "L/s"})["flow"] == "L/s"


def units(*rows: tuple[object, ...]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=UNIT_INTERVALS, orient="row")


def test_unit_intervals_come_back_as_they_were_put_in(known: KnownUnits) -> None:
    put = units(("*", "heat", "K", NOON, None), ("pump", "heat", "degC", NOON, NOON + HOUR), ("pump", "heat", "degF", NOON + HOUR, None))
    known.set_intervals(put.reverse())
    known.set_intervals(put)
    assert known.intervals().equals(put)


def test_an_interval_with_the_same_start_is_replaced(known: KnownUnits) -> None:
    known.set_intervals(units(("pump", "heat", "degC", NOON, None)))
    changed = units(("pump", "heat", "degC", NOON, NOON + HOUR), ("pump", "heat", "degF", NOON + HOUR, None))
    known.set_intervals(changed)
    assert known.intervals().equals(changed)


@pytest.mark.parametrize(
    ("interval", "sentence"),
    [
        (("pump", "heat", "degF", NOON + HOUR, None), "do not overlap; got degC and degF at once for pump/heat"),
        (("pump", "heat", "degF", NOON - HOUR, NOON + HOUR), "do not overlap; got degF and degC at once"),
        (("pump", "flow", "L/s", NOON, NOON), "requires an end after its start"),
    ],
)
def test_intervals_that_overlap_are_refused_and_leave_no_trace(known: KnownUnits, interval: tuple[object, ...], sentence: str) -> None:
    """Shown to fail by looking for overlaps after the commit."""
    before = units(("pump", "heat", "degC", NOON, None))
    known.set_intervals(before)
    with pytest.raises(DataError, match=sentence):
        known.set_intervals(units(interval, ("other", "heat", "K", NOON, None)))
    assert known.intervals().equals(before)
