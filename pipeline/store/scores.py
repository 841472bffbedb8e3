"""The scores table: matured forecasts against what came true, each step scored once; and what may have become scorable since.

Called by `pipeline.evaluate.maturity`.
"""

import polars as pl

from pipeline.schemas import Forecasts, Scores
from pipeline.store.lake import Lake
from pipeline.store.new_rows import append_new_by_model

DAYS: dict[str, pl.DataType | type[pl.DataType]] = {"origin_date": pl.Date, "lead_time": pl.Duration("us")}


def append_scores(lake: Lake, frame: pl.DataFrame) -> int:
    """Append the scores of steps that were not scored before; safe to repeat and to race, as `append_forecasts`.

    Args:
        lake: the lake.
        frame: rows of `Scores`.

    Returns:
        How many rows were appended.

    Raises:
        StoreError: when a commit fails or meets conflicts without end.
    """
    return append_new_by_model(lake, Scores, frame, stage="score")


def scan_scores(lake: Lake, *, model_version: str | None = None) -> pl.LazyFrame:
    """Return stored scores lazily, of one model version or of all; collect them with `pipeline.store.lake.read`."""
    scan = lake.scan(Scores)
    return scan if model_version is None else scan.filter(pl.col("model_version") == model_version)


def forecast_days(lake: Lake) -> pl.DataFrame:
    """Return the days that hold forecasts and how far those reach, from the table's log alone: no data file is opened.

    Returns:
        origin_date, lead_time (the last step's; an upper bound where several horizons or intervals share a file).

    Raises:
        StoreError: when the table is missing or its log is damaged.
    """
    files = pl.DataFrame(lake.open(Forecasts).get_add_actions(flatten=True))
    if files.is_empty():  # then the statistics' columns are absent too
        return pl.DataFrame(schema=DAYS)
    lead_time = pl.duration(microseconds=pl.col("max.horizon").cast(pl.Int64) * pl.col("max.sample_interval_us"))
    return files.group_by(origin_date="partition.origin_date").agg(lead_time=lead_time.max()).sort("origin_date")
