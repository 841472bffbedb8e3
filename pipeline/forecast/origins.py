"""Decides which ticks still need a forecast: each exactly once, and only those that an uninterrupted follower would also have forecast.

Called by `pipeline.forecast.rolling`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.forecast.revisions import Changes
from pipeline.prepare.grid import tick_expr
from pipeline.schemas import EPOCH, MICROSECOND

Ints = NDArray[np.int64]

GRID = ("sample_interval_us", "grid_offset_us")


@dataclass(frozen=True)
class Origins:
    """Where the forecasts of each series go on.

    Attributes:
        issued: the newest tick that each series was forecast from.
        begun: for series without a forecast, and for series that fell behind: the fleet's newest tick at the moment they appeared or
            returned, on the series' own grid.
        num_new: the fewest ticks to forecast of a series that has no forecast yet.
        offset_us: grid offset of each series of the fleet; ticks of two series fall on the same instants only if their offsets are equal.
        interval_us: grid spacing.
    """

    issued: Mapping[str, int]
    begun: Mapping[str, int]
    num_new: int
    offset_us: Mapping[str, int]
    interval_us: int

    @classmethod
    def due(cls, issued: Mapping[str, int], num_new: int, changes: Changes | None, fleet: pl.DataFrame, patience: int) -> Self:
        """Return what is due of a fleet.

        A series that began while nobody followed is forecast from the ticks that a follower would have forecast it from.

        Args:
            issued: the newest tick that each series was forecast from.
            num_new: how many ticks to forecast of a series that has no forecast yet; 0 for none.
            changes: since the state was made; None where they are not known.
            fleet: series of the catalog.
            patience: for how many ticks after its last reading a series is still read.
        """
        offsets = dict(fleet.select("series_id", "grid_offset_us").iter_rows())
        origins = cls(issued, {}, num_new, offsets, fleet["sample_interval_us"][0])
        if changes is None or num_new == 0:
            return origins
        measured = changes.measured.filter(pl.col("n_obs") > 0).join(fleet, on="series_id").with_columns(tick=tick_expr())
        keeping_up = [name for name in issued if name not in origins.left_behind]
        others = measured.filter(~pl.col("series_id").is_in(keeping_up))
        return replace(origins, begun=_begun(others, _frontiers(measured, origins.frontier), patience))

    @property
    def frontier(self) -> datetime:
        """The newest label that any series of the fleet was forecast from; the epoch where none was."""
        labels = (tick * self.interval_us + self.offset_us[name] for name, tick in self.issued.items() if name in self.offset_us)
        return EPOCH + max(labels, default=0) * MICROSECOND

    @cached_property
    def left_behind(self) -> set[str]:
        """The series that were not forecast from the fleet's newest tick, silent or retired: their readings of that time arrived later."""
        frontier_us = (self.frontier - EPOCH) // MICROSECOND
        newest = {name: (frontier_us - offset_us) // self.interval_us for name, offset_us in self.offset_us.items()}
        return {name for name, tick in self.issued.items() if name in newest and tick < newest[name]}

    def after(self, ticks: Mapping[str, int]) -> Self:
        """Return what is due once every series was forecast from these ticks; a series that was taken back is not forecast again."""
        return replace(self, issued={**self.issued, **{name: max(tick, self.issued.get(name, tick)) for name, tick in ticks.items()}})

    def first(self, series: Sequence[str], end_B: Ints) -> Ints:
        """Return the tick that the forecasts of each series begin at.

        Args:
            series: B names.
            end_B: the tick after the last that each of them reads.
        """
        next_B = np.array([self.issued.get(name, -1) + 1 for name in series], dtype=np.int64)
        begun_B = np.array([self.begun.get(name, end) for name, end in zip(series, end_B.tolist(), strict=True)], dtype=np.int64)
        goes_on_B = np.array([name in self.issued and name not in self.left_behind for name in series], dtype=bool)
        return np.where(goes_on_B, next_B, np.maximum(next_B, np.minimum(end_B - self.num_new, begun_B)))

    def keeps_up(self, series: Sequence[str]) -> NDArray[np.bool_]:
        """Return which series of the fleet were forecast from its newest tick, or would have been."""
        return np.array([name not in self.left_behind if name in self.issued else name in self.begun for name in series], dtype=bool)


def _frontiers(measured: pl.DataFrame, frontier: datetime) -> pl.DataFrame:
    """Return the fleet's newest label (`frontier`) at each arrival (`available_at`), never before what was forecast already."""
    newest = measured.group_by("available_at").agg(frontier=pl.col("ts").max()).sort("available_at")
    return newest.with_columns(pl.col("frontier").cum_max().clip(lower_bound=frontier))


def _begun(measured: pl.DataFrame, frontiers: pl.DataFrame, patience: int) -> dict[str, int]:
    """Return the fleet's newest tick when each series was first known, on its own grid; without those that had stopped long before."""
    first_known = measured.filter(pl.col("available_at") == pl.col("available_at").min().over("series_id"))
    first_known = first_known.group_by("series_id", "available_at", *GRID).agg(pl.col("tick").max()).join(frontiers, on="available_at")
    frontier_tick = (pl.col("frontier").dt.timestamp("us") - pl.col("grid_offset_us")) // pl.col("sample_interval_us")
    still_sending = first_known.filter(pl.col("tick") >= frontier_tick - patience)
    return dict(still_sending.select("series_id", frontier_tick).iter_rows())
