"""Fill the history of a lake for a report: `tidecast fill` below the command line. It reads the lake and writes nothing to it."""

from collections.abc import Sequence

import polars as pl

from pipeline.errors import DataError
from pipeline.offline.fill import FillSettings, fill_history
from pipeline.prepare.sequences import match_series
from pipeline.settings import Settings
from pipeline.store.catalog import Catalog
from pipeline.store.identity import series_id_of
from pipeline.store.lake import Lake
from pipeline.store.observations import read_observations


def fill_lake(settings: Settings, patterns: Sequence[str] | None = None, fill: FillSettings | None = None) -> pl.DataFrame:
    """Fill the gaps in the newest revision of a lake's observations.

    Args:
        settings: name the lake.
        patterns: glob patterns of the series to fill; None for all that are no companions.
        fill: how; its companions are read along wherever a device of those series measures them.

    Returns:
        What `fill_history` does.

    Raises:
        DataError: when no series or companion is there, or there is too little to learn from.
    """
    fill = fill or FillSettings()
    observations, grids = read_history(settings, patterns, fill.companions)
    return fill_history(observations, grids, fill)


def read_history(settings: Settings, patterns: Sequence[str] | None, companions: tuple[str, ...]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the newest observations, and the grids, of the series that match and of their devices' companions.

    Raises:
        DataError: when no series matches, or no device of theirs measures a companion.
    """
    catalog = Catalog(settings.state_dir).series()
    wanted = match_series(catalog, patterns, companions)
    beside = [series_id_of(device, metric) for device in wanted["device_id"].unique() for metric in companions]
    found = catalog.filter(pl.col("series_id").is_in(beside), pl.col("sample_interval_us").is_not_null())
    absent = sorted(set(companions) - set(found["metric"]))
    if absent:
        raise DataError(f"Gap filling requires companions that the devices measure; got {', '.join(absent)}. Name metrics of the lake.")
    grids = pl.concat([wanted, found])
    return read_observations(Lake(settings.lake), series=grids["series_id"].to_list()), grids
