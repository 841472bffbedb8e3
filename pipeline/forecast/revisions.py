"""Which series must be replayed, and from where: series whose state has read past a tick that has changed or come since.

A replay gives the state that a restart would give; forecasts that were issued stay. Called by `pipeline.forecast.rolling`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from models.config import ForecasterConfig
from pipeline.forecast.state import WHOLLY, StreamState
from pipeline.prepare.covariates import CovariateNames
from pipeline.prepare.grid import tick_expr
from pipeline.prepare.join_covariates import announced_in_time, series_beside, static_values
from pipeline.schemas import Observations, Plans
from pipeline.store.catalog import Catalog
from pipeline.store.changes import changed_rows
from pipeline.store.lake import Lake


@dataclass(frozen=True)
class InputVersions:
    """The versions of the tables that a state is made from.

    Attributes:
        observations: Delta version.
        plans: Delta version; None where the model reads nothing that is known ahead.
    """

    observations: int
    plans: int | None

    @classmethod
    def newest(cls, lake: Lake, names: CovariateNames) -> Self:
        """Return the newest versions of the tables that a model reads."""
        return cls(lake.version(Observations), lake.version(Plans) if names.future else None)

    def of(self, lake: Lake) -> Lake:
        """Return the lake pinned to these versions, whatever is committed to it meanwhile."""
        pinned = lake.at(Observations, self.observations)
        return pinned if self.plans is None else pinned.at(Plans, self.plans)


@dataclass(frozen=True)
class StaticInputs:
    """The attributes of devices, as they are when a run begins.

    Attributes:
        columns: the static covariates that the model reads.
        device_of: the device of each series; empty where the model reads no static covariates.
        attributes: device_id, name, value.
    """

    columns: tuple[str, ...]
    device_of: dict[str, str]
    attributes: pl.DataFrame

    @classmethod
    def read(cls, catalog: Catalog, names: CovariateNames) -> Self:
        """Read what a model needs of the catalog."""
        if not names.static:
            return cls((), {}, pl.DataFrame())
        return cls(names.static, dict(catalog.series().select("series_id", "device_id").iter_rows()), catalog.attributes())

    def of(self, series_ids: Sequence[str]) -> NDArray[np.float64] | None:
        """Return the static covariates (B, J) of some series; None where the model has none."""
        return static_values([self.device_of[series] for series in series_ids], self.columns, self.attributes) if self.columns else None

    def changed_since(self, state: StreamState) -> list[str]:
        """Return the series whose state was made with other static covariates than theirs."""
        now_BJ = self.of(state.series_ids)
        if now_BJ is None or state.static_BJ is None:
            return []
        is_same_BJ = (now_BJ == state.static_BJ) | (np.isnan(now_BJ) & np.isnan(state.static_BJ))
        return [state.series_ids[slot] for slot in np.flatnonzero(~is_same_BJ.all(axis=1))]


@dataclass(frozen=True)
class Changes:
    """The rows that were added or removed since a state was made; a row that was replaced appears in both forms.

    Attributes:
        measured: rows of `Observations`, without their partition.
        announced: rows of `Plans`, without their partition.
    """

    measured: pl.DataFrame
    announced: pl.DataFrame

    @classmethod
    def since(cls, lake: Lake, consumed: InputVersions | None) -> Self | None:
        """Return what changed since; nothing for a state of nothing, None where the log no longer reaches back."""
        if consumed is None:
            return cls(Observations.empty(), Plans.empty())
        measured = changed_rows(lake, Observations, consumed.observations)
        announced = Plans.empty() if consumed.plans is None else changed_rows(lake, Plans, consumed.plans)
        return None if measured is None or announced is None else cls(measured, announced)


def first_changes(changes: Changes | None, state: StreamState, fleet: pl.DataFrame, config: ForecasterConfig) -> dict[str, int]:
    """For each series whose state has read a value that has changed since (its own or a covariate's), return the earliest such tick.

    Args:
        changes: of observations and plans; None where they are not known.
        state: the fleet's state.
        fleet: series of the catalog.
        config: names the covariates.

    Returns:
        The tick by series: a state that ends before it has read nothing that has changed. `WHOLLY` where the log does not tell.
    """
    if not state.series_ids:
        return {}
    if changes is None:  # every series may have changed
        return dict.fromkeys(state.series_ids, WHOLLY)
    grids = fleet.select("device_id", "sample_interval_us", "grid_offset_us", target="series_id")
    reached = pl.DataFrame({"target": state.series_ids, "read_to": state.tick_B}).join(grids, on="target")
    sources = pl.concat([reached.with_columns(series_id="target"), series_beside(reached, config.past_covariates)], how="diagonal")
    # Calibration remembers what was said of the ticks ahead, and that had read their plan.
    reach = 0 if state.calibration is None else config.horizon
    planned = _on_ticks(changes.announced, series_beside(reached, config.future_covariates))
    planned = announced_in_time(planned, timedelta(seconds=config.sample_interval_s), config.horizon)
    measured = changes.measured.filter(pl.col("n_obs") > 0)  # a gap says no more than a row that is not there
    changed = pl.concat(
        [
            _on_ticks(measured, sources).select("target", "read_to", "tick"),
            planned.select("target", "read_to", pl.col("tick") - reach),
        ]
    )
    behind = changed.filter(pl.col("tick") <= pl.col("read_to"))
    return dict(behind.group_by("target").agg(pl.col("tick").min()).sort("target").iter_rows())


def _on_ticks(changes: pl.DataFrame, sources: pl.DataFrame) -> pl.DataFrame:
    """Give each change its tick on the grid of every target that reads it."""
    return changes.join(sources, on="series_id").with_columns(tick=tick_expr())
