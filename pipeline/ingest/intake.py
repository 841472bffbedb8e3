"""What becomes of a judged batch, whether a file or a message brought it: converted, marked late, registered and counted.

Files and messages differ in where rows come from, when they arrived and which number fences their commit; all else is here, once.
Called by `ingest.py` and by `pipeline.listen`.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from pipeline.ingest.raw import RawBatch
from pipeline.ingest.roster import Roster
from pipeline.ingest.timestamps import StampRules
from pipeline.ingest.units import UnitRegistry, stored_units
from pipeline.ingest.validate import Rules, Verdict, reject
from pipeline.ingest.watermark import Watermarks
from pipeline.schemas import UTC_US, Readings
from pipeline.settings import IngestSettings, Settings
from pipeline.store.catalog import Catalog
from pipeline.store.known_units import KnownUnits
from pipeline.store.lake import Lake

DEFAULT_AGGREGATION = "mean"
_IDENTITY = ("series_id", "device_id", "metric")


def rules_at(limits: IngestSettings, now: datetime, device: str, stamps: StampRules, accept: tuple[str, ...] = ()) -> Rules:
    """Return what readings are held against at an instant.

    Args:
        limits: the ingest section.
        now: the present of the judgement, UTC.
        device: the device of rows that name none.
        stamps: how stamps are read.
        accept: reasons, of `validate.ACCEPTABLE`, for which nothing is rejected.
    """
    return Rules(now, limits.max_future, limits.earliest_year, device, stamps, limits.max_age, accept)


@dataclass
class Intake:
    """A run of batches: what was known when it began, and what it has found since.

    Attributes:
        lake: where readings are.
        catalog: where series and units are agreed on with all other runs.
        aggregations: what the user has declared, by metric.
        units: canonical units; grows.
        watermarks: how far each series has come; moves on with each batch.
        roster: which series there are, and how many more there may be; grows.
        registered: unit and aggregation of each series that the catalog has, as `series_id, unit, aggregation`.
        spans: first and last event time of each series met.
        counts: readings by what became of them: read, accepted, duplicate, late, quarantined; and empty cells.
        reasons: quarantined readings by error code.
        is_trial: whether nothing may be written: units first met are then not agreed on with other runs.
    """

    lake: Lake
    catalog: Catalog
    aggregations: Mapping[str, str]
    units: UnitRegistry
    watermarks: Watermarks
    roster: Roster
    registered: pl.DataFrame
    spans: pl.DataFrame
    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    is_trial: bool = False

    @classmethod
    def start(cls, settings: Settings, known: pl.DataFrame, aggregations: Mapping[str, str] | None = None) -> "Intake":
        """Begin where the catalog stands.

        Args:
            settings: lake, state folder, ingest section and metrics.
            known: the catalog's series, with what the watermarks shall begin with.
            aggregations: by metric; what is not named comes from the settings.
        """
        declared = {name: metric.unit for name, metric in settings.metrics.items()}
        return cls(
            lake=Lake(settings.lake),
            catalog=Catalog(settings.state_dir),
            aggregations={name: metric.aggregation for name, metric in settings.metrics.items()} | dict(aggregations or {}),
            units=UnitRegistry.of(declared, known, KnownUnits(settings.state_dir).intervals()),
            watermarks=Watermarks.resume(known, settings.ingest.allowed_lateness, settings.ingest.idle_timeout),
            roster=Roster.of(known, settings.ingest.max_series),
            registered=known.select("series_id", "unit", "aggregation"),
            spans=spans_of(Readings.empty()),
        )

    def convert(self, batch: RawBatch, verdict: Verdict) -> Verdict:
        """Bring judged readings under the names of their series and into canonical units.

        Args:
            batch: where they came from.
            verdict: as `validate` gives it.

        Returns:
            The verdict with converted values, and with what has no series, no unit that converts, or was not even a row among the rejected.

        Raises:
            StoreError: when units cannot be agreed on.
        """
        self.roster, admitted, refused = self.roster.admit(verdict.accepted)
        accepted = self.units.resolve(admitted)
        self.units = self.units.learn(accepted, self._settle)
        converted, unknown = self.units.convert(accepted)
        rejected = pl.concat([batch.broken, verdict.rejected, reject(batch, refused), reject(batch, unknown)])
        return Verdict(converted, rejected, verdict.num_empty)

    def _settle(self, proposed: dict[str, str]) -> dict[str, str]:
        """Agree with all other runs on the unit of metrics that the catalog knows none of; what is already stored comes first."""
        wanted = proposed | stored_units(self.lake, proposed)
        return wanted if self.is_trial else KnownUnits(self.catalog.state_dir).settle(wanted)

    def mark(self, dated: pl.DataFrame, now: datetime) -> pl.DataFrame:
        """Return rows of `Readings`: late or not by the batches before, committed now; and move the watermarks on.

        Args:
            dated: accepted rows with `received_at`, `is_history` (received when measured, so never late) and `source`.
            now: the present, UTC.
        """
        marked = self.watermarks.mark(dated)
        self.watermarks = self.watermarks.advance(marked)
        ingested_at = pl.lit(now, UTC_US)
        return Readings.conform(marked.with_columns(ingested_at.alias("ingested_at"), ingested_at.dt.date().alias("ingest_date")))

    def register(self, readings: pl.DataFrame) -> pl.DataFrame:
        """Put the unit and aggregation of series first met into the catalog; one decided earlier is changed only by who names another.

        Before their readings are committed, so that no other stage ever finds readings without them; the spans follow the commit.

        Args:
            readings: rows of `Readings`.

        Returns:
            The spans of these readings, as `spans_of`.
        """
        seen = spans_of(readings)
        named = pl.col("metric").replace_strict(dict(self.aggregations), default=None, return_dtype=pl.String)
        canonical = self.units.with_canonical(seen)["canonical"]  # of a device that never names its unit, too
        said = seen.select(*_IDENTITY, canonical.alias("unit"), named.alias("aggregation"))
        is_other_unit = pl.col("unit").is_not_null() & pl.col("unit").ne_missing(pl.col("unit_known"))
        is_other_aggregation = (pl.col("aggregation") != pl.col("aggregation_known")).fill_null(value=False)
        news = said.join(self.registered, on="series_id", how="left", suffix="_known").filter(
            pl.col("aggregation_known").is_null() | is_other_unit | is_other_aggregation
        )
        if not news.is_empty():
            self.catalog.upsert_series(news.select(said.columns), default_aggregation=DEFAULT_AGGREGATION)
            now_known = news.select(
                "series_id",
                pl.coalesce("unit", "unit_known"),
                pl.coalesce("aggregation", "aggregation_known", pl.lit(DEFAULT_AGGREGATION)),
            )
            self.registered = pl.concat([self.registered.join(now_known, on="series_id", how="anti"), now_known])
        self.spans = _widened(self.spans, seen)
        return seen

    def reached(self, spans: pl.DataFrame) -> pl.DataFrame:
        """Return spans of series met, as the catalog takes them: with how far the watermarks have come."""
        return spans.drop("last_ts").join(self.watermarks.reached, on="series_id")

    def count(self, readings: pl.DataFrame, fresh: pl.DataFrame, rejected: pl.DataFrame, num_empty: int = 0) -> None:
        """Add a batch to the counts.

        Args:
            readings: all that was accepted.
            fresh: those of them that were not stored before.
            rejected: what was not accepted, with `error_code`.
            num_empty: cells that hold no reading.
        """
        self.counts.update(
            read=len(readings) + len(rejected),
            accepted=len(fresh),
            duplicate=len(readings) - len(fresh),
            late=int(fresh["is_late"].sum()),
            quarantined=len(rejected),
            empty=num_empty,
        )
        self.reasons.update(rejected["error_code"].to_list())


def spans_of(readings: pl.DataFrame) -> pl.DataFrame:
    """Return series_id, device_id, metric, unit, first_ts, last_ts: one row for each series of the readings."""
    return readings.group_by(_IDENTITY).agg(
        pl.col("unit").drop_nulls().last(), pl.col("ts").min().alias("first_ts"), pl.col("ts").max().alias("last_ts")
    )


def _widened(spans: pl.DataFrame, seen: pl.DataFrame) -> pl.DataFrame:
    return (
        pl.concat([spans, seen])
        .group_by(_IDENTITY)
        .agg(pl.col("unit").drop_nulls().last(), pl.col("first_ts").min(), pl.col("last_ts").max())
    )
