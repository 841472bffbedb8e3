"""The record of what observations were made with survives what befalls a file."""

from pathlib import Path
from unittest.mock import patch

import pytest

from pipeline.errors import StoreError
from pipeline.prepare.made_with import record_ways, recorded_ways
from tests.arrivals import arrive, minutes, new_lake, regularised


@pytest.fixture
def settings(tmp_path):
    return new_lake(tmp_path)


@pytest.mark.parametrize("left", [b"", b"\0" * 40, b"null"])
def test_a_record_of_aggregations_that_a_power_failure_emptied_is_made_anew(settings, left):
    """Shown to fail by reading it as it is: no lake with such a file was ever regularised again."""
    arrive(settings, minutes(0, 30))
    regularised(settings)
    made_with = recorded_ways(settings.state_dir)
    (settings.state_dir / "aggregations.json").write_bytes(left)
    arrive(settings, minutes(30, 40))
    assert regularised(settings).observations_written == 10
    assert recorded_ways(settings.state_dir) == made_with == {"s": "mean"}


def test_a_state_folder_that_is_full_is_told_as_such(settings):
    """Shown to fail by passing the OSError on: a follower takes a `StoreError` for what passes, and dies of all else."""
    (settings.state_dir / "aggregations.json").mkdir(parents=True)
    with pytest.raises(StoreError, match="requires a state folder that can be written"):
        record_ways(settings.state_dir, {"s": "mean"})


def test_what_is_recorded_is_on_disk_under_its_name(tmp_path: Path) -> None:
    with patch("pipeline.prepare.made_with.sync") as synced:
        record_ways(tmp_path, {"pump/flow": "mean"})
    synced.assert_called_once_with(tmp_path)
    assert recorded_ways(tmp_path) == {"pump/flow": "mean"}
