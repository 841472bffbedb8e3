"""Who a row is about: its device, its metric and its series, by the names that the row gives, each in one spelling.

Called by `validate.py`.
"""

import polars as pl

from pipeline.ingest.mapping import ColumnMapping
from pipeline.ingest.raw import said
from pipeline.store.identity import device_and_metric, with_series_id

LONGEST_NAME, LONGEST_UNIT = 256, 64  # bytes of UTF-8: what a person can read, and a column of a table show
# Controls, marks that turn or hide text, and the two line ends that are no controls: a terminal obeys them, and nobody can type them.
UNPRINTABLE = r"[\p{C}\p{Zl}\p{Zp}]"
_NAMES = ("device_id", "metric", "series_id")


def identify(rows: pl.DataFrame, mapping: ColumnMapping, device: str) -> pl.DataFrame:
    """Return device_id, metric and series_id of each row; a part that is missing is null, and for a wide file the metric comes later.

    Args:
        rows: as a reader gave them.
        mapping: complete.
        device: of rows that name none.
    """
    number = pl.int_range(pl.len()).alias("row")  # keeps the height where nothing else comes from a column
    if mapping.layout == "wide" or mapping.metric is not None:
        device_id = said(mapping.device_id) if mapping.device_id is not None else pl.lit(device)
        parts = rows.select(number, device_id.alias("device_id"), said(mapping.metric).alias("metric"))
        return with_series_id(in_one_spelling(parts)).select(_NAMES)
    whole = said(mapping.series_id) if mapping.series_id is not None else pl.lit(device)
    named = in_one_spelling(rows.select(number, whole.alias("series_id")))
    return named.select(*device_and_metric("series_id"), "series_id")


def is_unusable(name: str, longest: int = LONGEST_NAME) -> pl.Expr:
    """Whether a text that names something is too long or cannot be shown."""
    return (pl.col(name).str.len_bytes() > longest) | pl.col(name).str.contains(UNPRINTABLE)


def in_one_spelling(frame: pl.DataFrame) -> pl.DataFrame:
    """Compose the letters of names (NFC): an umlaut may be one character or two, and is the same device."""
    foreign = [name for name in _NAMES if name in frame.columns and frame[name].str.contains(r"[^\x00-\x7F]").any()]
    return frame.with_columns(pl.col(foreign).str.normalize("NFC")) if foreign else frame
