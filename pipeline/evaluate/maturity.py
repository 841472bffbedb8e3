"""Score what was forecast once it has come true: one row for each step whose target tick is observed, written once and for good.

Incremental: a run looks at the targets that were observed, and at the forecasts that were issued, since the table versions that the
last complete run had seen. The two versions are marks in the catalog and move only after the scores are committed; a step that is
scored already is left out by the store. So a run that died, was doubled or has lost its marks costs time and changes nothing.

A gap stays unscored until a late reading fills it, however late. A score is not rewritten when its observation is revised afterwards:
it says what was known at `scored_at`. Called by `flows.forecast` after each tick.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from pipeline.clock import Clock
from pipeline.evaluate.metrics import LOWER, MEDIAN, UPPER
from pipeline.schemas import UTC_US, Forecasts, Observations, Scores
from pipeline.settings import Settings
from pipeline.store.catalog import Catalog
from pipeline.store.changes import new_keys
from pipeline.store.forecasts import scan_forecasts
from pipeline.store.lake import Lake, read
from pipeline.store.observations import changed_observations, read_observations
from pipeline.store.scores import append_scores, forecast_days

logger = logging.getLogger(__name__)

INPUTS = (Observations, Forecasts)
TARGET = ("series_id", "ts")
READ_AT_ONCE = 200_000  # forecasts; 170 MB of quantiles at 24 steps and 9 levels
COMMIT_AT_ONCE = 1_000_000  # scores


@dataclass(frozen=True)
class _News:
    """What may make a step scorable: either of the two is enough.

    Attributes:
        targets: series_id, ts of the observations that changed.
        issued: keys of the forecasts that are new; their targets may have been there before them.
    """

    targets: pl.DataFrame
    issued: pl.DataFrame


def score_matured(settings: Settings, clock: Clock) -> int:
    """Write the scores of all stored forecast steps whose target has been observed and that have none yet.

    Args:
        settings: where the lake and the catalog are.
        clock: for `scored_at`.

    Returns:
        How many rows were written.

    Raises:
        StoreError: when the lake is missing, damaged or in conflict without end.
    """
    lake, catalog = Lake(settings.lake), Catalog(settings.state_dir)
    reached = {f"scores/{schema.name}": lake.version(schema) for schema in INPUTS}  # before any read: what comes later is news next time
    seen = {mark: catalog.position(mark) for mark in reached}
    if seen == reached:
        return 0
    news = _news(lake, *seen.values())
    written = sum(append_scores(lake, scores) for scores in _batches(_matured(lake, news, clock.now())))
    for mark, version in reached.items():
        catalog.set_position(mark, version)
    logger.info("scored rows=%d observations_version=%d forecasts_version=%d", written, *reached.values())
    return written


def _news(lake: Lake, observations_version: int | None, forecasts_version: int | None) -> _News | None:
    """Return what changed since the marks; None where that cannot be told, so that everything stored is looked at."""
    if observations_version is None or forecasts_version is None:
        return None
    targets, issued = changed_observations(lake, observations_version), new_keys(lake, Forecasts, forecasts_version)
    return None if targets is None or issued is None else _News(targets, issued)


def _batches(frames: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Put small frames together, so that a run is one commit unless that would be a large one."""
    waiting = [Scores.empty()]
    for frame in frames:
        waiting.append(frame)
        if sum(part.height for part in waiting) >= COMMIT_AT_ONCE:
            yield pl.concat(waiting)
            waiting = [Scores.empty()]
    yield pl.concat(waiting)


