"""Readings become observations on the regular grid: incremental, idempotent, and the same whatever order the readings came in.

Each run computes the ticks whose readings changed since the last one, and the ticks between a series' first and last reading that are
not stored yet: gaps, and ticks that were still open. Which these are follows from the tables alone, so a run that died anywhere is
simply run again. Called by `flows.ingest` after each ingest, and on its own when ticks close without new readings.
"""

import logging
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

import polars as pl

from pipeline.clock import Clock
from pipeline.errors import StoreError
from pipeline.prepare.aggregate import observe
from pipeline.prepare.grid import EPOCH, MICROSECOND, infer_grids, label_expr, tick_expr
from pipeline.schemas import Observations, Readings
from pipeline.settings import Settings
from pipeline.store.catalog import Catalog
from pipeline.store.lake import Lake, read
from pipeline.store.observations import Progress, read_progress, stored_spans, write_observations
from pipeline.store.readings import changed_since

logger = logging.getLogger(__name__)

MAX_ROUNDS = 10
RECENT = timedelta(days=1)  # stored labels looked at first; a series with nothing in it is read whole


@dataclass(frozen=True)
class RegulariseReport:
    """What one run did.

    Attributes:
        series: series with at least one row written.
        observations_written: rows that are new or changed, revisions included.
        revised: rows among them that revise an earlier value.
        waiting_series: series without a grid, because fewer than three distinct stamps leave their interval open.
        readings_version: Delta version of `readings` that the observations follow now.
    """

    series: int
    observations_written: int
    revised: int
    waiting_series: int
    readings_version: int

    def to_dict(self) -> dict[str, int]:
        """Return a JSON-ready form."""
        return asdict(self)


def regularise(settings: Settings, clock: Clock, *, rebuild: bool = False) -> RegulariseReport:
    """Bring the observations up to the readings and to the present.

    A tick that has not closed by `clock.now()` is not written; the first run after it has closed writes it, new readings or not.

    Args:
        settings: `lake`, `ingest.allowed_lateness`, `metrics` and `prepare`.
        clock: tells which ticks have closed.
        rebuild: compute every tick anew; after an aggregation was changed, history follows only so.

    Raises:
        StoreError: when the lake is missing, damaged or in conflict without end.
    """
    lake, catalog = Lake(settings.lake), Catalog(settings.state_dir)
    for _ in range(MAX_ROUNDS):
        report = _run(lake, catalog, settings, clock.now(), rebuild=rebuild)
        if report is not None:
            logger.info("regularised %s", " ".join(f"{name}={count}" for name, count in report.to_dict().items()))
            return report
    raise StoreError(
        f"regularise requires a turn at the observations; got {MAX_ROUNDS} other runs that were quicker. Run one at a time on a lake."
    )


def _run(lake: Lake, catalog: Catalog, settings: Settings, now: datetime, *, rebuild: bool) -> RegulariseReport | None:
    """Compute and write what is missing; None when another run was quicker, so that it must be computed anew."""
    lateness = settings.ingest.allowed_lateness
    stored = lake.open(Observations)  # before the readings: what is stored can then only be behind them
    recorded = read_progress(stored)
    closed_until = now if recorded is None else max(now, recorded.closed_until)  # another machine's clock may be ahead
    progress = None if rebuild else _usable(recorded, lateness)
    readings_version = lake.version(Readings)
    changed = _changed_readings(lake, progress)
    fleet = _registered(lake, catalog, changed, settings)
    spans = _closed_spans(fleet, changed, progress, lateness, closed_until)
    if progress is not None:
        labels = stored_spans(stored, spans.select("series_id", "changed_from"), progress.closed_until - lateness - RECENT)
        spans = spans.drop("stored_first", "stored_last").join(labels, on="series_id", how="left")
    ticks = pl.concat([_unstored_ticks(spans), _changed_ticks(spans, changed)]).unique()
    observations = observe(_readings_in(lake, fleet, ticks), fleet, ticks, allowed_lateness=lateness, closed_until=closed_until)
    written = write_observations(
        lake, observations, readings_version=readings_version, closed_until=closed_until, allowed_lateness=lateness
    )
    if written is None:
        return None
    return RegulariseReport(
        series=written["series_id"].n_unique(),
        observations_written=written.height,
        revised=written.filter(pl.col("revision") > 1).height,
        waiting_series=fleet["sample_interval_us"].null_count(),
        readings_version=readings_version,
    )


def _usable(progress: Progress | None, allowed_lateness: timedelta) -> Progress | None:
    """Forget progress made under another lateness: which readings a first revision holds depends on it."""
    if progress is not None and progress.allowed_lateness != allowed_lateness:
        logger.warning("recomputing all observations allowed_lateness=%s before=%s", allowed_lateness, progress.allowed_lateness)
        return None
    return progress


def _changed_readings(lake: Lake, progress: Progress | None) -> pl.DataFrame:
    """Return series_id, device_id, metric, ts of the readings that came since the last run."""
    columns = ("series_id", "device_id", "metric", "ts")
    if progress is None:
        return read(lake.scan(Readings).select(columns))
    return changed_since(lake, progress.readings_version).select(columns)


