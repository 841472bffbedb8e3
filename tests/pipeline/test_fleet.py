"""Laws of `pipeline.ingest.fleet`: what can be simulated, and the sentence for what cannot."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from pipeline.errors import SettingsError
from pipeline.ingest.fleet import FAULTS, LIVE_FAULTS, FaultSpec, FleetSpec


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_devices": 0}, "num_devices >= 1.*got 0, 90 and 7"),
        ({"days": 0}, "days >= 1"),
        ({"seed": -1}, "seed >= 0"),
        ({"sample_interval": timedelta(milliseconds=100)}, "whole seconds"),
        ({"sample_interval": timedelta(days=2)}, "up to a day"),
        ({"start": datetime(2026, 1, 1)}, "start in UTC"),  # noqa: DTZ001 (naive on purpose)
        ({"start": datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1)))}, "start in UTC"),
        ({"metrics": ("temperature", "wind")}, "got temperature, wind"),
        ({"metrics": ()}, "got none"),
        ({"allowed_lateness": timedelta(0)}, "allowed lateness"),
        ({"allowed_lateness": timedelta(seconds=1.5)}, "whole seconds"),
        ({"faults": FaultSpec.all(0.2)}, "sum to at most 1/26"),
        ({"faults": FaultSpec(gap=-0.1)}, "rates >= 0"),
        ({"metrics": ("power",), "faults": FaultSpec.all()}, "out_of_order requires two metrics"),
        ({"sample_interval": timedelta(seconds=1), "faults": FaultSpec.only("restamped")}, "require a sample interval of at least 2 s"),
    ],
)
def test_an_impossible_fleet_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        FleetSpec(**changes)


def test_an_unknown_fault_is_answered_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"one of the names gap, duplicate, .*; got flood"):
        FaultSpec.only("gap", "flood")


def test_every_fault_has_a_switch() -> None:
    assert all(getattr(FaultSpec.all(), name) > 0 and getattr(FaultSpec.none(), name) == 0 for name in FAULTS)
    assert FaultSpec.only("late", rate=0.01) == FaultSpec(late=0.01)


def test_a_slot_holds_a_day_of_hours_and_twice_the_allowed_lateness() -> None:
    assert FleetSpec().slot_ticks == 26
    seconds = FleetSpec(sample_interval=timedelta(seconds=1), start=datetime(2026, 1, 1, tzinfo=UTC), faults=FaultSpec.none())
    assert seconds.slot_ticks == 24 + 120
    assert FleetSpec(faults=FaultSpec.only("outage")).slot_ticks == 24 + 4


def test_faults_of_clocks_and_streams_are_on_only_where_they_are_named() -> None:
    assert all(getattr(FaultSpec.all(), name) == 0 for name in LIVE_FAULTS)
    assert FaultSpec.only("outage", rate=0.01) == FaultSpec(outage=0.01)
