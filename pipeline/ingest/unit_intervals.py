"""Which unit each device sends, and when: `tidecast ingest --units FILE…` below the command line.

For readings that name no unit. They are converted when they are stored, so an interval must be known before its readings come; one that
comes later changes nothing that is stored. Called by `flows`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from pipeline.errors import DataError
from pipeline.ingest.formats import InputFile, discover
from pipeline.ingest.small_tables import device_column, read_table
from pipeline.ingest.timestamps import StampRules, parse_stamps
from pipeline.schemas import UTC_US
from pipeline.settings import Settings
from pipeline.store.known_units import UNIT_INTERVALS, KnownUnits
from pipeline.store.unit_conversion import canonical_name

ALWAYS = datetime(1, 1, 1, tzinfo=UTC)  # the start of an interval that names none
_REQUIRED = ("metric", "unit")


@dataclass(frozen=True)
class UnitIntervalsReport:
    """What became of the tables of one run.

    Attributes:
        intervals: number of intervals read from them.
        devices: number of devices that they name; `*`, every device, counts as one.
        known: number of intervals that the catalog holds now.
    """

    intervals: int
    devices: int
    known: int

    def to_dict(self) -> dict[str, object]:
        """Return a JSON-ready form."""
        return asdict(self)


def ingest_unit_intervals(settings: Settings, paths: Sequence[Path]) -> UnitIntervalsReport:
    """Bring tables of units into the catalog: all intervals or, where one cannot be used, none.

    Args:
        settings: the state folder.
        paths: files, folders or glob patterns; columns device_id (`*` for every device), metric, unit, and valid_from and valid_to (stamps
            with a zone; empty or left out: always).

    Raises:
        DataError: when a file lacks a column, a row lacks a cell, a stamp cannot be read, or two intervals overlap.
        StoreError: when the catalog cannot be written.
    """
    files, _ = discover(paths)
    intervals = pl.concat([_intervals(file) for file in files]).unique(maintain_order=True)
    doubled = intervals.filter(pl.struct("device_id", "metric", "valid_from").is_duplicated())
    if len(doubled):
        device_id, metric = doubled.select("device_id", "metric").row(0)
        raise DataError(f"Units require one interval for each start; got several for {device_id}/{metric}. Correct the tables.")
    units = KnownUnits(settings.state_dir)
    units.set_intervals(intervals)
    return UnitIntervalsReport(len(intervals), intervals["device_id"].n_unique(), len(units.intervals()))


def _intervals(file: InputFile) -> pl.DataFrame:
    """Return the rows of one file in the columns of `UNIT_INTERVALS`."""
    name, source = file.path.name, file.open()
    device = device_column(source)
    if device is None or not set(_REQUIRED) <= set(source.columns):
        raise DataError(
            f"A table of units requires the columns device_id, metric and unit, and may have valid_from and valid_to; "
            f"{name} has {', '.join(map(repr, source.columns))}. Rename its columns."
        )
    table = read_table(file, source)
    empty = [column for column in (device, *_REQUIRED) if table[column].null_count()]
    if empty:
        raise DataError(f"A table of units requires a {empty[0]} in every row; {name} has rows without. Fill it in.")
    return pl.DataFrame(
        {
            "device_id": table[device],
            "metric": table["metric"],
            "unit": [canonical_name(unit) for unit in table["unit"]],
            "valid_from": _stamps(table, "valid_from", name).fill_null(ALWAYS),
            "valid_to": _stamps(table, "valid_to", name),
        },
        schema=UNIT_INTERVALS,
    )


def _stamps(table: pl.DataFrame, column: str, name: str) -> pl.Series:
    """Return a column of stamps; empty cells, and a column that is not there, are null."""
    if column not in table.columns:
        return pl.Series([None], dtype=UTC_US).new_from_index(0, len(table))
    read = parse_stamps(table[column], StampRules(epoch_unit="s"))
    bad = table.filter((read["stamp_error"] != "missing_timestamp").fill_null(value=False))
    if len(bad):
        raise DataError(
            f"A table of units requires stamps with a zone in {column}; {name} has {bad[column][0]!r}. Write 2026-01-01T00:00:00Z."
        )
    return read["stamp"]
