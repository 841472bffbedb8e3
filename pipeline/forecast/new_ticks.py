"""The ticks that a fleet has still to read, and the advance through them. Called by `pipeline.forecast.rolling`."""

import logging
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from models.config import ForecasterConfig
from pipeline.forecast.catching_up import EVERYTHING, Knowledge
from pipeline.forecast.engine import StreamEngine
from pipeline.forecast.origins import Origins
from pipeline.forecast.rows import Issue, forecast_rows, status_of
from pipeline.forecast.state import StreamState
from pipeline.prepare.covariates import CovariateNames
from pipeline.prepare.grid import label_expr, tick_expr
from pipeline.prepare.join_covariates import join_covariates
from pipeline.prepare.sequences import Panel, to_panel
from pipeline.store.catalog import Catalog
from pipeline.store.commits import Fence
from pipeline.store.forecasts import append_forecasts
from pipeline.store.lake import Lake
from pipeline.tracking.saved_model import LoadedModel

logger = logging.getLogger(__name__)

Ints = NDArray[np.int64]

FAR = 256  # series this many ticks behind are read in a panel of their own, so that one replay does not read the whole fleet's history
WRITTEN_AT_ONCE = 32_000_000  # quantiles of one commit; 128 MB


def new_panels(lake: Lake, state: StreamState, fleet: pl.DataFrame, known: Knowledge = EVERYTHING) -> list[Panel]:
    """Return the closed ticks that the state has not read: one panel of the series near the frontier, one of the series far behind.

    Args:
        lake: holds the observations.
        state: the fleet's state.
        fleet: series of the catalog.
        known: which observations are read.

    Returns:
        Panels of distinct series, together all series of the state that are in the fleet; none when there is nothing to read.
    """
    reached = pl.DataFrame({"series_id": state.series_ids, "tick": state.tick_B + 1}, schema={"series_id": pl.String, "tick": pl.Int64})
    following = reached.join(fleet, on="series_id")
    # Series that have stopped have nothing to read; including them would make every tick read the whole time since they stopped.
    is_due = tick_expr("last_ts") >= pl.col("tick")
    newest = following.filter(is_due)["tick"].max()
    if newest is None:
        return []
    is_far = is_due & (pl.col("tick") < pl.lit(newest) - FAR)
    parts = [part for part in (following.filter(~is_far), following.filter(is_far)) if not part.is_empty()]
    panels = [_panel(lake, part, is_due, fleet, known) for part in parts]
    return panels if any(panel.length_B.any() for panel in panels) else []


def _panel(lake: Lake, following: pl.DataFrame, is_due: pl.Expr, fleet: pl.DataFrame, known: Knowledge) -> Panel:
    start = following.filter(is_due).select(label_expr().min()).item()
    observations = known.observations(lake, following["series_id"].to_list(), start)
    return to_panel(observations, fleet, since_tick=dict(following.select("series_id", "tick").iter_rows()), restarts=True)


@dataclass
class ForecastWriter:
    """The forecasts of one advance, gathered into few commits.

    Attributes:
        lake: where the forecasts are written.
        fence: proves that this process may write; None where no other process writes.
        rows: how many rows were new to the table.
        latest_origin: the newest origin of all rows, new or not.
    """

    lake: Lake
    fence: Fence | None
    rows: int = 0
    latest_origin: datetime | None = None
    _waiting: list[pl.DataFrame] = field(default_factory=list)
    _num_waiting: int = 0

    def add(self, frame: pl.DataFrame, num_quantiles: int) -> None:
        """Add rows of `Forecasts`, each of `num_quantiles`; commit once `WRITTEN_AT_ONCE` quantiles wait."""
        self._waiting.append(frame)
        self._num_waiting += frame.height * num_quantiles
        if self._num_waiting >= WRITTEN_AT_ONCE:
            self.commit()

    def commit(self) -> None:
        """Commit the rows that wait."""
        if not self._waiting:
            return
        frame = pl.concat(self._waiting)
        self._waiting, self._num_waiting = [], 0
        self.rows += append_forecasts(self.lake, frame, self.fence)
        newest: datetime = frame.select(pl.col("origin").max()).item()
        self.latest_origin = newest if self.latest_origin is None else max(newest, self.latest_origin)


