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
from pipeline.ingest.formats import Format, discover
from pipeline.ingest.intake import Intake, rules_at
from pipeline.ingest.mapping import ColumnMapping
from pipeline.ingest.plan import FilePlan, plan_files
from pipeline.ingest.timestamps import EpochUnit, StampRules
from pipeline.ingest.validate import quarantined, validate
from pipeline.schemas import UTC_US
from pipeline.settings import Aggregation, Settings
from pipeline.store.catalog import ARRIVED, Catalog
from pipeline.store.lake import Lake
from pipeline.store.readings import store_quarantine, store_readings

_SOURCE = "file"  # all runs over files share one fence: their files may overlap


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
    plans, others, ignored = plan_paths(paths, options)
    lake, catalog = Lake(settings.lake), Catalog(settings.state_dir)
    lake.create_all()
    name = _run_name(plans, options)
    began_with = catalog.begin_ingest(name)
    known = catalog.series().drop(ARRIVED).join(began_with, on="series_id", how="left")
    run = _Run(settings, options, clock, lake, known, Intake.start(settings, known, options.aggregation))
    for plan in plans:
        run.ingest(plan)
    catalog.upsert_series(run.intake.reached(run.intake.spans))
    catalog.end_ingest(name)
    left_out = [f"{path.name}: left out, its name ends like no format of readings." for path in ignored]
    return run.report(plans, (*(note for plan in plans for note in plan.notes), *others, *left_out, *run.notes()))


def plan_paths(paths: Sequence[Path], options: IngestOptions) -> tuple[list[FilePlan], list[str], list[Path]]:
    """Look at the first rows of every file and decide how it is read; nothing is stored.

    Args:
        paths: files, folders (with all below them) or glob patterns.
        options: what the user says about the files.

    Returns:
        The plans, a sentence for each file without readings, and the files whose names end like no format.

    Raises:
        SettingsError: when an option is impossible.
        DataError: when a path, a file or a column cannot be used, as far as its first rows show it.
    """
    stamps = StampRules(options.time_zone, options.epoch_unit)
    files, ignored = discover(paths, options.format)
    plans, others = plan_files(files, options.mapping, stamps)
    return plans, others, ignored


def _run_name(plans: Sequence[FilePlan], options: IngestOptions) -> str:
    """Return a digest of which files a run reads, and how; a file that was written again counts as another."""
    stats = [(str(plan.file.path.resolve()), plan.file.path.stat()) for plan in plans]
    files = sorted((path, stat.st_size, stat.st_mtime_ns) for path, stat in stats)
    return hashlib.sha256(json.dumps([files, asdict(options)], sort_keys=True).encode()).hexdigest()


@dataclass
class _Run:
    """One run over files.

    Attributes:
        known: the catalog's series, with `last_ts` as at the start. What is newer than anything then stored is history, whatever the
            order of the files.
        intake: what the run has found.
        behind: readings by file that count as received now, because what was stored of their series is newer.
    """

    settings: Settings
    options: IngestOptions
    clock: Clock
    lake: Lake
    known: pl.DataFrame
    intake: Intake
    behind: Counter[str] = field(default_factory=Counter)

    def ingest(self, plan: FilePlan) -> None:
        """Read one file, a batch at a time: one commit of readings and one of quarantine for each."""
        per_row = len(plan.mapping.value) if plan.mapping.layout == "wide" else 1
        connector = f"file:{plan.file.path.name}"
        for batch in plan.source.batches(plan.mapping.columns, max(1, self.settings.ingest.batch_rows // per_row)):
            rules = rules_at(self.settings.ingest, self.clock.now(), self.options.device or plan.file.stem, plan.stamps)
            verdict = self.intake.convert(batch, validate(batch, plan.mapping, rules))
            readings = self.intake.mark(self._dated(verdict.accepted).with_columns(source=pl.lit(connector)), self.clock.now())
            self.intake.register(readings)
            fresh = store_readings(self.lake, readings, source=_SOURCE)
            store_quarantine(self.lake, quarantined(verdict.rejected, connector, self.clock.now()), source=_SOURCE)
            self.intake.count(readings, fresh, verdict.rejected, verdict.num_empty)
            if not plan.mapping.received_at:
                is_behind = (pl.col("received_at") == pl.col("ingested_at")) & (pl.col("ts") < pl.col("received_at"))
                self.behind[plan.file.path.name] += len(fresh.filter(is_behind))

    def _dated(self, accepted: pl.DataFrame) -> pl.DataFrame:
        """Add the arrival of rows whose file does not say it."""
        now = pl.lit(self.clock.now(), UTC_US)
        is_newer = (pl.col("ts") > pl.col("last_ts")).fill_null(value=True)
        return accepted.join(self.known.select("series_id", "last_ts"), on="series_id", how="left", maintain_order="left").with_columns(
            (pl.col("received_at").is_null() & is_newer).alias("is_history"),
            pl.coalesce("received_at", pl.when(is_newer).then(pl.min_horizontal("ts", now)).otherwise(now)).alias("received_at"),
        )

    def notes(self) -> list[str]:
        """Return a sentence for each file whose readings were taken to arrive now for want of a better instant."""
        return [
            f"{name}: readings that lie behind what was stored for their series count as received now: {count:,}. "
            "Name the column of their arrival times with --received-at if that is known."
            for name, count in self.behind.items()
            if count
        ]

    def report(self, plans: Sequence[FilePlan], notes: tuple[str, ...]) -> IngestReport:
        """Return the counts."""
        counts = self.intake.counts
        return IngestReport(
            read=counts["read"],
            accepted=counts["accepted"],
            duplicate=counts["duplicate"],
            late=counts["late"],
            quarantined=counts["quarantined"],
            empty=counts["empty"],
            reasons=dict(self.intake.reasons.most_common()),
            files=len(plans),
            series=len(self.intake.spans),
            skipped_columns=tuple(dict.fromkeys(name for plan in plans for name in plan.skipped)),
            notes=notes,
        )