def _registered(lake: Lake, catalog: Catalog, changed: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """Return the catalog's series, with what the changed readings add to it: spans, aggregations, and grids where they can be told.

    An aggregation or a grid that is stored stays: half a history on another grid would be no series.
    """
    seen = changed.group_by("series_id").agg(pl.col("device_id", "metric").last(), first_ts=pl.col("ts").min(), last_ts=pl.col("ts").max())
    known = catalog.series()
    news = seen.join(known.select("series_id", old_first="first_ts", old_last="last_ts"), on="series_id", how="left").filter(
        pl.col("old_first").is_null() | (pl.col("first_ts") < pl.col("old_first")) | (pl.col("last_ts") > pl.col("old_last"))
    )
    if not news.is_empty():
        catalog.upsert_series(news.select(seen.columns))
        known = catalog.series()
    decided = _decided(lake, known, seen, settings)
    if not decided.is_empty():
        catalog.upsert_series(decided)
        known = catalog.series()
    _tell_what_is_ignored(known, settings)
    return known


def _decided(lake: Lake, known: pl.DataFrame, seen: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """Return the series whose aggregation or grid was open and can be told now, with both."""
    interval = settings.prepare.sample_interval
    metrics = {name: metric.aggregation for name, metric in settings.metrics.items()}
    gridless = known.filter(pl.col("sample_interval_us").is_null()).join(seen, on="series_id", how="semi").select("series_id")
    stamps = lake.scan(Readings).select("series_id", "ts").join(gridless.lazy(), on="series_id", how="semi")
    grids = infer_grids(read(stamps) if not gridless.is_empty() else Readings.empty(), interval).drop_nulls()
    undecided = known.filter(pl.col("aggregation").is_null() | pl.col("series_id").is_in(grids["series_id"].to_list()))
    return undecided.select(
        "series_id",
        "device_id",
        "metric",
        aggregation=pl.coalesce("aggregation", pl.col("metric").replace_strict(metrics, default="mean", return_dtype=pl.String)),
    ).join(grids, on="series_id", how="left")


def _tell_what_is_ignored(known: pl.DataFrame, settings: Settings) -> None:
    """Log where the settings ask for another grid than a series already has."""
    interval = settings.prepare.sample_interval
    if interval is not None:
        other = known.filter(pl.col("sample_interval_us") != interval // MICROSECOND)["series_id"]
        if len(other) > 0:
            logger.warning("sample_interval=%s ignored for num_series=%d that have another, as %s", interval, len(other), other[0])


def _closed_spans(
    fleet: pl.DataFrame, changed: pl.DataFrame, progress: Progress | None, allowed_lateness: timedelta, now: datetime
) -> pl.DataFrame:
    """Return the series that may have something new: their grid, the first and the last closed tick of their readings, changed_from."""

    def closed_by(instant: datetime) -> pl.Expr:
        return ((instant - allowed_lateness - EPOCH) // MICROSECOND - pl.col("grid_offset_us")) // pl.col("sample_interval_us")

    newest = tick_expr("last_ts")
    has_news = pl.col("changed_from").is_not_null()
    if progress is not None:
        has_news |= newest > closed_by(progress.closed_until)  # it had open ticks then
    return (
        fleet.drop_nulls(["sample_interval_us", "first_ts"])
        .join(changed.group_by("series_id").agg(changed_from=pl.col("ts").min()), on="series_id", how="left")
        .filter(has_news)
        .with_columns(
            first=tick_expr("first_ts"),
            last=pl.min_horizontal(newest, closed_by(now)),
            stored_first=pl.lit(None, Readings.columns["ts"]),
            stored_last=pl.lit(None, Readings.columns["ts"]),
        )
    )


def _unstored_ticks(spans: pl.DataFrame) -> pl.DataFrame:
    """Return series_id, tick from each span's start to its end, but for what is stored between."""
    behind = pl.int_ranges(pl.max_horizontal("first", tick_expr("stored_last") + 1), pl.col("last") + 1)
    ahead = pl.int_ranges(tick_expr("changed_from"), tick_expr("stored_first"))
    ranges = [spans.select("series_id", tick=behind), spans.drop_nulls(["changed_from", "stored_first"]).select("series_id", tick=ahead)]
    return pl.concat(ranges).explode("tick").drop_nulls()


def _changed_ticks(spans: pl.DataFrame, changed: pl.DataFrame) -> pl.DataFrame:
    """Return series_id, tick of each changed reading, and for counters the tick after it, whose increment starts there."""
    ticks = changed.join(spans, on="series_id").select("series_id", "aggregation", "last", tick=tick_expr()).unique()
    after = ticks.filter(pl.col("aggregation") == "counter").with_columns(pl.col("tick") + 1)
    return pl.concat([ticks, after]).filter(pl.col("tick") <= pl.col("last")).select("series_id", "tick")


def _readings_in(lake: Lake, fleet: pl.DataFrame, ticks: pl.DataFrame) -> pl.DataFrame:
    """Read the readings of the given ticks and, for counters, of the ticks before; more may come with them."""
    labels = ticks.join(fleet, on="series_id").select("series_id", "sample_interval_us", ts=label_expr())
    two_ticks = pl.duration(microseconds=2 * pl.col("sample_interval_us"))
    bounds = labels.select(oldest=(pl.col("ts") - two_ticks).min(), newest=pl.col("ts").max()).row(0)
    columns = ("series_id", "ts", "value", "received_at", "source_seq")
    if labels.is_empty():
        return Readings.empty().select(columns)
    scan = lake.scan(Readings).filter(pl.col("ts") > bounds[0], pl.col("ts") <= bounds[1])
    return read(scan.select(columns).join(labels.lazy().select("series_id").unique(), on="series_id", how="semi"))
