"""Which ticks are due to be forecast from: each one once, and none that a follower who was never away would have left out.

Called by `pipeline.forecast.rolling`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.forecast.revisions import Changes
from pipeline.prepare.grid import tick_expr

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Origins:
    """Where the forecasts of each series go on.

    Attributes:
        issued: the newest tick that each series was forecast from.
        begun: the fleet's newest tick when a series became known that nobody has forecast.
        num_new: how many ticks of a series that nobody has forecast, at the least.
    """

    issued: Mapping[str, int]
    begun: Mapping[str, int]
    num_new: int

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
        if changes is None or num_new == 0:
            return cls(issued, {}, num_new)
        told = changes.measured.filter(pl.col("n_obs") > 0).join(fleet, on="series_id").with_columns(tick=tick_expr())
        fronts = told.group_by("available_at").agg(front=pl.col("tick").max()).sort("available_at")
        fronts = fronts.with_columns(pl.col("front").cum_max().clip(lower_bound=max(issued.values(), default=0)))
        new = told.filter(~pl.col("series_id").is_in(list(issued)))
        met = new.filter(pl.col("available_at") == pl.col("available_at").min().over("series_id"))
        met = met.group_by("series_id", "available_at").agg(pl.col("tick").max()).join(fronts, on="available_at")
        awake = met.filter(pl.col("tick") >= pl.col("front") - patience)  # of what stopped before it was known nothing is missed
        return cls(issued, dict(awake.select("series_id", "front").iter_rows()), num_new)

    def after(self, ticks: Mapping[str, int]) -> Self:
        """Return what is due once every series was forecast from these ticks; one that was taken back is not forecast again."""
        return replace(self, issued={**self.issued, **{name: max(tick, self.issued.get(name, tick)) for name, tick in ticks.items()}})

    def first(self, series: Sequence[str], end_B: Ints) -> Ints:
        """Return the tick that the forecasts of each series begin at.

        Args:
            series: B names.
            end_B: the tick after the last that each of them reads.
        """
        due = [
            self.issued[name] + 1 if name in self.issued else min(end - self.num_new, self.begun.get(name, end))
            for name, end in zip(series, end_B.tolist(), strict=True)
        ]
        return np.array(due, dtype=np.int64)

    def keeps_up(self, series: Sequence[str]) -> NDArray[np.bool_]:
        """Return which series were forecast from the fleet's newest tick, or would have been."""
        front = max(self.issued.values(), default=None)
        return np.array([self.issued[name] == front if name in self.issued else name in self.begun for name in series], dtype=bool)
