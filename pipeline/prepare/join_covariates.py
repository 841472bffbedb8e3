"""Gives a panel its covariates from the lake, each value as it was known when it may be used.

A past covariate is the newest value of its tick known when the tick closed: a value that comes late is not observed, in training as live,
so no correction reaches an earlier origin. A known-future covariate is the newest value announced at least a whole horizon before its
tick, so every origin that reaches the tick knew it; later revisions are ignored. Called by `pipeline.train`, `pipeline.forecast` and
`pipeline.evaluate`; `values_beside` by `pipeline.offline` too.

Letters: T ticks, B series, V covariates of one kind, J static covariates.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.prepare.covariates import CovariateNames, PanelCovariates
from pipeline.prepare.grid import label_expr, tick_expr
from pipeline.prepare.sequences import Panel
from pipeline.schemas import Plans
from pipeline.store.catalog import Catalog
from pipeline.store.identity import series_id, series_id_of
from pipeline.store.lake import Lake
from pipeline.store.observations import read_observations
from pipeline.store.plans import read_plans

MAX_CATEGORIES = 50  # of one attribute: more of them name devices rather than kinds


def join_covariates(
    panel: Panel,
    names: CovariateNames,
    lake: Lake,
    catalog: Catalog,
    *,
    horizon: int,
    allowed_lateness: timedelta,
    start: datetime | None = None,
) -> Panel:
    """Return the panel with its covariates; the panel itself where there are none to read.

    A value belongs to the panel's tick in which it lies, whatever its own grid; of several values in one tick, the last counts.

    Args:
        panel: series of the catalog.
        names: what to read; static names as `chosen_names` returns them.
        lake: observations and plans.
        catalog: which device a series is of, and the attributes of devices.
        horizon: ticks that a forecast reaches.
        allowed_lateness: how long after its label a tick closes.
        start: the first label that will be read; None for the panel's first.

    Raises:
        StoreError: when the lake cannot be read.
    """
    if not any(names):
        return panel
    devices = _devices(panel, catalog)
    num_ticks = len(panel.values_TB)
    start = (start or panel.start) - panel.interval
    end = max(panel.label(b, num_ticks + horizon) for b in range(len(devices)))
    past, future = ([series_id_of(device, metric) for device in devices for metric in metrics] for metrics in (names.past, names.future))
    measured = read_observations(lake, series=past, start=start, end=end, on_time=allowed_lateness)
    announced = read_plans(lake, series=future, start=start, end=end) if names.future else Plans.empty()
    known_ahead = announced_in_time(_on_ticks(announced, panel, devices, names.future), panel.interval, horizon)
    covariates = PanelCovariates(
        names,
        values_beside(panel, devices, names.past, measured, num_ticks),
        _arranged(known_ahead, (num_ticks + horizon, len(devices), len(names.future))),
        static_values(devices, names.static, catalog.attributes()),
    )
    return replace(panel, covariates=covariates)


def covariates_of_frame(panel: Panel, names: CovariateNames, history: pl.DataFrame, *, horizon: int) -> Panel:
    """Return the panel with covariates from the columns of one frame; the caller must ensure that each value was known in time.

    Args:
        panel: the frame's series.
        names: what to read.
        history: series_id, ts and a column for each metric and attribute; rows after a series' last tick are its plan.
        horizon: ticks that a forecast reaches.
    """
    devices = list(panel.series_ids)

    def arranged(metrics: tuple[str, ...], num_rows: int) -> NDArray[np.float64]:
        rows = history.rename({"series_id": "device_id"}).unpivot(metrics, index=("device_id", "ts"), variable_name="metric")
        rows = rows.with_columns(series_id(), pl.col("value").cast(pl.Float64).fill_nan(None))
        return values_beside(panel, devices, metrics, rows, num_rows)

    last = history.group_by("series_id").agg(pl.col(name).drop_nulls().last().cast(pl.String) for name in names.attributes)
    attributes = last.unpivot(index="series_id", variable_name="name").select("series_id", "name", "value")
    num_ticks = len(panel.values_TB)
    past_TBP, future_SBU = arranged(names.past, num_ticks), arranged(names.future, num_ticks + horizon)
    return replace(panel, covariates=PanelCovariates(names, past_TBP, future_SBU, static_values(devices, names.static, attributes)))


def values_beside(panel: Panel, devices: list[str], metrics: Sequence[str], rows: pl.DataFrame, num_rows: int) -> NDArray[np.float64]:
    """Return values of other metrics on a panel's ticks (T, B, V), NaN where there is none; of several in one tick the last.

    Args:
        panel: the series, whatever grid the others have.
        devices: each series' device; the series beside it are called "device/metric".
        metrics: one for each column.
        rows: series_id, ts and value.
        num_rows: T; ticks from the panel's first on.
    """
    placed = _on_ticks(rows.select("series_id", "ts", "value"), panel, devices, metrics)
    return _arranged(placed, (num_rows, len(devices), len(metrics)))


def chosen_names(past: Sequence[str], future: Sequence[str], static: Sequence[str], panel: Panel, catalog: Catalog) -> CovariateNames:
    """Return the covariates that a training on a panel reads: a text attribute becomes one column for each of its values.

    Raises:
        DataError: when no device of the panel has an attribute, or one has too many words.
    """
    attributes = catalog.attributes().join(pl.DataFrame({"device_id": _devices(panel, catalog)}).unique(), on="device_id", how="semi")
    columns: list[str] = []
    for name in static:
        values = attributes.filter(name=name)["value"].unique().sort()
        if values.is_empty():
            raise DataError(
                f"A static covariate requires an attribute of the devices trained on; got {name!r}, which none has. "
                "Read it in with `tidecast ingest --devices FILE`."
            )
        is_number = values.cast(pl.Float64, strict=False).is_not_null().all()
        columns += [name] if is_number else [f"{name}={value}" for value in values]
        if not is_number and len(values) > MAX_CATEGORIES:
            raise DataError(
                f"A static covariate requires numbers or at most {MAX_CATEGORIES} words; got {len(values)} for {name!r}. Leave it out."
            )
    return CovariateNames(tuple(past), tuple(future), tuple(columns))


def series_beside(targets: pl.DataFrame, metrics: Sequence[str]) -> pl.DataFrame:
    """Return a row for each target and metric: the series (`series_id`) and the index of its metric (`covariate`).

    Args:
        targets: device_id and any other columns, which are kept.
        metrics: what the series beside the targets measure.
    """
    names = pl.DataFrame({"covariate": range(len(metrics)), "metric": metrics}, schema={"covariate": pl.Int64, "metric": pl.String})
    return targets.join(names, how="cross").with_columns(series_id())


def announced_in_time(announced: pl.DataFrame, interval: timedelta, horizon: int) -> pl.DataFrame:
    """Keep announcements made a horizon or more before the label of their tick, the newest last.

    Args:
        announced: available_at, ingested_at, tick and the target's sample_interval_us, grid_offset_us.
        interval: grid spacing of the targets.
        horizon: ticks that a forecast reaches.
    """
    return announced.filter(pl.col("available_at") <= label_expr() - horizon * interval).sort("available_at", "ingested_at")


def static_values(devices: list[str], names: Sequence[str], attributes: pl.DataFrame) -> NDArray[np.float64]:
    """Return static covariates (B, J): a number (NaN if unknown), or for a `name=word` column 1 or 0 (0 if unknown).

    Args:
        devices: one for each of the B series.
        names: columns, as `chosen_names` returns them.
        attributes: device_id, name, value.
    """
    known = {(device, name): value for device, name, value in attributes.iter_rows()}
    static_BJ = np.full((len(devices), len(names)), np.nan)
    for j, column in enumerate(names):
        name, _, word = column.partition("=")
        values = [known.get((device, name)) for device in devices]
        numbers = pl.Series(values, dtype=pl.String).cast(pl.Float64, strict=False).to_numpy()
        static_BJ[:, j] = [value == word for value in values] if word else numbers
    return static_BJ


def _devices(panel: Panel, catalog: Catalog) -> list[str]:
    device = dict(catalog.series().select("series_id", "device_id").iter_rows())
    return [device[series] for series in panel.series_ids]


def _on_ticks(rows: pl.DataFrame, panel: Panel, devices: list[str], metrics: Sequence[str]) -> pl.DataFrame:
    """Give each value the tick of each target in which it lies, and the column and covariate that it is of."""
    columns = pl.DataFrame(
        {"column": range(len(devices)), "device_id": devices, "grid_offset_us": panel.offset_us_B, "first": panel.first_tick_B},
        schema_overrides={"column": pl.Int64, "device_id": pl.String},
    ).with_columns(sample_interval_us=pl.lit(panel.interval_us))
    wanted = series_beside(columns, metrics)
    return rows.drop_nulls("value").join(wanted, on="series_id", maintain_order="left").with_columns(tick=tick_expr())


def _arranged(placed: pl.DataFrame, shape: tuple[int, int, int]) -> NDArray[np.float64]:
    """Return values (T, B, V), NaN where there is none; of several in one tick the one of the last instant."""
    index = ("row", "column", "covariate")
    last = (
        placed.with_columns(row=pl.col("tick") - pl.col("first"))
        .filter(pl.col("row").is_between(0, shape[0] - 1))
        .sort("ts", maintain_order=True)
        .unique(index, keep="last", maintain_order=True)
    )
    values_TBV = np.full(shape, np.nan)
    values_TBV[tuple(last[name].to_numpy() for name in index)] = last["value"].to_numpy()
    return values_TBV