def _matured(lake: Lake, news: _News | None, scored_at: datetime) -> Iterator[pl.DataFrame]:
    """Yield the scores of steps that have an observed target and are news, day by day of their origins."""
    for start, end, lead_time in _windows(forecast_days(lake), news).iter_rows():
        scan = scan_forecasts(lake, start=start, end=end)
        num_parts = -(-int(read(scan.select(pl.len())).item()) // READ_AT_ONCE)
        observed = read_observations(lake, start=start, end=end + lead_time) if num_parts else Observations.empty()
        targets = _flagged(observed.filter("observed").select(*TARGET, "value"), None if news is None else news.targets, TARGET)
        for part in range(num_parts):
            forecasts = read(scan.filter(pl.col("series_id").hash() % num_parts == part))
            flagged = _flagged(forecasts, None if news is None else news.issued, Forecasts.key)
            for alike in flagged.partition_by("horizon", "quantile_levels"):
                yield _scores(alike, targets, scored_at)


def _windows(days: pl.DataFrame, news: _News | None) -> pl.DataFrame:
    """Narrow the days that hold forecasts to the origins that the news may concern.

    Args:
        days: as `forecast_days` returns them.
        news: None for all days, whole.

    Returns:
        start and end (first and last origin to look at), lead_time; one row for each day that is concerned.
    """
    midnight = pl.col("origin_date").cast(UTC_US)
    days = days.with_columns(start=midnight, end=midnight + pl.duration(days=1, microseconds=-1))
    if news is not None:
        reaches = (pl.col("ts") > pl.col("start")) & (pl.col("ts") <= pl.col("end") + pl.col("lead_time"))
        by_target = days.join_where(news.targets.select("ts").unique(), reaches)
        spans = pl.concat(
            [
                by_target.select("origin_date", first=pl.col("ts") - pl.col("lead_time"), last="ts"),
                news.issued.select(origin_date=pl.col("origin").dt.date(), first="origin", last="origin"),
            ]
        )
        concerned = days.join(spans.group_by("origin_date").agg(pl.col("first").min(), pl.col("last").max()), on="origin_date")
        days = concerned.with_columns(start=pl.max_horizontal("start", "first"), end=pl.min_horizontal("end", "last"))
    return days.sort("start").select("start", "end", "lead_time")


def _flagged(frame: pl.DataFrame, news: pl.DataFrame | None, key: tuple[str, ...]) -> pl.DataFrame:
    """Add `is_news`: whether a row's key is among the news; all are where the news are unknown."""
    if news is None:
        return frame.with_columns(is_news=pl.lit(value=True))
    marked = news.select(key).with_columns(is_news=pl.lit(value=True))
    return frame.join(marked, on=key, how="left", maintain_order="left").with_columns(pl.col("is_news").fill_null(value=False))


def _scores(forecasts: pl.DataFrame, targets: pl.DataFrame, scored_at: datetime) -> pl.DataFrame:
    """Return rows of `Scores` for the steps that are news and whose target is there.

    Args:
        forecasts: rows of `Forecasts` with `is_news`, all of one horizon and the same levels.
        targets: series_id, ts, value, is_news.
        scored_at: the present.
    """
    horizon, levels = forecasts["horizon"][0], [round(level, 6) for level in forecasts["quantile_levels"][0]]  # stored as float32
    by_step = forecasts["quantiles"].explode().reshape((-1, len(levels)))
    steps = (
        forecasts.select("series_id", "origin", "sample_interval_us", "model_version", "origin_date", "is_news")
        .with_row_index("row")
        .with_columns(step=_steps_of_news(horizon, targets))
        .explode("step", empty_as_null=False)
        .with_columns(ts=pl.col("origin") + pl.duration(microseconds=pl.col("step") * pl.col("sample_interval_us")))
    )
    due = steps.join(targets, on=TARGET).filter(pl.col("is_news") | pl.col("is_news_right"))
    due = due.with_columns(quantiles=by_step.gather(due["row"] * horizon + due["step"] - 1))
    quantile = {level: pl.col("quantiles").arr.get(number).cast(pl.Float64) for number, level in enumerate(levels)}
    pinball = [pl.max_horizontal(level * _above(value), (level - 1) * _above(value)) for level, value in quantile.items()]
    unknown = pl.lit(None, pl.Float64)  # a model need not forecast the three levels that are named here
    return Scores.conform(
        due.with_columns(
            actual="value",
            error=_above(quantile.get(MEDIAN, unknown)),
            pinball=pl.mean_horizontal(pinball),
            in_80=pl.col("value").is_between(quantile.get(LOWER, unknown), quantile.get(UPPER, unknown)),
            scored_at=pl.lit(scored_at),
        )
    )


def _steps_of_news(horizon: int, targets: pl.DataFrame) -> pl.Expr:
    """Return the steps of each forecast that may be news: all of one that is new, else those from the first target that is to the last.

    A followed tick has one new target, so of each forecast of the last day one step in the horizon is looked at.
    """
    news, since = targets.filter("is_news")["ts"], (pl.lit(1), pl.lit(0))
    if len(news):
        interval = pl.col("sample_interval_us")
        first, last = ((pl.lit(end, UTC_US) - pl.col("origin")).dt.total_microseconds() for end in (news.min(), news.max()))
        since = (first.floordiv(interval).clip(1, horizon + 1), last.floordiv(interval).clip(0, horizon))
    start, end = (pl.when("is_news").then(whole).otherwise(part) for whole, part in zip((1, horizon), since, strict=True))
    return pl.int_ranges(start, end + 1)


def _above(quantile: pl.Expr) -> pl.Expr:
    """Return the actual less a quantile of its forecast."""
    return pl.col("value") - quantile
