"""Rolling forecasts: advance the carried state through every tick closed since the last time, and write what it says.

`pipeline.forecast.follower` opens it once and advances it at every tick, with the state in memory in between; each run of
`flows.forecast` opens, advances and saves it. Both leave the same tables. Idempotent: the forecasts are committed before the snapshot
moves, and a forecast that is already stored is never written again: a run that dies anywhere is simply run again.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Self

import numpy as np
import polars as pl

from pipeline.clock import Clock
from pipeline.failpoints import failpoint
from pipeline.forecast.catching_up import Knowledge, passes
from pipeline.forecast.ladder import restart, rewind
from pipeline.forecast.leadership import Leadership
from pipeline.forecast.new_ticks import Advance, ForecastWriter, new_panels
from pipeline.forecast.origins import Origins
from pipeline.forecast.revisions import Changes, InputVersions, StaticInputs, first_changes
from pipeline.forecast.rows import Issue
from pipeline.forecast.snapshots import Snapshots
from pipeline.forecast.state import WHOLLY, StreamState
from pipeline.prepare.covariates import CovariateNames
from pipeline.prepare.grid import tick_expr
from pipeline.prepare.sequences import Panel, serving_series
from pipeline.schemas import EPOCH
from pipeline.settings import Settings
from pipeline.store.catalog import Catalog
from pipeline.store.forecasts import scan_forecasts
from pipeline.store.handovers import Handovers
from pipeline.store.lake import Lake, read
from pipeline.tracking.registry import champion
from pipeline.tracking.saved_model import LoadedModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ForecastReport:
    """What one run of the forecast stage did.

    Attributes:
        model_version: registry version of the champion.
        series: series in the fleet.
        ticks: ticks read, summed over series.
        replayed: series whose state was rebuilt because their past was revised.
        rows_written: forecasts committed, one for each series and origin.
        latest_origin: newest origin that this run forecast from; None where nothing was new.
        scored: steps of earlier forecasts that came true and were scored after this run (`pipeline.evaluate.maturity`).
    """

    model_version: str
    series: int
    ticks: int
    replayed: int
    rows_written: int
    latest_origin: datetime | None
    scored: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return {**asdict(self), "latest_origin": self.latest_origin.isoformat() if self.latest_origin else None}


def forecast(settings: Settings, clock: Clock, *, origins: int = 1) -> ForecastReport:
    """Bring the forecasts of every series up to date, once.

    A series that is new to this model is read from its first tick and forecast at its last `origins` ticks; after that, at every tick
    that closes. While a follower forecasts the lake, a run beside it writes what the follower would write, and leaves the snapshot to it.

    Args:
        settings: where lake and registry are.
        clock: for `created_at`.
        origins: ticks to forecast for series that are new to the model.

    Raises:
        ModelError: when there is no champion.
        DataError: when no series matches it.
        StoreError: when the lake cannot be read or written.
    """
    model = champion(settings)
    leadership = Leadership.take(settings, clock)
    with leadership.renewed() if leadership is not None else nullcontext():
        rolling = RollingForecasts.open(settings, model, leadership)
        report = rolling.advance(clock, origins=origins)
        if leadership is not None:
            rolling.snapshot()
            Handovers(settings.state_dir).record(model.version, model.identity, clock.now())
    return report


class RollingForecasts:
    """The carried state of a fleet in memory, and what it was made from.

    Do not use it after an error: open another one, from the last snapshot.
    """

    def __init__(self, settings: Settings, model: LoadedModel, state: StreamState, leadership: Leadership | None = None) -> None:
        self.model = model
        self.state = state
        self.leadership = leadership
        self._settings = settings
        self._lake, self._catalog = Lake(settings.lake), Catalog(settings.state_dir)
        self._snapshots = Snapshots(settings.state_dir)
        self._names = CovariateNames(*model.model.config.covariate_names)
        self._is_saved = True

    @classmethod
    def open(cls, settings: Settings, model: LoadedModel, leadership: Leadership | None = None) -> Self:
        """Resume from the newest snapshot of a model; without a good one, from nothing.

        Args:
            settings: say where the lake is.
            model: the forecasting model.
            leadership: this process's lease; None where it must not move the snapshot.
        """
        state, calibrate = Snapshots(settings.state_dir).newest(model.identity), settings.forecast.calibrate
        if state is not None and (state.calibration is not None) != calibrate:
            logger.info("rebuilding the state of every series: calibration was turned %s", "on" if calibrate else "off")
            state = None
        return cls(settings, model, state or StreamState.empty(model.identity, model.model, calibrate=calibrate), leadership)

    def advance(self, clock: Clock, *, origins: int = 1, issued: Mapping[str, int] | None = None) -> ForecastReport:
        """Read every tick that is in the tables and not yet in the state, and commit its forecasts.

        Args:
            clock: for `created_at`.
            origins: ticks to forecast for series that have no forecast yet; 0 for none.
            issued: the newest tick that the model that served before forecast each series from; None for this model's own.

        Raises:
            DataError: when no series matches the model.
            LeaseLostError: when another process has taken over.
            StoreError: when the lake cannot be read or written.
        """
        # In this order: pin the inputs to one version each, so that whatever is committed meanwhile waits for the next advance; find which
        # origins are due; in each pass take back the series that were revised, then read and forecast; commit the forecasts; and record
        # the versions in the state last: a run that dies before that reads the same again and finds the forecasts that it committed.
        versions, static = InputVersions.newest(self._lake, self._names), StaticInputs.read(self._catalog, self._names)
        redescribed = static.changed_since(self.state)
        if self._consumed == versions and not redescribed:
            return self._report()
        lake, fleet = versions.of(self._lake), self._fleet(clock.now())
        changes, config = Changes.since(lake, self._consumed), self.model.model.config
        due = Origins.due(self._issued_ticks(fleet) if issued is None else issued, origins, changes, fleet, config.history_length)
        writer = ForecastWriter(self._lake, None if self.leadership is None else self.leadership.fence)
        issue = Issue(self.model.identity, versions.observations, clock.now())
        replayed, ticks = set[str](), 0
        everyone = self._catalog.series()  # the retired too: the state of one that comes back must not have missed a correction
        for part in passes(changes, fleet, due.frontier):
            changed = first_changes(part.changes, self.state, everyone, config) | dict.fromkeys(redescribed, WHOLLY)
            self._revise(lake, changed, fleet, everyone, part.knowledge)
            ticks += self._read(lake, new_panels(lake, self.state, fleet, part.knowledge), due, issue, writer)
            replayed |= changed.keys()
            redescribed = []  # the first pass has rebuilt them
            due = due.after(self.ticks)
        writer.commit()
        failpoint("forecast.after_commit")
        self.state = replace(
            self.state,
            observations_version=versions.observations,
            plans_version=versions.plans,
            static_BJ=static.of(self.state.series_ids),
        )
        self._is_saved = False
        report = replace(self._report(), ticks=ticks, replayed=len(replayed), rows_written=writer.rows, latest_origin=writer.latest_origin)
        logger.info(
            "forecast model=%s series=%d rows=%d replayed=%d", report.model_version, report.series, report.rows_written, report.replayed
        )
        return report

    def snapshot(self) -> None:
        """Write the state to disk and point to it, unless it has not changed since it was read from there.

        Raises:
            LeaseLostError: when another process has taken over.
            StoreError: when the state folder cannot be written.
        """
        if not self._is_saved:
            self.state = self._snapshots.save(self.state, self._interval, self.leadership)
            failpoint("forecast.after_snapshot")
            self._is_saved = True

    @property
    def ticks(self) -> dict[str, int]:
        """The newest tick that each series has read, which is also the newest that it was forecast from."""
        return dict(zip(self.state.series_ids, self.state.tick_B.tolist(), strict=True))

    @property
    def frontier(self) -> datetime | None:
        """The newest label that any series was read up to, less its grid offset; None for an empty state."""
        newest = int(self.state.tick_B.max(initial=0)) * self._interval
        return EPOCH + newest if len(self.state.tick_B) else None

    @property
    def _interval(self) -> timedelta:
        return timedelta(seconds=self.model.model.config.sample_interval_s)

    @property
    def _consumed(self) -> InputVersions | None:
        """What the state was made from; None for an empty state."""
        version = self.state.observations_version
        return None if version is None else InputVersions(version, self.state.plans_version)

    def _report(self) -> ForecastReport:
        return ForecastReport(self.model.version, len(self.state.series_ids), 0, 0, 0, None)

    def _fleet(self, now: datetime) -> pl.DataFrame:
        """Return the series to forecast: all of the catalog that the model serves, without the retired ones."""
        config, retired = self.model.model.config, self._catalog.retired(now, self._settings.forecast.retire_after)
        serving = self._catalog.series().filter(~pl.col("series_id").is_in(sorted(retired)))
        return serving_series(serving, self.model.card.series_patterns, config.sample_interval_s, self._names.metrics)

    def _issued_ticks(self, fleet: pl.DataFrame) -> dict[str, int]:
        """Return the tick of the newest forecast of each series: from the state, or, where that was lost, from the table of forecasts."""
        ticks = self.ticks
        lost = fleet.filter(~pl.col("series_id").is_in(list(ticks)) & pl.col("first_ts").is_not_null())
        if not lost.is_empty():
            newest = scan_forecasts(self._lake, series=lost["series_id"].to_list(), model_version=self.model.identity)
            origins = read(newest.group_by("series_id").agg(pl.col("origin").max())).join(lost, on="series_id")
            ticks |= dict(origins.select("series_id", tick_expr("origin")).iter_rows())
        return ticks

    def _revise(self, lake: Lake, changed: Mapping[str, int], fleet: pl.DataFrame, everyone: pl.DataFrame, known: Knowledge) -> None:
        """Take back the series that have changed; give series without a state a fresh one, just before their first tick."""

        def first_ticks(series: Sequence[str]) -> dict[str, int]:
            return known.first_ticks(lake, everyone.filter(pl.col("series_id").is_in(series)))

        rewind(self.state, changed, first_ticks, self.model.model, self._snapshots)
        new = fleet.filter(~pl.col("series_id").is_in(list(self.state.series_ids)))["series_id"].to_list()
        firsts = first_ticks(new) if new else {}
        if firsts:
            before_B = np.array(list(firsts.values()), dtype=np.int64) - 1
            self.state = self.state.with_series(list(firsts), before_B, self.model.model)

    def _read(self, lake: Lake, panels: list[Panel], due: Origins, issue: Issue, writer: ForecastWriter) -> int:
        """Advance through the panels; return how many ticks were read."""
        frontier_us = max((int(panel.labels_us(panel.length_B - 1).max()) for panel in panels), default=0)
        ticks = 0
        for panel in panels:
            self._restart_moved(panel)
            part = Advance(self.model, panel, self.state, frontier_us, due, issue)
            part.read_covariates(lake, self._catalog, self._settings.ingest.allowed_lateness)
            part.run(writer)
            ticks += int(part.target_B.sum())
        return ticks

    def _restart_moved(self, panel: Panel) -> None:
        """Give series that begin again after a very long gap a fresh state, as they have in training."""
        slots = self.state.slots()
        slots_B = np.array([slots[series] for series in panel.series_ids], dtype=np.int64)
        moved_B = panel.first_tick_B != self.state.tick_B[slots_B] + 1
        restart(self.state, slots_B[moved_B], panel.first_tick_B[moved_B], self.model.model)
