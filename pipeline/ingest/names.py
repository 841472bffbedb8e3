"""Who a row is about: its device, its metric and its series, by the names that the row gives, each in one spelling.

Called by `validate.py`.
"""

import polars as pl

from pipeline.ingest.mapping import ColumnMapping
from pipeline.ingest.raw import said
from pipeline.store.identity import device_and_metric, with_series_id

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


def in_one_spelling(frame: pl.DataFrame) -> pl.DataFrame:
    """Compose the letters of names (NFC): an umlaut may be one character or two, and is the same device."""
    foreign = [name for name in _NAMES if name in frame.columns and frame[name].str.contains(r"[^\x00-\x7F]").any()]
    return frame.with_columns(pl.col(foreign).str.normalize("NFC")) if foreign else frame
