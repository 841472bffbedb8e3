"""From files to the readings table: `tidecast ingest PATH…` below the command line.

plan (decide how each file is read) -> read -> validate -> convert units -> mark late -> register the series -> take out duplicates ->
commit. What a batch holds follows from its rows and from what was stored when the run began, which the catalog keeps until it has
finished: a run that was killed is completed by running it again, whatever other stages did in between, and a completed run, run
again, changes nothing. Called by `flows`.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path

import polars as pl

from pipeline.clock import Clock
from pipeline.errors import StoreError
from pipeline.ingest.formats import Format, discover
from pipeline.ingest.mapping import ColumnMapping
from pipeline.ingest.plan import FilePlan, plan_files
from pipeline.ingest.raw import RawBatch
from pipeline.ingest.timestamps import EpochUnit, StampRules
from pipeline.ingest.units import UnitRegistry, stored_units
from pipeline.ingest.validate import Rules, Verdict, quarantined, reject, validate
from pipeline.ingest.watermark import Watermarks
from pipeline.schemas import UTC_US, Quarantine, Readings
from pipeline.settings import Aggregation, Settings
from pipeline.store.catalog import ARRIVED, Catalog
from pipeline.store.lake import Lake, read
from pipeline.store.readings import append_quarantine, append_readings, split_duplicates

_SOURCE = "file"  # all runs over files share one fence: their files may overlap
_FENCE = f"ingest/{_SOURCE}"
_MAX_ROUNDS = 10


@dataclass(frozen=True, kw_only=True)
class IngestOptions:
    """What the user says about the files of one run.

    Attributes:
        mapping: columns that the user named; the rest is inferred.
        time_zone: IANA zone of naive stamps; None refuses them.
        epoch_unit: s, ms, us or ns; None infers it by magnitude.
        format: csv, ndjson or parquet; None decides by suffix.
        device: device of files that name none; None takes the name of the file.
        aggregation: how the readings of a metric become one observation; what is not named comes from the settings.
        is_plan: the files hold what is known ahead and not readings; `pipeline.ingest.known_future` takes them.
        known_ahead: of a plan that says not when it was announced: how long before its instant each value was.
    """

    mapping: ColumnMapping = field(default_factory=ColumnMapping)
    time_zone: str | None = None
    epoch_unit: EpochUnit | None = None
    format: Format | None = None
    device: str | None = None
    aggregation: Mapping[str, Aggregation] = field(default_factory=dict)
    is_plan: bool = False
    known_ahead: timedelta | None = None


@dataclass(frozen=True, kw_only=True)
class IngestReport:
    """What became of the readings of one run: read = accepted + duplicate + quarantined.

    Attributes:
        read: readings found in the files, broken lines included.
        accepted: stored by this run.
        duplicate: stored before, or twice in the files.
        late: those accepted that came behind the watermark of their series.
        quarantined: could not be used; each is in the quarantine table once, however often it is met.
        empty: cells of wide files that hold no reading (not counted as read).
        reasons: quarantined readings by error code.
        files: files read.
        series: series met.
        skipped_columns: columns that hold no reading.
        notes: decisions that the user should know of, one sentence each.
    """

    read: int
    accepted: int
    duplicate: int
    late: int
    quarantined: int
    empty: int
    reasons: Mapping[str, int]
    files: int
    series: int
    skipped_columns: tuple[str, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """Return a JSON-ready form."""
        return {**asdict(self), "reasons": dict(self.reasons)}

    def to_json(self) -> str:
        """Return one JSON object."""
        return json.dumps(self.to_dict())


def ingest_paths(settings: Settings, paths: Sequence[Path], options: IngestOptions, clock: Clock) -> IngestReport:
    """Bring files into the readings table; what cannot be used goes to quarantine, nothing is dropped.

    Args:
        settings: lake, state folder, ingest section and metrics.
        paths: files, folders (with all below them) or glob patterns.
        options: what the user says about the files.
        clock: says when readings without an arrival time of their own arrived.

    Returns:
        The counts, the same for the same files but for what was stored before.

    Raises:
        SettingsError: when an option is impossible.
        DataError: when a path, a file or a column cannot be used; where its first rows show it, before anything is stored.
        StoreError: when the lake cannot be written.
    """
    stamps = StampRules(options.time_zone, options.epoch_unit)
    files, ignored = discover(paths, options.format)
    plans, others = plan_files(files, options.mapping, stamps)
    lake, catalog = Lake(settings.lake), Catalog(settings.state_dir)
    lake.create_all()
    name = _run_name(plans, options)
    began_with = catalog.begin_ingest(name)
    known = catalog.series().drop(ARRIVED).join(began_with, on="series_id", how="left")
    run = _Run.start(settings, options, clock, lake, catalog, known)
    for plan in plans:
        run.ingest(plan)
    catalog.upsert_series(run.spans.drop("last_ts").join(run.watermarks.reached, on="series_id"))
    catalog.end_ingest(name)
    left_out = [f"{path.name}: left out, its name ends like no format of readings." for path in ignored]
    return run.report(plans, (*(note for plan in plans for note in plan.notes), *others, *left_out, *run.notes()))


def _run_name(plans: Sequence[FilePlan], options: IngestOptions) -> str:
    """Return a digest of which files a run reads, and how; a file that was written again counts as another."""
    stats = [(str(plan.file.path.resolve()), plan.file.path.stat()) for plan in plans]
    files = sorted((path, stat.st_size, stat.st_mtime_ns) for path, stat in stats)
    return hashlib.sha256(json.dumps([files, asdict(options)], sort_keys=True).encode()).hexdigest()


@dataclass
class _Run:
    """One run: what was known at its start, and what it has found since.

    Attributes:
        known: the catalog's series, with `last_ts` as at the start. What is newer than anything then stored is history, whatever the
            order of the files.
        spans: first and last event time of each series met.
        behind: readings by file that count as received now, because what was stored of their series is newer.
    """

    settings: Settings
    options: IngestOptions
    clock: Clock
    lake: Lake
    catalog: Catalog
    known: pl.DataFrame
    units: UnitRegistry
    watermarks: Watermarks
    spans: pl.DataFrame
    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    behind: Counter[str] = field(default_factory=Counter)

    @classmethod
    def start(cls, settings: Settings, options: IngestOptions, clock: Clock, lake: Lake, catalog: Catalog, known: pl.DataFrame) -> "_Run":
        return cls(
            settings,
            options,
            clock,
            lake,
            catalog,
            known,
            UnitRegistry.of({name: metric.unit for name, metric in settings.metrics.items()}, known, catalog.unit_intervals()),
            Watermarks.resume(known, settings.ingest.allowed_lateness, settings.ingest.idle_timeout),
            known.clear().select("series_id", "device_id", "metric", "unit", "first_ts", "last_ts"),
        )

    def ingest(self, plan: FilePlan) -> None:
        """Read one file, a batch at a time: one commit of readings and one of quarantine for each."""
        per_row = len(plan.mapping.value) if plan.mapping.layout == "wide" else 1
        for batch in plan.source.batches(plan.mapping.columns, max(1, self.settings.ingest.batch_rows // per_row)):
            verdict = self._judge(plan, batch)
            readings = self._as_readings(verdict.accepted, plan.file.path.name)
            self._register(readings)
            fresh = _store_readings(self.lake, readings)
            _store_quarantine(self.lake, quarantined(verdict.rejected, f"file:{plan.file.path.name}", self.clock.now()))
            self._count(verdict, readings, fresh)
            if not plan.mapping.received_at:
                is_behind = (pl.col("received_at") == pl.col("ingested_at")) & (pl.col("ts") < pl.col("received_at"))
                self.behind[plan.file.path.name] += len(fresh.filter(is_behind))

    def _judge(self, plan: FilePlan, batch: RawBatch) -> Verdict:
        """Validate a batch and bring it into canonical units."""
        limits = self.settings.ingest
        device = self.options.device or plan.file.stem
        rules = Rules(self.clock.now(), limits.max_future, limits.earliest_year, device, plan.stamps, limits.max_age)
        verdict = validate(batch, plan.mapping, rules)
        accepted = self.units.resolve(verdict.accepted)
        self.units = self.units.learn(accepted, self._settle)
        converted, unknown = self.units.convert(accepted)
        return Verdict(converted, pl.concat([batch.broken, verdict.rejected, reject(batch, unknown)]), verdict.num_empty)

    def _settle(self, proposed: dict[str, str]) -> dict[str, str]:
        """Agree with all other runs on the unit of metrics that the catalog knows none of; what is already stored comes first."""
        return self.catalog.settle_units(proposed | stored_units(self.lake, proposed))

    def _as_readings(self, accepted: pl.DataFrame, file_name: str) -> pl.DataFrame:
        """Add what the file does not say: arrival, lateness and origin."""
        now = pl.lit(self.clock.now(), UTC_US)
        is_newer = (pl.col("ts") > pl.col("last_ts")).fill_null(value=True)
        dated = accepted.join(self.known.select("series_id", "last_ts"), on="series_id", how="left", maintain_order="left").with_columns(
            (pl.col("received_at").is_null() & is_newer).alias("is_history"),
            pl.coalesce("received_at", pl.when(is_newer).then(pl.min_horizontal("ts", now)).otherwise(now)).alias("received_at"),
        )
        marked = self.watermarks.mark(dated)
        self.watermarks = self.watermarks.advance(marked)
        return Readings.conform(
            marked.with_columns(pl.lit(f"file:{file_name}").alias("source"), now.alias("ingested_at"), now.dt.date().alias("ingest_date"))
        )

    def _count(self, verdict: Verdict, readings: pl.DataFrame, fresh: pl.DataFrame) -> None:
        self.counts.update(
            read=len(readings) + len(verdict.rejected),
            accepted=len(fresh),
            duplicate=len(readings) - len(fresh),
            late=int(fresh["is_late"].sum()),
            quarantined=len(verdict.rejected),
            empty=verdict.num_empty,
        )
        self.reasons.update(verdict.rejected["error_code"].to_list())
        spans = readings.group_by("series_id", "device_id", "metric").agg(
            pl.col("unit").drop_nulls().last(), pl.col("ts").min().alias("first_ts"), pl.col("ts").max().alias("last_ts")
        )
        self.spans = (
            pl.concat([self.spans, spans.select(self.spans.columns)])
            .group_by("series_id", "device_id", "metric")
            .agg(pl.col("unit").drop_nulls().last(), pl.col("first_ts").min(), pl.col("last_ts").max())
        )

    def _register(self, readings: pl.DataFrame) -> None:
        """Put the unit and aggregation of series first met into the catalog; one decided earlier is changed only by who names another.

        Before their readings are committed, so that no other stage ever finds readings without them; the spans follow at the end.
        """
        declared = {name: metric.aggregation for name, metric in self.settings.metrics.items()} | dict(self.options.aggregation)
        named = pl.col("metric").replace_strict(declared, default=None, return_dtype=pl.String)
        series = readings.select("series_id", "device_id", "metric", "unit").unique()
        news = series.join(self.spans, on=["series_id", "unit"], how="anti", nulls_equal=True)
        if not news.is_empty():
            self.catalog.upsert_series(news.with_columns(named.alias("aggregation")), default_aggregation="mean")

    def notes(self) -> list[str]:
        """Return a sentence for each file whose readings were taken to arrive now for want of a better instant."""
        return [
            f"{name}: {count} readings lie behind what was stored for their series and count as received now; "
            "name the column of their arrival times with --received-at if that is known."
            for name, count in self.behind.items()
            if count
        ]

    def report(self, plans: Sequence[FilePlan], notes: tuple[str, ...]) -> IngestReport:
        """Return the counts."""
        return IngestReport(
            read=self.counts["read"],
            accepted=self.counts["accepted"],
            duplicate=self.counts["duplicate"],
            late=self.counts["late"],
            quarantined=self.counts["quarantined"],
            empty=self.counts["empty"],
            reasons=dict(self.reasons.most_common()),
            files=len(plans),
            series=len(self.spans),
            skipped_columns=tuple(dict.fromkeys(name for plan in plans for name in plan.skipped)),
            notes=notes,
        )


def _store_readings(lake: Lake, readings: pl.DataFrame) -> pl.DataFrame:
    """Commit the readings that are not stored yet and return them.

    The number of the commit is read before the look for duplicates, so the fence refuses it when another run has committed since:
    then look again. Two runs over the same files at once store each reading once.
    """
    for _ in range(_MAX_ROUNDS):
        seq = (lake.last_seq(Readings, _FENCE) or 0) + 1
        fresh, _duplicate = split_duplicates(lake, readings)
        if fresh.is_empty() or append_readings(lake, fresh, source=_SOURCE, seq=seq):
            return fresh
    raise _crowded(Readings.name)


def _store_quarantine(lake: Lake, rejected: pl.DataFrame) -> None:
    """Commit the rejected rows that are not in quarantine yet, behind the same fence."""
    for _ in range(_MAX_ROUNDS):
        seq = (lake.last_seq(Quarantine, _FENCE) or 0) + 1
        positions = rejected["position"].unique()
        if rejected.is_empty():
            return
        stored = lake.scan(Quarantine).filter(
            pl.col("connector") == rejected["connector"][0], pl.col("position").is_in(positions.implode())
        )
        fresh = rejected.join(read(stored.select(Quarantine.key)), on=Quarantine.key, how="anti", maintain_order="left")
        if fresh.is_empty() or append_quarantine(lake, fresh, source=_SOURCE, seq=seq):
            return
    raise _crowded(Quarantine.name)


def _crowded(table: str) -> StoreError:
    return StoreError(f"ingest requires a turn at the table {table}; got {_MAX_ROUNDS} commits of other runs in a row. Run it again.")
