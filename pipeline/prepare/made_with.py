"""What each series' observations were made with, aggregation and unit: a small JSON file of the state folder. Called by `regularise.py`."""

import json
import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from pipeline.errors import StoreError
from pipeline.store.state_files import sync

logger = logging.getLogger(__name__)

FILE_NAME = "aggregations.json"


def ways(fleet: pl.DataFrame) -> dict[str, str]:
    """Return, by series, what its observations are made with: "mean", or "mean degC" if it has a unit.

    Args:
        fleet: series_id, aggregation and unit; a series without an aggregation has no observations.
    """
    way = pl.concat_str("aggregation", "unit", separator=" ", ignore_nulls=True)
    return dict(fleet.drop_nulls("aggregation").select("series_id", way).iter_rows())


def made_otherwise(fleet: pl.DataFrame, recorded: Mapping[str, str]) -> list[str]:
    """Return the series whose observations were made with another aggregation or unit than the series has now.

    Observations made without a unit are taken to be in the present one.

    Args:
        fleet: series_id, aggregation and unit.
        recorded: as `ways`.
    """
    made = pl.DataFrame(list(recorded.items()), schema={"series_id": pl.String, "way": pl.String}, orient="row")
    before = made.select("series_id", pl.col("way").str.splitn(" ", 2).struct.rename_fields(["aggregation_then", "unit_then"])).unnest(
        "way"
    )
    is_other = (pl.col("aggregation") != pl.col("aggregation_then")) | (pl.col("unit") != pl.col("unit_then")).fill_null(value=False)
    return fleet.join(before, on="series_id").filter(is_other)["series_id"].to_list()


def recorded_ways(state_dir: Path) -> dict[str, str]:
    """Return the record, as `ways`; empty where there is none, or it cannot be read and must be written again."""
    path = state_dir / FILE_NAME
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:  # a power failure, or somebody's hand
        logger.warning("the record of aggregations cannot be read and is written again: path=%s reason=%s", path, error)
        return {}
    return found if isinstance(found, dict) else {}


def record_ways(state_dir: Path, made_with: Mapping[str, str]) -> None:
    """Record, by series, what its observations were made with; fsynced when this returns.

    Raises:
        StoreError: when the state folder cannot be written.
    """
    path = state_dir / FILE_NAME
    if path.exists() and recorded_ways(state_dir) == made_with:
        return
    partial = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")  # runs may race, in threads too
    try:
        with partial.open("w", encoding="utf-8") as file:
            json.dump(made_with, file, indent=0)
            file.flush()
            os.fsync(file.fileno())  # else a power failure leaves a file of no bytes under the good one's name
        partial.replace(path)
        sync(state_dir)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise StoreError(
            f"regularise requires a state folder that can be written; got {path}: {error}. Check its permissions and the space left."
        ) from error
