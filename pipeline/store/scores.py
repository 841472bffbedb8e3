"""The scores table: matured forecasts against what came true, each scored once. Called by `pipeline.evaluate`."""

import polars as pl

from pipeline.schemas import Scores
from pipeline.store.lake import Lake, append_new


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
    models = frame.partition_by("model_version", as_dict=True, maintain_order=True)
    return sum(append_new(lake, Scores, rows, app_id=f"score/{version}") for (version,), rows in models.items())


def scan_scores(lake: Lake, *, model_version: str | None = None) -> pl.LazyFrame:
    """Return stored scores lazily, of one model version or of all; collect them with `pipeline.store.lake.read`."""
    scan = lake.scan(Scores)
    return scan if model_version is None else scan.filter(pl.col("model_version") == model_version)
