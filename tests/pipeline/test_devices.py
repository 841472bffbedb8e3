"""What becomes of tables of devices: each cell that says something is an attribute, and the newest value counts."""

from pathlib import Path

import pytest

from pipeline.errors import DataError
from pipeline.ingest.devices import ingest_devices
from pipeline.settings import Settings
from pipeline.store.catalog import Catalog


def attributes(folder: Path, *tables: str, device_id: str | None = None) -> list[tuple[str, str, str]]:
    """Ingest tables one after the other; return what the catalog says then."""
    settings = Settings(lake=str(folder / "lake"))
    for number, table in enumerate(tables):
        path = folder / f"devices-{number}.csv"
        path.write_text(table)
        ingest_devices(settings, [path], device_id)
    return Catalog(settings.state_dir).attributes().rows()


def test_every_cell_that_says_something_is_an_attribute(tmp_path: Path) -> None:
    found = attributes(tmp_path, "device_id,area,kind\nnorth,120,pump\nsouth,NA,fan\n")
    assert found == [("north", "area", "120"), ("north", "kind", "pump"), ("south", "kind", "fan")]


def test_a_later_value_replaces_an_earlier_one_and_an_empty_cell_does_not(tmp_path: Path) -> None:
    found = attributes(tmp_path, "device_id,area,kind\nnorth,120,pump\n", "device,area,kind\nnorth,,fan\n")
    assert found == [("north", "area", "120"), ("north", "kind", "fan")]


def test_the_column_of_devices_can_be_named(tmp_path: Path) -> None:
    assert attributes(tmp_path, "machine;area\nnorth;5\n", device_id="machine") == [("north", "area", "5")]


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("machine,area\nnorth,5\n", "requires a column of devices"),
        ("device_id\nnorth\n", "requires a column of devices and others"),
        ("device_id,a=b\nnorth,5\n", "without '=' in a name"),
        ("device_id,area\nnorth,5\nnorth,6\n", "one for each device"),
        ("device_id,area\n,5\n", "one for each device"),
    ],
)
def test_a_table_that_is_none_of_devices_is_refused(tmp_path: Path, table: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        attributes(tmp_path, table)
