"""What changed in a table is told by the content of its files: commits add to it, a compaction does not."""

from pathlib import Path

import pytest

from pipeline.schemas import Forecasts
from pipeline.store.changes import changed_rows, new_keys
from pipeline.store.forecasts import append_forecasts
from pipeline.store.lake import Lake
from pipeline.store.maintenance import compact
from tests.pipeline.test_forecasts_store import forecasts


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(str(tmp_path))
    made.create_all()
    return made


def test_new_keys_are_those_of_the_commits_since(lake: Lake) -> None:
    """Shown to fail by leaving out the files that went: a compaction then brings everything again."""
    append_forecasts(lake, forecasts("a", range(2)))
    version = lake.version(Forecasts)
    append_forecasts(lake, forecasts("b", range(2)))
    compact(lake)
    keys = new_keys(lake, Forecasts, version)
    assert keys["series_id"].to_list() == ["b", "b"]
    assert new_keys(lake, Forecasts, lake.version(Forecasts)).is_empty()


def test_a_compaction_changes_no_row(lake: Lake) -> None:
    append_forecasts(lake, forecasts("a", range(2)))
    append_forecasts(lake, forecasts("b", range(2)))
    version = lake.version(Forecasts)
    compact(lake)
    assert lake.version(Forecasts) > version
    assert changed_rows(lake, Forecasts, version).is_empty()


def test_a_version_that_cannot_be_read_is_no_empty_change(lake: Lake) -> None:
    assert changed_rows(lake, Forecasts, 99) is None
    assert new_keys(lake, Forecasts, 99) is None
