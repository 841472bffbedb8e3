"""Which ticks are due to be forecast from: each one once, and none that a follower who was never away would have left out.

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
        begun: of series that nobody has forecast, or that were left behind: the fleet's newest tick when they became known or came
            back, on their own grid.
        num_new: how many ticks of a series that nobody has forecast, at the least.
        offset_us: grid offset of each series of the fleet; ticks of two series are at one time only where these are one.
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
            num_new: how many ticks of a series that nobody has forecast; 0 for none.
            changes: since the state was made; None where they are not known.
            fleet: series of the catalog.
            patience: ticks that a series is read on for after its last reading.
        """
        none = cls(issued, {}, num_new, dict(fleet.select("series_id", "grid_offset_us").iter_rows()), fleet["sample_interval_us"][0])
        if changes is None or num_new == 0:
            return none
        told = changes.measured.filter(pl.col("n_obs") > 0).join(fleet, on="series_id").with_columns(tick=tick_expr())
        fronts = told.group_by("available_at").agg(front=pl.col("ts").max()).sort("available_at")
        fronts = fronts.with_columns(pl.col("front").cum_max().clip(lower_bound=none.front))
        new = told.filter(~pl.col("series_id").is_in([name for name in issued if name not in none.left_behind]))
        met = new.filter(pl.col("available_at") == pl.col("available_at").min().over("series_id"))
        met = met.group_by("series_id", "available_at", *GRID).agg(pl.col("tick").max()).join(fronts, on="available_at")
        met = met.with_columns(front=(pl.col("front").dt.timestamp("us") - pl.col("grid_offset_us")) // pl.col("sample_interval_us"))
        awake = met.filter(pl.col("tick") >= pl.col("front") - patience)  # of what stopped before it was known nothing is missed
        return replace(none, begun=dict(awake.select("series_id", "front").iter_rows()))

    @property
    def front(self) -> datetime:
        """The newest label that any series of the fleet was forecast from; the epoch where none was."""
        labels = (tick * self.interval_us + self.offset_us[name] for name, tick in self.issued.items() if name in self.offset_us)
        return EPOCH + max(labels, default=0) * MICROSECOND

    @cached_property
    def left_behind(self) -> set[str]:
        """The series that were not forecast from the fleet's newest tick, silent or retired: what they bring of that time came later."""
        front_us = (self.front - EPOCH) // MICROSECOND
        newest = {name: (front_us - offset_us) // self.interval_us for name, offset_us in self.offset_us.items()}
        return {name for name, tick in self.issued.items() if name in newest and tick < newest[name]}

    def after(self, ticks: Mapping[str, int]) -> Self:
        """Return what is due once every series was forecast from these ticks; one that was taken back is not forecast again."""
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
