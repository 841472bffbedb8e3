"""Readings become observations on the regular grid: incremental, idempotent, and the same whatever order the readings came in.

Each run computes the ticks whose readings changed since the last one, and the ticks between a series' first and last reading that are
not stored yet: gaps that are not too long, and ticks that were still open. Which these are follows from the tables alone, so a run that
died anywhere is simply run again. Called by `flows.ingest` after each ingest, and on its own when ticks close without new readings.
"""

import logging
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

import polars as pl
from deltalake import DeltaTable

from pipeline.clock import Clock
from pipeline.errors import SettingsError, StoreError
from pipeline.failpoints import failpoint
from pipeline.prepare.aggregate import observe
from pipeline.prepare.grid import FINEST, MAX_GAP, grids_of, infer_grids, label_expr, tick_expr
from pipeline.prepare.made_with import record_aggregations, recorded_aggregations
from pipeline.schemas import EPOCH, MICROSECOND, Observations, Readings
from pipeline.settings import Settings
from pipeline.store.catalog import Catalog
from pipeline.store.lake import Lake, read
from pipeline.store.observations import Progress, labels_of, read_progress, stored_labels, stored_spans, write_observations
from pipeline.store.readings import changed_since

logger = logging.getLogger(__name__)

KEY = ("series_id", "tick")
TAKEN_IN = "regularise/readings"  # the catalog's own count of readings versions
MAX_ROUNDS = 10
RECENT = timedelta(days=1)  # stored labels looked at before a series is read whole
RECENT_TICKS = 4  # and before that: of a minute's grid a day is 1,440 labels of every series, at every tick


