"""Rolling forecasts: advance the carried state through every tick closed since the last run, and write what it says.

Idempotent: the forecasts are committed before the snapshot moves, and a forecast that is already there is never written
again, so a run that dies anywhere is simply run again. Called by `flows.forecast`.
"""

import logging
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from models.config import ForecasterConfig
from pipeline.clock import Clock
from pipeline.errors import StoreError
from pipeline.failpoints import failpoint
from pipeline.forecast.engine import StreamEngine
from pipeline.forecast.revisions import InputVersions, StaticInputs, revised_series
from pipeline.forecast.rows import Issue, forecast_rows, status_of
from pipeline.forecast.state import StreamState
from pipeline.prepare.covariates import CovariateNames
from pipeline.prepare.grid import label_expr, tick_expr
from pipeline.prepare.join_covariates import join_covariates
from pipeline.prepare.sequences import Panel, serving_series, to_panel
from pipeline.schemas import EPOCH
from pipeline.settings import Settings
from pipeline.store.catalog import Catalog
from pipeline.store.forecasts import append_forecasts, scan_forecasts
from pipeline.store.lake import Lake, read
from pipeline.store.observations import read_observations
from pipeline.tracking.registry import LoadedModel, champion

logger = logging.getLogger(__name__)

KEPT_SNAPSHOTS = 2


@dataclass(frozen=True)
class ForecastReport:
    """What one run of the forecast stage did.

    Attributes:
        model_version: registry version of the champion.
        series: series in the fleet.
        ticks: ticks read, summed over series.
        replayed: series whose past was revised, so that their state was rebuilt.
        rows_written: forecasts committed, one for each series and origin.
        latest_origin: newest that this run forecast from; None where nothing was new.
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
    """Bring the forecasts of every series up to date.

    A series seen for the first time by this model is read from its first tick and forecast at its last `origins` ticks;
    after that, at every tick that has closed since.

    Args:
        settings: where lake and registry are.
        clock: for `created_at`.
        origins: ticks to forecast for series that are new to the model.

    Raises:
        ModelError: when there is no champion.
        DataError: when no series matches it.
    """
    lake, catalog = Lake(settings.lake), Catalog(settings.state_dir)
    model = champion(settings)
    config = model.model.config
    names = CovariateNames(*config.covariate_names)
    versions, static = InputVersions.newest(lake, names), StaticInputs.read(catalog, names)
    state, consumed = _resume(settings, catalog, model)
    redescribed = static.changed_since(state)
    if consumed == versions and not redescribed:
        return ForecastReport(model.version, len(state.series_ids), 0, 0, 0, None)
    fleet = serving_series(catalog.series(), model.card.series_patterns, config.sample_interval_s, names.metrics)
    issued_tick = _issued_ticks(lake, state, fleet, model)
    revised = sorted({*redescribed, *revised_series(lake, state, fleet, consumed, config)})
    state = _admit(_without_past(state, revised), fleet, model)
    panel = _new_ticks(lake, state, fleet)
    if panel is None:
        _save(settings, catalog, state, versions, static)
        return ForecastReport(model.version, len(state.series_ids), 0, len(revised), 0, None)
    state = _restarted(state, panel, model)
    run = _Run(lake, model, panel, state, versions.observations, clock.now())
    run.read_covariates(catalog, settings.ingest.allowed_lateness)
    rows = run.advance(issued_tick, origins)
    failpoint("forecast.after_commit")
    _save(settings, catalog, state, versions, static)
    failpoint("forecast.after_snapshot")
    logger.info("forecast model=%s series=%d rows=%d replayed=%d", model.version, len(state.series_ids), rows, len(revised))
    return ForecastReport(model.version, len(state.series_ids), int(run.target_B.sum()), len(revised), rows, run.latest_origin)


def _resume(settings: Settings, catalog: Catalog, model: LoadedModel) -> tuple[StreamState, InputVersions | None]:
    """Return the newest good state of this model and what it was made from, or an empty one."""
    pointer, calibrate = catalog.snapshot_pointer(model.identity), settings.forecast.calibrate
    if pointer is not None:
        try:
            state = StreamState.resume(_snapshots(settings) / pointer.path.name)
            if (state.calibration is not None) == calibrate:
                return state, InputVersions(pointer.observations_version, state.plans_version)
            logger.info("rebuilding the state of every series: calibration was turned %s", "on" if calibrate else "off")
        except StoreError as error:
            logger.warning("rebuilding the state of every series: %s", error)
    return StreamState.empty(model.identity, model.model, calibrate=calibrate), None


def _snapshots(settings: Settings) -> Path:
    return settings.state_dir / "snapshots"


def _issued_ticks(lake: Lake, state: StreamState, fleet: pl.DataFrame, model: LoadedModel) -> dict[str, int]:
    """Return the tick of the newest forecast of each series: from the state, or, where it was lost, from what was issued."""
    ticks = dict(zip(state.series_ids, state.tick_B.tolist(), strict=True))
    lost = fleet.filter(~pl.col("series_id").is_in(list(ticks)))
    if not lost.is_empty():
        newest = scan_forecasts(lake, series=lost["series_id"].to_list(), model_version=model.identity)
        origins = read(newest.group_by("series_id").agg(pl.col("origin").max())).join(lost, on="series_id")
        ticks |= dict(origins.select("series_id", tick_expr("origin")).iter_rows())
    return ticks


def _without_past(state: StreamState, revised: list[str]) -> StreamState:
    """Drop the state of revised series: they are admitted anew and replayed from their first tick."""
    if not revised:
        return state
    return state.select(np.flatnonzero(~np.isin(state.series_ids, revised)))


def _admit(state: StreamState, fleet: pl.DataFrame, model: LoadedModel) -> StreamState:
    """Give every series of the fleet that has none a fresh state, just before its first tick."""
    new = fleet.filter(~pl.col("series_id").is_in(list(state.series_ids)) & pl.col("first_ts").is_not_null())
    first_tick_B = new.select(tick_expr("first_ts")).to_series().to_numpy().astype(np.int64)
    return state.with_series(new["series_id"].to_list(), first_tick_B - 1, model.model)


def _new_ticks(lake: Lake, state: StreamState, fleet: pl.DataFrame) -> Panel | None:
    """Return the closed ticks that the state has not read; None when there are none. Columns follow the state's series."""
    following = pl.DataFrame({"series_id": state.series_ids, "tick": state.tick_B + 1}).join(fleet, on="series_id")
    # Series that have stopped have nothing to read; with them every tick would read the whole time since.
    start = following.filter(tick_expr("last_ts") >= pl.col("tick")).select(label_expr().min()).item()
    if start is None:
        return None
    observations = read_observations(lake, series=following["series_id"].to_list(), start=start)
    since = dict(following.select("series_id", "tick").iter_rows())
    panel = to_panel(observations, fleet, since_tick=since, restarts=True)
    return panel if panel.length_B.any() else None