class Advance:
    """One advance of the series of one panel: which rows each series reads, and which origins it forecasts from."""

    def __init__(self, model: LoadedModel, panel: Panel, state: StreamState, frontier_us: int, origins: Origins, issue: Issue) -> None:
        """Prepare an advance.

        Args:
            model: the forecasting model.
            panel: new ticks.
            state: the fleet's state.
            frontier_us: the fleet's newest label, microseconds since the epoch.
            origins: the origins that are due.
            issue: what all rows share.
        """
        self.model, self.state, self.origins, self.issue = model, state, origins, issue
        self.config: ForecasterConfig = model.model.config
        slots = state.slots()
        self.slots_B = np.array([slots[series] for series in panel.series_ids], dtype=np.int64)
        since_B = state.carried.since_B.numpy()[self.slots_B]
        keeps_up_B = origins.keeps_up(panel.series_ids)
        frontier_B = (frontier_us - panel.offset_us_B) // panel.interval_us + 1
        self.target_B, self.is_silent_B = targets(panel, since_B, self.config.history_length, frontier_B, keeps_up_B)
        self.panel = _extended(panel, int(self.target_B.max()))

    def read_covariates(self, lake: Lake, catalog: Catalog, allowed_lateness: timedelta) -> None:
        """Join the covariates of the ticks that will be read."""
        names, horizon = CovariateNames(*self.config.covariate_names), self.config.horizon
        read_B = np.flatnonzero(self.target_B).tolist()  # not those that stopped long ago
        if not read_B or not any(names):
            return
        start = min(self.panel.label(b, 0) for b in read_B)
        self.panel = join_covariates(self.panel, names, lake, catalog, horizon=horizon, allowed_lateness=allowed_lateness, start=start)

    def run(self, writer: ForecastWriter) -> None:
        """Advance every series to its target and write the forecasts of the ticks that had none.

        Series that read the same number of ticks and forecast from the same ones go through the engine together.

        Args:
            writer: gathers the forecasts.
        """
        end_B = self.panel.first_tick_B + self.target_B
        due_B = self.origins.first(self.panel.series_ids, end_B)
        first_B = (due_B - self.panel.first_tick_B).clip(min=0)
        seen_B = self.state.carried.count_B.numpy()[self.slots_B]
        since_B = self.state.carried.since_B.numpy()[self.slots_B]
        status_TB = status_of(self.panel.values_TB, seen_B, since_B, self.config, self.is_silent_B)
        for target, first in sorted(set(zip(self.target_B.tolist(), first_B.tolist(), strict=True))):
            columns_B = np.flatnonzero((self.target_B == target) & (first_B == first))
            if target > 0:
                self._run_group(columns_B, target, first, status_TB, writer)

    def _run_group(self, columns_B: Ints, target: int, first: int, status_TB: NDArray[np.str_], writer: ForecastWriter) -> None:
        before = self.state.select(self.slots_B[columns_B])
        last_B = before.carried.history_RB[-1].numpy()
        engine = StreamEngine(self.model.model, before.carried, before.calibration)
        part = self.panel.columns(columns_B)
        for block in engine.advance(part.values_TB[:target], part.time_TB[:target], np.arange(first, target), part.covariates):
            frame = forecast_rows(block, self.panel, columns_B, status_TB, last_B, self.config, self.issue)
            writer.add(frame, self.config.horizon * len(self.config.quantile_levels))
        self.state.put(self.slots_B[columns_B], replace(before, tick_B=before.tick_B + target))


def targets(panel: Panel, since_B: Ints, patience: int, frontier_B: Ints, keeps_up_B: NDArray[np.bool_]) -> tuple[Ints, NDArray[np.bool_]]:
    """Return how many ticks each series reads, and which series have stopped.

    A series goes on to the fleet's frontier through unobserved ticks, unless it has been silent for longer than `patience` ticks: then
    it stays where it is until it sends again. A series that had kept up with the fleet first goes on for `patience` ticks, as it does
    when ticks are read one by one.

    Args:
        panel: new ticks; the last row of a series is observed, if it has any.
        since_B: ticks since the last observation, before the panel.
        patience: ticks.
        frontier_B: the tick after the last that is complete at the fleet's newest label.
        keeps_up_B: series that were forecast from the fleet's newest tick the last time.
    """
    lag_B = np.maximum(frontier_B - (panel.first_tick_B + panel.length_B), 0)
    left_B = patience - np.where(panel.length_B > 0, 0, since_B)
    is_silent_B = lag_B > left_B
    reads_on_B = np.where(is_silent_B, np.where(keeps_up_B, np.maximum(left_B, 0), 0), lag_B)
    return panel.length_B + reads_on_B, is_silent_B & ~keeps_up_B


def _extended(panel: Panel, num_ticks: int) -> Panel:
    missing = max(0, num_ticks - panel.values_TB.shape[0])
    return replace(panel, values_TB=np.pad(panel.values_TB, ((0, missing), (0, 0)), constant_values=np.nan))
