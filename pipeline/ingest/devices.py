"""Attributes of devices, from tables with a row for each: `tidecast ingest --devices FILE…` below the command line.

They go to the catalog, where a later value replaces an earlier one: what changes with time is a metric and no attribute.
Called by `flows`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from pipeline.errors import DataError
from pipeline.ingest.formats import InputFile, discover
from pipeline.ingest.small_tables import device_column, read_table
from pipeline.settings import Settings
from pipeline.store.catalog import Catalog


@dataclass(frozen=True)
class DevicesReport:
    """What became of the tables of one run.

    Attributes:
        devices: number of devices that got attributes from them.
        attributes: names of these attributes.
    """

    devices: int
    attributes: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """Return a JSON-ready form."""
        return asdict(self)


def ingest_devices(settings: Settings, paths: Sequence[Path], device_id: str | None = None) -> DevicesReport:
    """Bring tables of devices into the catalog; cells that say nothing change nothing.

    Args:
        settings: the state folder.
        paths: files, folders or glob patterns.
        device_id: the column that names the device; None finds it by its usual names.

    Raises:
        DataError: when a file has no column of devices, a damaged row, or a device twice.
        StoreError: when the catalog cannot be written.
    """
    files, _ = discover(paths)
    attributes = pl.concat([_attributes(file, device_id) for file in files]).unique(("device_id", "name"), keep="last", maintain_order=True)
    Catalog(settings.state_dir).set_attributes(attributes)
    return DevicesReport(attributes["device_id"].n_unique(), tuple(attributes["name"].unique(maintain_order=True)))


def _attributes(file: InputFile, device_id: str | None) -> pl.DataFrame:
    """Return device_id, name and value (text) of each cell that says something."""
    name, source = file.path.name, file.open()
    column = device_id or device_column(source)
    others = [other for other in source.columns if other != column]
    if column not in source.columns or not others or any("=" in other for other in others):
        raise DataError(
            f"A table of devices requires a column of devices and others of their attributes, without '=' in a name; "
            f"{name} has {', '.join(map(repr, source.columns))}. Name the column of devices with --device-id."
        )
    table = read_table(file, source)
    if table[column].is_duplicated().any() or table[column].null_count():
        raise DataError(f"A table of devices requires whole rows, one for each device; {name} has others. Correct it.")
    cells = table.unpivot(others, index=column, variable_name="name").drop_nulls("value")
    return cells.select(pl.col(column).alias("device_id"), pl.col("name").str.strip_chars(), "value")
