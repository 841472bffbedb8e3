"""Reads a small table whole, every cell as text: those of devices and of units. Called by `devices.py` and `unit_intervals.py`."""

import polars as pl

from pipeline.errors import DataError
from pipeline.ingest.formats import InputFile
from pipeline.ingest.mapping import KNOWN
from pipeline.ingest.raw import MISSING_TEXTS, Source

ROWS = 100_000  # of one read


def device_column(source: Source) -> str | None:
    """Return the column that names the device by one of its usual names; None where there is none."""
    return next((column for column in source.columns if column.strip().lower() in KNOWN["device_id"]), None)


def read_table(file: InputFile, source: Source) -> pl.DataFrame:
    """Return all rows of a table, its cells as text, with what stands for nothing as null.

    Args:
        file: names the table.
        source: the same file, open.

    Raises:
        DataError: when a row is damaged.
    """
    batches = list(source.batches(source.columns, ROWS))
    if any(len(batch.broken) for batch in batches):
        raise DataError(f"A table requires whole rows; {file.path.name} has others. Correct it.")
    text = pl.all().cast(pl.String).str.strip_chars()
    table = pl.concat([pl.DataFrame(schema=dict.fromkeys(source.columns, pl.String)), *(batch.rows.select(text) for batch in batches)])
    return table.with_columns(pl.when(~pl.all().is_in(MISSING_TEXTS)).then(pl.all()))
