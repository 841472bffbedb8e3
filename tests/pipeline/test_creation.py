"""Tables are made once, with what keeps them quick, or not at all and with one sentence."""

from pathlib import Path

import pytest

from pipeline.errors import StoreError
from pipeline.schemas import TABLES, Observations, Readings
from pipeline.store.lake import Lake, read
from tests.rivals import race


@pytest.mark.parametrize("schema", TABLES)
def test_every_table_starts_empty_with_its_columns_and_properties(tmp_path: Path, schema) -> None:
    lake = Lake(str(tmp_path / "data" / "lake"))
    lake.create_all()
    table = lake.open(schema)
    properties = table.metadata().configuration
    assert read(lake.scan(schema)).equals(schema.empty())
    assert table.metadata().partition_columns == [schema.partition_by]
    assert properties["delta.appendOnly"] == ("false" if schema is Observations else "true")
    assert properties["delta.checkpointInterval"] == "20"
    assert ("delta.enableChangeDataFeed" in properties) == (schema is Readings)


def test_processes_that_create_at_once_make_each_table_once(tmp_path: Path) -> None:
    """Shown to fail by letting delta-rs retry a creation: a loser then commits the table again, as version 1."""
    lake = Lake(str(tmp_path))
    race("from pipeline.store.lake import Lake", "Lake(sys.argv[1]).create_all()", lake.uri)
    assert [lake.version(schema) for schema in TABLES] == [0] * len(TABLES)


def test_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="requires a place that can be written"):
        Lake(str(tmp_path / "file")).create_all()


@pytest.mark.parametrize("folder", ["a%20b", "a[1]", "a=b"])
def test_a_folder_that_delta_cannot_open_is_refused_by_name(tmp_path: Path, folder: str) -> None:
    with pytest.raises(StoreError, match="Choose another folder"):
        Lake(str(tmp_path / folder)).create_all()