def _restarted(state: StreamState, panel: Panel, model: LoadedModel) -> StreamState:
    """Give series that begin anew after a very long hole a fresh state, as they have in training."""
    next_tick = dict(zip(state.series_ids, (state.tick_B + 1).tolist(), strict=True))
    begins = {s: t for s, t in zip(panel.series_ids, panel.first_tick_B.tolist(), strict=True) if t != next_tick[s]}
    if not begins:
        return state
    return _without_past(state, list(begins)).with_series(list(begins), np.array(list(begins.values()), np.int64) - 1, model.model)


class _Run:
    """One advance of a fleet: which rows each series reads, and where its forecasts go."""

    def __init__(self, lake: Lake, model: LoadedModel, panel: Panel, state: StreamState, input_version: int, created_at: datetime) -> None:
        self.lake, self.model, self.state = lake, model, state
        self.issue = Issue(model.identity, input_version, created_at)
        self.config: ForecasterConfig = model.model.config
        slots = {series: slot for slot, series in enumerate(state.series_ids)}
        self.slots_B = np.array([slots[series] for series in panel.series_ids], dtype=np.int64)
        since_B = state.carried.since_B.numpy()[self.slots_B]
        self.target_B, self.is_silent_B = _targets(panel, since_B, self.config.history_length)
        self.panel = _extended(panel, int(self.target_B.max()))
        self.latest_origin: datetime | None = None

    def read_covariates(self, catalog: Catalog, allowed_lateness: timedelta) -> None:
        """Join what else is known of the ticks that will be read."""
        start = min(self.panel.label(b, 0) for b in np.flatnonzero(self.target_B).tolist())  # not those that stopped long ago
        names, horizon = CovariateNames(*self.config.covariate_names), self.config.horizon
        self.panel = join_covariates(self.panel, names, self.lake, catalog, horizon=horizon, allowed_lateness=allowed_lateness, start=start)

    def advance(self, issued_tick: dict[str, int], origins: int) -> int:
        """Advance every series to its target and append the forecasts; return how many rows were new.

        Series that read the same number of ticks and forecast the same ones go through the engine together.
        """
        first_B = np.array(
            [
                issued_tick[series] + 1 - int(first) if series in issued_tick else int(target) - origins
                for series, first, target in zip(self.panel.series_ids, self.panel.first_tick_B, self.target_B, strict=True)
            ]
        ).clip(min=0)
        seen_B = self.state.carried.count_B.numpy()[self.slots_B]
        since_B = self.state.carried.since_B.numpy()[self.slots_B]
        status_TB = status_of(self.panel.values_TB, seen_B, since_B, self.config, self.is_silent_B)
        rows = 0
        for target, first in sorted(set(zip(self.target_B.tolist(), first_B.tolist(), strict=True))):
            columns_B = np.flatnonzero((self.target_B == target) & (first_B == first))
            if target > 0:
                rows += self._advance_group(columns_B, target, first, status_TB)
        return rows

    def _advance_group(self, columns_B: NDArray[np.int64], target: int, first: int, status_TB: NDArray[np.str_]) -> int:
        slots_B = self.slots_B[columns_B]
        before = self.state.select(slots_B)
        engine = StreamEngine(self.model.model, before.carried, before.calibration)
        part = self.panel.columns(columns_B)
        rows = 0
        for block in engine.advance(part.values_TB[:target], part.time_TB[:target], np.arange(first, target), part.covariates):
            frame = forecast_rows(
                block,
                self.panel,
                columns_B,
                status_TB,
                before.carried.history_RB[-1].numpy(),
                self.config,
                self.issue,
            )
            rows += append_forecasts(self.lake, frame)
            self.latest_origin = max(frame["origin"].to_list()[-1], self.latest_origin or EPOCH)
        self.state.carried.replace(torch.from_numpy(slots_B), engine.carried)
        if self.state.calibration is not None and engine.calibration is not None:
            self.state.calibration.replace(slots_B, engine.calibration)
        self.state.tick_B[slots_B] += target
        return rows


