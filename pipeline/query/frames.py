"""Read forecasts back as one tidy frame: by series, device and metric, newest or any range of origins, as known at any instant.

Called by the command line, by notebooks and by whatever serves forecasts; imports neither torch, MLflow nor Prefect. The stored
table has one row for each series and origin; this module finds the few rows that are asked for and explodes those alone.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

import polars as pl

from models.config import ForecasterConfig
from pipeline.errors import SettingsError, StoreError
from pipeline.query.locate import KEYS, ForecastFiles, Selection, every, newest
from pipeline.schemas import MICROSECOND, UTC_US, Forecasts
from pipeline.store.lake import Lake


def query_forecasts(  # noqa: PLR0913 (one keyword for each way to narrow a query)
    lake: str,
    *,
    series: Sequence[str] | None = None,
    device: str | None = None,
    metric: str | None = None,
    latest: bool = True,
    start: datetime | None = None,
    end: datetime | None = None,
    step: int | None = None,
    lead_time: timedelta | None = None,
    at: datetime | None = None,
    as_of: datetime | None = None,
    model_version: str | None = None,
    with_actuals: bool = False,
) -> pl.DataFrame:
    """Return stored forecasts in long form, one row for each target time.

    Names may hold `*` (any characters) and `?` (one character): `series=["ETTh1/*"]`, `device="plant-0?"`.

    Args:
        lake: folder or URI of the lake.
        series: series ids or patterns; None means all.
        device: the part of a series id before its metric.
        metric: the last part of a series id.
        latest: keep one forecast for each series, that of its newest origin (of several models there, the one written last);
            False keeps every origin.
        start: first origin, inclusive.
        end: last origin, inclusive.
        step: keep this step (1..horizon) only.
        lead_time: keep the target at this distance from the origin only.
        at: keep what was forecast for this instant only, from origins before it; with `latest`, from the newest of those.
        as_of: read as if it were this instant: only forecasts, and with them only actuals, that existed then.
        model_version: keep one model's forecasts only.
        with_actuals: add what came true, as far as it is known.

    Returns:
        `series_id, origin, step, ts, q0.1 … q0.9 (Float32, the metric's unit), model_version, input_version (the Delta version of
        observations that it was made from), status, created_at` and, if asked for, `actual` (Float64, null where unknown); sorted by
        series, origin, model and step; empty where nothing matches.

    Raises:
        SettingsError: for a naive datetime, a step below 1, a lead time or an instant that no series' grid has, or more than one of
            step, lead time and `at`.
        StoreError: where the lake cannot be read.
    """
    _check(step=step, lead_time=lead_time, at=at, start=start, end=end, as_of=as_of)
    wanted = Selection(tuple(series) if series is not None else None, device, metric, start, end, as_of, model_version, at)
    store = Lake(lake)
    files = ForecastFiles.of(store, wanted)
    rows = files.read(newest(files, wanted) if latest else every(files, wanted))
    frame = _long_form(_narrow(rows, step, lead_time, at))
    return _with_actuals(store, frame, as_of) if with_actuals else frame


def _check(*, step: int | None, lead_time: timedelta | None, at: datetime | None, **instants: datetime | None) -> None:
    for name, instant in {"at": at, **instants}.items():
        if instant is not None and instant.tzinfo is None:
            raise SettingsError(f"A query requires instants with a time zone; got {name}={instant}. Add one, as in {instant.isoformat()}Z.")
    targets = {name: value for name, value in {"step": step, "lead_time": lead_time, "at": at}.items() if value is not None}
    if len(targets) > 1:
        got = " and ".join(f"{name}={value}" for name, value in targets.items())
        raise SettingsError(f"A query requires one of step, lead_time and at; got {got}. Keep one.")
    if step is not None and step < 1:
        raise SettingsError(f"A query requires step >= 1 (the first tick after the origin); got {step}. Give a step of 1..horizon.")
    if lead_time is not None and lead_time <= timedelta(0):
        raise SettingsError(f"A query requires lead_time > 0; got {lead_time}. Give the distance from origin to target.")


def _narrow(rows: pl.DataFrame, step: int | None, lead_time: timedelta | None, at: datetime | None) -> pl.DataFrame:
    """Cut each row's `quantiles` down to the wanted step and add `first_step`; rows without such a step fall away."""
    if step is not None:
        chosen, reachable = pl.lit(step, pl.Int32), pl.lit(value=True)
    elif lead_time is not None:
        _require_a_tick(rows, lead_time)
        chosen, reachable = _step_of(pl.lit(lead_time // MICROSECOND))
    elif at is not None:
        chosen, reachable = _step_of((pl.lit(at, UTC_US) - pl.col("origin")).dt.total_microseconds())
        _require_a_target(rows.filter(~reachable), rows.height, at)
    else:
        return rows.with_columns(pl.lit(1, pl.Int32).alias("first_step"))
    num_levels = pl.col("quantile_levels").list.len().cast(pl.Int32)
    offset = (pl.col("first_step") - 1) * num_levels
    return (
        rows.filter(reachable)
        .with_columns(chosen.alias("first_step"))
        .filter(pl.col("first_step").is_between(1, pl.col("horizon")))
        .with_columns(pl.col("first_step").cast(pl.Int32))  # not before: a long lead time has more steps than 32 bits
        .with_columns(pl.col("quantiles").list.slice(offset, num_levels), pl.lit(1, pl.Int32).alias("horizon"))
    )


def _step_of(lead_us: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
    """Return the step that lies so many microseconds after its origin, and whether there is one."""
    return lead_us // pl.col("sample_interval_us"), lead_us % pl.col("sample_interval_us") == 0


def _require_a_tick(rows: pl.DataFrame, lead_time: timedelta) -> None:
    """Refuse a lead time that ends between the ticks of every series asked for; of several grids it may fit one.

    Raises:
        SettingsError: naming the sample intervals.
    """
    intervals = [interval * MICROSECOND for interval in rows["sample_interval_us"].unique().sort()]
    if intervals and all(lead_time % interval for interval in intervals):
        got = ", ".join(str(interval) for interval in intervals[:5])
        raise SettingsError(
            f"A query requires a lead_time that is a multiple of the sample interval; got {lead_time} where that is {got}. "
            "Give a multiple, or a step."
        )


def _require_a_target(between: pl.DataFrame, num_rows: int, at: datetime) -> None:
    """Refuse an instant that lies between the target times of every forecast that reaches it; of several grids it may fit one.

    Args:
        between: rows of which `at` is no target time.
        num_rows: rows that reach it.
        at: the instant asked for.

    Raises:
        SettingsError: naming the target times before and after it.
    """
    if between.height == num_rows > 0:
        origin, interval_us = between.select("origin", "sample_interval_us").row(0)
        interval = interval_us * MICROSECOND
        before = origin + (at - origin) // interval * interval
        raise SettingsError(
            f"A query requires a target time that is a tick of its series; got at={at.isoformat()}, between {before.isoformat()} and "
            f"{(before + interval).isoformat()} of {between['series_id'][0]}. Give one of these."
        )


def whole_forecasts(rows: pl.DataFrame) -> pl.DataFrame:
    """Return stored rows with every step of theirs in long form, in the columns of `query_forecasts`."""
    return _long_form(_narrow(rows, None, None, None))


def _long_form(rows: pl.DataFrame) -> pl.DataFrame:
    """Explode rows of `horizon` steps from `first_step` on into one row for each target time."""
    parts = [_empty(), *(_exploded(group) for group in rows.partition_by("quantile_levels"))]
    frame = pl.concat(parts, how="diagonal")
    quantiles = sorted((name for name in frame.columns if name[0] == "q"), key=lambda name: float(name[1:]))
    order = ("series_id", "origin", "step", "ts", *quantiles, "model_version", "input_version", "status", "created_at")
    return frame.select(order).sort("series_id", "origin", "model_version", "step")


def _exploded(rows: pl.DataFrame) -> pl.DataFrame:
    """Explode rows that share their quantile levels."""
    names = [quantile_column(level) for level in rows["quantile_levels"][0]]
    long = rows.select(
        *KEYS,
        "input_version",
        "status",
        "sample_interval_us",
        pl.int_ranges(pl.col("first_step"), pl.col("first_step") + pl.col("horizon")).alias("step"),
    ).explode("step")
    values = rows["quantiles"].explode().to_numpy()
    if values.size != long.height * len(names):
        raise StoreError(
            f"The forecasts table requires horizon x levels quantiles in each row; got {values.size} values for {long.height} steps of "
            f"{len(names)} levels, first in {rows['series_id'][0]}. Find the writer of these rows."
        )
    quantiles = pl.from_numpy(values.reshape(-1, len(names)), schema=dict.fromkeys(names, pl.Float32))
    ts = pl.col("origin") + pl.duration(microseconds=pl.col("step") * pl.col("sample_interval_us"))
    return long.with_columns(pl.col("step").cast(pl.Int32), ts.alias("ts")).drop("sample_interval_us").hstack(quantiles)


def quantile_column(level: float) -> str:
    """Return the name of a quantile's column.

    >>> quantile_column(0.1)
    'q0.1'
    """
    return f"q{level:.6g}"


def _empty() -> pl.DataFrame:
    columns = {name: Forecasts.columns[name] for name in (*KEYS, "input_version", "status")}
    quantiles = {quantile_column(level): pl.Float32 for level in ForecasterConfig.quantile_levels}
    return pl.DataFrame(schema={**columns, "step": pl.Int32, "ts": UTC_US, **quantiles})


def _with_actuals(lake: Lake, frame: pl.DataFrame, as_of: datetime | None) -> pl.DataFrame:
    """Add `actual`: the latest revision of each target's observation, or the one known at `as_of`."""
    from pipeline.store.observations import read_observations

    if frame.is_empty():
        return frame.with_columns(pl.lit(None, pl.Float64).alias("actual"))
    first, last = frame.select(first=pl.col("ts").min(), last=pl.col("ts").max()).row(0)
    observations = read_observations(lake, series=frame["series_id"].unique().to_list(), start=first, end=last, as_of=as_of)
    actuals = observations.select("series_id", "ts", pl.col("value").alias("actual"))
    return frame.join(actuals, on=["series_id", "ts"], how="left", maintain_order="left")
