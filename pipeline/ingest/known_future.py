"""What is known ahead, from files to the plans table: `tidecast ingest --plan FILE…` below the command line.

Files are found, mapped and judged as those of readings are, but stamps may lie ahead. When a value was announced decides whether a
forecast may read it: the file says (received_at), the user says (known ahead), or it is now. Called by `flows`.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import polars as pl

from pipeline.clock import Clock
from pipeline.ingest.formats import discover
from pipeline.ingest.ingest import IngestOptions, IngestReport
from pipeline.ingest.plan import FilePlan, plan_files
from pipeline.ingest.raw import RawBatch
from pipeline.ingest.timestamps import StampRules
from pipeline.ingest.validate import Rules, Verdict, quarantined, validate
from pipeline.schemas import UTC_US, Plans
from pipeline.settings import Settings
from pipeline.store.lake import Lake
from pipeline.store.plans import SOURCE, append_plans
from pipeline.store.readings import store_quarantine

FURTHEST_AHEAD = timedelta(days=3650)  # a stamp beyond is a mistake: it goes to quarantine


def ingest_plans(settings: Settings, paths: Sequence[Path], options: IngestOptions, clock: Clock) -> IngestReport:
    """Bring files into the plans table; what cannot be used goes to quarantine, and values are stored as they come, without their unit.

    Args:
        settings: lake and ingest section.
        paths: files, folders or glob patterns.
        options: what the user says about the files; its aggregation is not looked at.
        clock: says when announcements without an instant of their own were made.

    Raises:
        SettingsError: when an option is impossible.
        DataError: when a path, a file or a column cannot be used.
        StoreError: when the lake cannot be written.
    """
    stamps = StampRules(options.time_zone, options.epoch_unit)
    files, ignored = discover(paths, options.format)
    file_plans, others = plan_files(files, options.mapping, stamps)
    lake = Lake(settings.lake)
    lake.create_all()
    counts, reasons, series = Counter[str](), Counter[str](), set[str]()
    for file_plan in file_plans:
        for batch in file_plan.source.batches(file_plan.mapping.columns, settings.ingest.batch_rows):
            verdict = _judge(file_plan, batch, settings, options, clock)
            announced = _announced(verdict.accepted, options.known_ahead, clock)
            accepted = append_plans(lake, announced, is_assumed=file_plan.mapping.received_at is None)
            rejected = quarantined(verdict.rejected, f"plan:{file_plan.file.path.name}", clock.now())
            store_quarantine(lake, rejected, source=SOURCE)
            num_read = len(announced) + len(verdict.rejected)
            counts.update(read=num_read, accepted=accepted, duplicate=len(announced) - accepted, empty=verdict.num_empty)
            counts.update(untimely=announced.filter(pl.col("available_at") >= pl.col("ts")).height)
            reasons.update(verdict.rejected["error_code"].to_list())
            series.update(announced["series_id"].unique())
    left_out = [f"{path.name}: left out, its name ends like no format of plans." for path in ignored]
    return IngestReport(
        read=counts["read"],
        accepted=counts["accepted"],
        duplicate=counts["duplicate"],
        late=0,
        quarantined=reasons.total(),
        empty=counts["empty"],
        reasons=dict(reasons.most_common()),
        files=len(file_plans),
        series=len(series),
        skipped_columns=tuple(dict.fromkeys(name for file_plan in file_plans for name in file_plan.skipped)),
        notes=(*(note for file_plan in file_plans for note in file_plan.notes), *others, *left_out, *_untimely(counts["untimely"])),
    )


def _judge(file_plan: FilePlan, batch: RawBatch, settings: Settings, options: IngestOptions, clock: Clock) -> Verdict:
    device = options.device or file_plan.file.stem
    rules = Rules(clock.now(), FURTHEST_AHEAD, settings.ingest.earliest_year, device, file_plan.stamps)
    verdict = validate(batch, file_plan.mapping, rules)
    return Verdict(verdict.accepted, pl.concat([batch.broken, verdict.rejected]), verdict.num_empty)


def _announced(accepted: pl.DataFrame, known_ahead: timedelta | None, clock: Clock) -> pl.DataFrame:
    """Return rows of `Plans`; nothing was announced later than now."""
    now = pl.lit(clock.now(), UTC_US)
    assumed = now if known_ahead is None else pl.col("ts") - known_ahead
    rows = accepted.with_columns(
        pl.min_horizontal(pl.coalesce("received_at", assumed), now).alias("available_at"),
        now.alias("ingested_at"),
        pl.col("ts").dt.date().alias("event_date"),
    )
    return Plans.conform(rows).unique(("series_id", "ts", "available_at"), keep="last", maintain_order=True)


def _untimely(count: int) -> list[str]:
    sentence = (
        f"{count} values count as known only once their instant had passed, so nothing reads them; "
        "name the column of their announcement with --received-at, or say how far ahead they were known with --known-ahead."
    )
    return [sentence] if count else []