@dataclass(frozen=True)
class RegulariseReport:
    """What one run did.

    Attributes:
        series: series with at least one row written.
        observations_written: rows that are new or changed, revisions included.
        revised: rows among them that revise an earlier value.
        waiting_series: series without a grid, because their few stamps leave their interval open.
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


def regularise(settings: Settings, clock: Clock) -> RegulariseReport:
    """Bring the observations up to the readings and to the present.

    A tick that has not closed by `clock.now()` is not written; the first run after it has closed writes it, new readings or not.
    A series whose aggregation was changed is computed anew, and all are under another allowed lateness.

    Args:
        settings: `lake`, `ingest.allowed_lateness`, `metrics` and `prepare`.
        clock: tells which ticks have closed.

    Raises:
        SettingsError: when `prepare.sample_interval` is finer than a millisecond.
        StoreError: when the lake is missing, damaged or in conflict without end.
    """
    interval = settings.prepare.sample_interval
    if interval is not None and interval < FINEST:
        raise SettingsError(f"A grid requires a sample interval of 1 ms or more; got {interval}. Correct prepare.sample_interval.")
    lake, catalog = Lake(settings.lake), Catalog(settings.state_dir)
    for _ in range(MAX_ROUNDS):
        report = _run(lake, catalog, settings, clock.now())
        if report is not None:
            logger.info("regularised %s", " ".join(f"{name}={count}" for name, count in report.to_dict().items()))
            return report
    raise StoreError(
        f"regularise requires a turn at the observations; got {MAX_ROUNDS} other runs that were quicker. Run one at a time on a lake."
    )


def _run(lake: Lake, catalog: Catalog, settings: Settings, now: datetime) -> RegulariseReport | None:
    """Compute and write what is missing; None when another run was quicker, so that it must be computed anew."""
    lateness = settings.ingest.allowed_lateness
    stored = lake.open(Observations)  # before the readings: what is stored can then only be behind them
    recorded = read_progress(stored)
    closed_until = now if recorded is None else max(now, recorded.closed_until)  # another machine's clock may be ahead
    if closed_until - now > settings.ingest.max_future:
        logger.warning("ticks were closed up to %s, when a clock was wrong: until then each closes with its first reading", closed_until)
    progress = _usable(recorded, lateness)
    readings_version = lake.version(Readings)
    changed = _changed_readings(lake, progress, catalog.position(TAKEN_IN))
    fleet = _registered(lake, catalog, changed, settings, stored)
    changed = pl.concat([changed, _made_otherwise(lake, settings, fleet)])
    spans = _closed_spans(fleet, changed, progress, lateness, closed_until)
    if progress is not None:
        labels = stored_spans(stored, spans.select("series_id", "changed_from"), _recent(progress.closed_until - lateness, fleet))
        spans = spans.drop("stored_first", "stored_last").join(labels, on="series_id", how="left")
    readings = _readings_of(lake, spans)
    ticks = _due_ticks(stored, spans, changed, readings)
    observations = observe(readings, fleet, ticks, allowed_lateness=lateness, closed_until=closed_until)
    written = write_observations(
        lake, observations, readings_version=readings_version, closed_until=closed_until, allowed_lateness=lateness
    )
    if written is None:
        return None
    failpoint("regularise.after_commit")
    _remember(catalog, settings, fleet, readings_version)
    return RegulariseReport(
        series=written["series_id"].n_unique(),
        observations_written=written.height,
        revised=written.filter(pl.col("revision") > 1).height,
        waiting_series=fleet["sample_interval_us"].null_count(),
        readings_version=readings_version,
    )


def _recent(closed: datetime, fleet: pl.DataFrame) -> list[datetime]:
    """Return how far back to look for stored labels: some ticks of the finest grid, then a day."""
    finest = fleet["sample_interval_us"].drop_nulls().to_list()
    some_ticks = RECENT_TICKS * min(finest, default=0) * MICROSECOND
    return [closed - span for span in sorted({min(some_ticks, RECENT), RECENT})]


def _usable(progress: Progress | None, allowed_lateness: timedelta) -> Progress | None:
    """Forget progress made under another lateness: which readings a first revision holds depends on it."""
    if progress is not None and progress.allowed_lateness != allowed_lateness:
        logger.warning("recomputing all observations allowed_lateness=%s before=%s", allowed_lateness, progress.allowed_lateness)
        return None
    return progress


def _changed_readings(lake: Lake, progress: Progress | None, taken_in: int | None) -> pl.DataFrame:
    """Return series_id, device_id, metric, unit, ts of the readings that the observations or the catalog have not taken in.

    A catalog that was lost, or is another machine's, is behind the observations: what it missed is looked at again, once.
    """
    columns = ("series_id", "device_id", "metric", "unit", "ts")
    if progress is None or taken_in is None or taken_in > lake.version(Readings):  # the last: it belongs to another lake
        return read(lake.scan(Readings).select(columns))
    changes = changed_since(lake, min(progress.readings_version, taken_in))
    return changes.with_columns(unit=pl.lit(None, pl.String)).select(columns)


def _made_otherwise(lake: Lake, settings: Settings, fleet: pl.DataFrame) -> pl.DataFrame:
    """Return the readings, as `_changed_readings`, of the series whose observations were made with another aggregation."""
    recorded = recorded_aggregations(settings.state_dir)
    made = pl.DataFrame(list(recorded.items()), schema={"series_id": pl.String, "made_with": pl.String}, orient="row")
    other = fleet.join(made, on="series_id").filter(pl.col("aggregation") != pl.col("made_with"))["series_id"].to_list()
    if other:
        logger.warning("recomputing num_series=%d whose aggregation has changed, as %s", len(other), other[0])
    scan = lake.scan(Readings).filter(pl.col("series_id").is_in(other))
    empty = Readings.empty().lazy()
    return read((scan if other else empty).select("series_id", "device_id", "metric", "unit", "ts"))


def _remember(catalog: Catalog, settings: Settings, fleet: pl.DataFrame, readings_version: int) -> None:
    """Record, after the commit, what it was made of; a run that dies before does it again."""
    record_aggregations(settings.state_dir, dict(fleet.drop_nulls("aggregation").select("series_id", "aggregation").iter_rows()))
    if catalog.position(TAKEN_IN) != readings_version:
        catalog.set_position(TAKEN_IN, readings_version)


def _registered(lake: Lake, catalog: Catalog, changed: pl.DataFrame, settings: Settings, stored: DeltaTable) -> pl.DataFrame:
    """Return the catalog's series, with what the changed readings add to it: spans, aggregations, and grids where they can be told.

    An aggregation or a grid that is stored stays: half a history on another grid would be no series.
    """
    names = (pl.col("device_id", "metric").last(), pl.col("unit").drop_nulls().last())
    seen = changed.group_by("series_id").agg(*names, first_ts=pl.col("ts").min(), last_ts=pl.col("ts").max())
    known = catalog.series()
    news = seen.join(known.select("series_id", old_first="first_ts", old_last="last_ts"), on="series_id", how="left").filter(
        pl.col("old_first").is_null() | (pl.col("first_ts") < pl.col("old_first")) | (pl.col("last_ts") > pl.col("old_last"))
    )
    if not news.is_empty():
        catalog.upsert_series(news.select(seen.columns))
        known = catalog.series()
    decided = _decided(lake, known, seen, settings, stored)
    if not decided.is_empty():
        catalog.upsert_series(decided)
        known = catalog.series()
    _tell_what_is_ignored(known, settings)
    return known


def _decided(lake: Lake, known: pl.DataFrame, seen: pl.DataFrame, settings: Settings, stored: DeltaTable) -> pl.DataFrame:
    """Return the series whose aggregation or grid was open and can be told now, with both."""
    interval = settings.prepare.sample_interval
    metrics = {name: metric.aggregation for name, metric in settings.metrics.items()}
    gridless = known.filter(pl.col("sample_interval_us").is_null()).join(seen, on="series_id", how="semi").select("series_id", "first_ts")
    kept = grids_of(labels_of(stored, gridless["series_id"].to_list()))  # where only the catalog was lost
    new = gridless.join(kept, on="series_id", how="anti")
    grids = pl.concat([kept, infer_grids(_stamps_of(lake, new), interval).drop_nulls()])
    undecided = known.filter(pl.col("aggregation").is_null() | pl.col("series_id").is_in(grids["series_id"].to_list()))
    return undecided.select(
        "series_id",
        "device_id",
        "metric",
        aggregation=pl.coalesce("aggregation", pl.col("metric").replace_strict(metrics, default="mean", return_dtype=pl.String)),
    ).join(grids, on="series_id", how="left")


def _stamps_of(lake: Lake, series: pl.DataFrame) -> pl.DataFrame:
    """Return series_id, ts of the readings of a few series; `first_ts` of the oldest lets the files before it be skipped."""
    if series.is_empty():
        return Readings.empty()
    scan = lake.scan(Readings).filter(pl.col("ts") >= series["first_ts"].min())
    return read(scan.select("series_id", "ts").join(series.lazy(), on="series_id", how="semi"))


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


def _readings_of(lake: Lake, spans: pl.DataFrame) -> pl.DataFrame:
    """Read the readings that are new or were open, and for counters those of the tick before; more may come with them.

    Series with a reading that came long after its time are read on their own: the others need not be read as far back.
    """
    columns = ("series_id", "ts", "value", "received_at", "source_seq")
    if spans.is_empty():
        return Readings.empty().select(columns)
    news = pl.min_horizontal("changed_from", pl.coalesce("stored_last", "first_ts"))
    two_ticks = pl.duration(microseconds=2 * pl.col("sample_interval_us"))
    since = spans.select("series_id", since=news - two_ticks)
    is_old = pl.col("since") < since.select(pl.col("since").max() - RECENT).item()
    scan = lake.scan(Readings).select(columns)
    parts = [part for part in (since.filter(~is_old), since.filter(is_old)) if not part.is_empty()]
    return pl.concat(
        [
            read(scan.filter(pl.col("ts") > part["since"].min()).join(part.lazy().select("series_id"), on="series_id", how="semi"))
            for part in parts
        ]
    )


def _due_ticks(stored: DeltaTable, spans: pl.DataFrame, changed: pl.DataFrame, readings: pl.DataFrame) -> pl.DataFrame:
    """Return series_id, tick to compute: those with changed readings, those that are not stored, and the gaps beside the latter.

    Between two ticks with readings every tick has a row, unless there are more than `MAX_GAP`: then none has. So the rows follow
    from the readings alone, whatever the order they came in: a reading in a hole can only add rows.
    """
    held = readings.join(spans, on="series_id").select("series_id", tick=tick_expr()).unique()
    news = changed.join(spans, on="series_id").select("series_id", tick=tick_expr()).unique()
    kinds = spans.select("series_id", "aggregation", "last", bottom=tick_expr("stored_first"), top=tick_expr("stored_last"))
    after = (
        news.join(kinds.filter(pl.col("aggregation") == "counter"), on="series_id")
        .select("series_id", pl.col("tick") + 1)  # its increment starts at the changed tick
        .join(held, on=KEY, how="semi")
    )
    is_behind = pl.col("top").is_null() | (pl.col("tick") > pl.col("top"))
    opened = held.join(kinds, on="series_id").filter(is_behind).select(KEY)
    ahead = news.join(kinds, on="series_id").filter(pl.col("tick") < pl.col("bottom")).select(KEY)
    inside = news.join(kinds, on="series_id").filter(pl.col("tick").is_between("bottom", "top")).select(KEY)
    in_holes, neighbours = _in_holes(stored, spans, inside)
    ends = [kinds.drop_nulls(end).select("series_id", tick=end) for end in ("bottom", "top")]
    fresh = pl.concat([opened, ahead, in_holes]).unique()
    gaps = _gaps(fresh, pl.concat([*ends, neighbours]).unique())
    return pl.concat([news, after, fresh, gaps]).unique().join(kinds, on="series_id").filter(pl.col("tick") <= pl.col("last")).select(KEY)


def _in_holes(stored: DeltaTable, spans: pl.DataFrame, inside: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return those of the ticks that have no row, and all stored ticks of their series; rarely any, so it is dear only then."""
    labelled = inside.join(spans, on="series_id").select("series_id", "tick", ts=label_expr())
    in_holes = labelled.join(stored_labels(stored, labelled.select("series_id", "ts")), on=["series_id", "ts"], how="anti").select(KEY)
    around = labels_of(stored, in_holes["series_id"].unique().to_list())
    return in_holes, around.join(spans, on="series_id").select("series_id", tick=tick_expr())


def _gaps(fresh: pl.DataFrame, stored: pl.DataFrame) -> pl.DataFrame:
    """Return series_id, tick of the gaps beside fresh ticks, given the stored ticks next to them."""
    marks = [
        fresh.with_columns(is_fresh=pl.lit(value=True)),
        stored.join(fresh, on=KEY, how="anti").with_columns(is_fresh=pl.lit(value=False)),
    ]
    before, was_fresh = (pl.col(name).shift(1).over("series_id") for name in ("tick", "is_fresh"))
    return (
        pl.concat(marks)
        .sort(KEY)
        .with_columns(before=before, was_fresh=was_fresh)
        .filter(pl.col("is_fresh") | pl.col("was_fresh"), (pl.col("tick") - pl.col("before")).is_between(2, MAX_GAP))
        .select("series_id", tick=pl.int_ranges(pl.col("before") + 1, pl.col("tick")))
        .explode("tick")
        .drop_nulls()
    )
