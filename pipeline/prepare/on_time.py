"""A panel with each value as it was known when its tick closed: the inputs of a score, so that no origin reads what came after it.

Called by `pipeline.evaluate.backtest` and `pipeline.train`; their own panels hold what is known now, the truth of a score.
"""

from dataclasses import replace
from datetime import timedelta

import polars as pl

from pipeline.prepare.sequences import Panel, to_panel
from pipeline.store.lake import Lake
from pipeline.store.observations import read_observations


def known_on_time(truth: Panel, lake: Lake, allowed_lateness: timedelta) -> Panel:
    """Return the same series on the same rows, each value as it was known when its tick closed.

    Args:
        truth: values as they are known now; its covariates are kept, because they are already those known in time.
        lake: observations.
        allowed_lateness: how long after its label a tick closes.

    Raises:
        StoreError: when the lake cannot be read.
    """
    series = list(truth.series_ids)
    grids = pl.DataFrame({"series_id": series, "grid_offset_us": truth.offset_us_B}).with_columns(sample_interval_us=truth.interval_us)
    observations = read_observations(lake, series=series, end=truth.end, on_time=allowed_lateness)
    first_ticks = dict(zip(series, truth.first_tick_B.tolist(), strict=True))
    return replace(to_panel(observations, grids, since_tick=first_ticks), covariates=truth.covariates)
