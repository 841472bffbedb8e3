"""Which model forecasts: a line for each change, and a torn line is none."""

from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

import pytest

from pipeline.store.handovers import FILE_NAME, Handovers

NOW = datetime(2026, 3, 2, tzinfo=UTC)


def test_each_change_is_written_once_with_the_model_before(tmp_path: Path) -> None:
    handovers = Handovers(tmp_path)
    assert handovers.newest() is None
    for version, model in (("1", "1-aa"), ("1", "1-aa"), ("2", "2-bb")):
        handovers.record(version, model, NOW, NOW)
    assert [(change.model, change.previous) for change in handovers.all()] == [("1-aa", None), ("2-bb", "1-aa")]


@pytest.mark.parametrize("garbage", [b"\xff\xfe\x00", b"[]", b"null", b'{"version": 1}', b"{" * 2000])
def test_garbage_amid_the_changes_is_left_out(tmp_path: Path, garbage: bytes) -> None:
    """Shown to fail by what json, UTF-8 and the dataclass raise, which ended the follower."""
    handovers = Handovers(tmp_path)
    handovers.record("1", "1-aa", NOW)
    with (tmp_path / FILE_NAME).open("ab") as file:
        file.write(garbage + b"\n")
    handovers.record("2", "2-bb", NOW)
    assert [change.model for change in handovers.all()] == ["1-aa", "2-bb"]
    assert handovers.num_damaged() == 1


def test_a_line_that_a_crash_cut_short_is_no_change(tmp_path: Path) -> None:
    handovers = Handovers(tmp_path)
    handovers.record("1", "1-aa", NOW)
    with (tmp_path / FILE_NAME).open("a") as file:
        file.write('{"version": "2", "mod')
    newest = handovers.newest()
    assert newest is not None
    assert newest.model == "1-aa"
    handovers.record("2", "2-bb", NOW)
    assert [change.model for change in handovers.all()] == ["1-aa", "2-bb"]


def test_the_name_of_the_file_is_on_disk_too(tmp_path: Path) -> None:
    with patch("pipeline.store.handovers.sync") as synced:
        Handovers(tmp_path).record("1", "1-aa", NOW)
    synced.assert_called_once_with(tmp_path)