def _targets(panel: Panel, since_B: NDArray[np.int64], patience: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return how many ticks each series reads, and which have stopped.

    The fleet's frontier is its newest observed tick. A series goes on to it through unobserved ticks, unless it has been
    silent for longer than `patience` ticks: then it stays where it is until it comes back.

    Args:
        panel: new ticks; the last row of a series is observed, if it has any.
        since_B: ticks since the last observation, before the panel.
        patience: ticks.
    """
    end_B = panel.first_tick_B + panel.length_B
    lag_B = end_B.max() - end_B
    is_silent_B = lag_B + np.where(panel.length_B > 0, 0, since_B) > patience
    return np.where(is_silent_B, panel.length_B, panel.length_B + lag_B), is_silent_B


def _extended(panel: Panel, num_ticks: int) -> Panel:
    missing = max(0, num_ticks - panel.values_TB.shape[0])
    return replace(panel, values_TB=np.pad(panel.values_TB, ((0, missing), (0, 0)), constant_values=np.nan))


def _save(settings: Settings, catalog: Catalog, state: StreamState, versions: InputVersions, static: StaticInputs) -> None:
    """Write the snapshot, point to it, then drop the oldest: a crash in between leaves the previous one in force."""
    folder = _snapshots(settings)
    path = folder / f"model-{state.model_version}-observations-{versions.observations}.safetensors"
    replace(state, plans_version=versions.plans, static_BJ=static.of(state.series_ids)).snapshot(path)
    catalog.set_snapshot_pointer(state.model_version, path.name, versions.observations)  # the name alone: lakes are moved
    files = sorted(folder.glob(f"model-{state.model_version}-observations-*.safetensors"), key=lambda file: file.stat().st_mtime)
    for old in files[:-KEPT_SNAPSHOTS]:
        old.unlink(missing_ok=True)
