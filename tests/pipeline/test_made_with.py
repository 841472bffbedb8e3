"""What observations were made with: on disk, under its own name, when it is recorded."""

from pathlib import Path
from unittest.mock import patch

from pipeline.prepare.made_with import FILE_NAME, record_aggregations, recorded_aggregations


def test_what_is_recorded_is_on_disk_under_its_name(tmp_path: Path) -> None:
    with patch("pipeline.prepare.made_with.sync") as synced:
        record_aggregations(tmp_path, {"pump/flow": "mean"})
    synced.assert_called_once_with(tmp_path)
    assert recorded_aggregations(tmp_path) == {"pump/flow": "mean"}


def test_a_record_that_was_torn_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text('{"pump/fl')
    assert recorded_aggregations(tmp_path) == {}
