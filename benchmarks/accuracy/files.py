"""Tables as they come: CSV or Parquet, with missing values written in any of the usual ways, and errors that name the row.

The names of series stay as they are written: one may be called NA, and 007 is not 7.

Called by `benchmarks.accuracy.task` and `benchmarks.accuracy.long`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.ingest.raw import MISSING_TEXTS
from pipeline.ingest.validate import LARGEST_VALUE

SERIES = "unique_id"


def read_table(path: Path, required: Sequence[str]) -> pl.DataFrame:
    """Read a whole table.

    Args:
        path: a CSV file, or a Parquet file by its suffix.
        required: columns it must have.

    Raises:
        DataError: when the file is not there, cannot be read, is empty or lacks a column.
    """
    if not path.is_file():
        raise DataError(f"--data requires a file; got {path}, which does not exist. Check the path.")
    try:
        frame = pl.read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"--data requires a CSV or Parquet table; got {path.name}: {reason}. Correct the file.") from error
    absent = [name for name in required if name not in frame.columns]
    if absent:
        raise DataError(
            f"{path.name} requires the column {' and '.join(absent)}; got {', '.join(frame.columns[:12])}. "
            "Rename the columns, or name them on the command line."
        )
    if frame.is_empty():
        raise DataError(f"{path.name} requires rows; got none. Give a file with data.")
    return frame


def _read_csv(path: Path) -> pl.DataFrame:
    frame = pl.read_csv(path, infer_schema_length=None, null_values=list(MISSING_TEXTS))
    if SERIES not in frame.columns:
        return frame
    names = pl.read_csv(path, columns=[SERIES], schema_overrides={SERIES: pl.String})
    return frame.with_columns(names[SERIES])


def numbers(frame: pl.DataFrame, names: Sequence[str]) -> NDArray[np.float64]:
    """Return columns as (rows, names) float64, NaN where a value is missing or none that was measured: ingest refuses such, too.

    Raises:
        DataError: naming the first texts that are not numbers.
    """
    columns = []
    for name in names:
        column = frame[name]
        number = column.cast(pl.Float64, strict=False)
        wrong = column.filter(number.is_null() & column.is_not_null())
        if len(wrong):
            texts = ", ".join(repr(text) for text in wrong.head(3).to_list())
            raise DataError(f"Column {name} requires numbers; got {texts} in {len(wrong)} rows. Correct them, or choose columns by name.")
        columns.append(number.fill_null(float("nan")).to_numpy())
    values = np.stack(columns, axis=1)
    values[~(np.abs(values) <= LARGEST_VALUE)] = np.nan
    return values
