"""The real ingest on simulated fleets: every injected fault comes out as its ledger says, in the report and in the tables."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from pipeline.clock import ReplayClock
from pipeline.ingest.fleet import FAULTS, LIVE_FAULTS, FaultSpec, FleetSpec
from pipeline.ingest.ingest import IngestOptions, IngestReport, ingest_paths
from pipeline.ingest.signals import truth
from pipeline.ingest.simulate import UNITS_FILE, FileFormat, simulate, write_fleet
from pipeline.ingest.unit_intervals import ingest_unit_intervals
from pipeline.schemas import Quarantine, Readings
from pipeline.settings import Settings, load_settings
from pipeline.store.lake import Lake

KEY = ["series_id", "ts"]
WITH_EACH_FAULT = {fault: FaultSpec.only(fault, rate=0.02) for fault in FAULTS + LIVE_FAULTS}
OF_CLOCKS = FaultSpec.only(*(fault for fault in LIVE_FAULTS if fault != "retirement"), "duplicate", "corrected", "gap", rate=0.004)
MIXTURES = {**WITH_EACH_FAULT, "none": FaultSpec.none(), "all": FaultSpec.all(0.004), "of clocks": OF_CLOCKS}


@dataclass(frozen=True)
class Ingested:
    """A fleet, its ledger, and what ingest made of it."""

    spec: FleetSpec
    settings: Settings
    folder: Path
    events: pl.DataFrame
    ledger: pl.DataFrame
    report: IngestReport

    def again(self) -> IngestReport:
        """Ingest the same folder once more."""
        return ingest_paths(self.settings, [self.folder], IngestOptions(), ReplayClock(self.spec.start + timedelta(days=self.spec.days)))

    def table(self, schema: type[Readings] | type[Quarantine]) -> pl.DataFrame:
        """Read one whole table."""
        return Lake(self.settings.lake).scan(schema).collect()

    def entries(self, *outcomes: str) -> pl.DataFrame:
        """Return the ledger's entries with one of the outcomes, by series."""
        series_id = pl.concat_str("device_id", "metric", separator="/")
        return self.ledger.filter(pl.col("outcome").is_in(outcomes)).with_columns(series_id=series_id)


def fleet(faults: FaultSpec) -> FleetSpec:
    return FleetSpec(num_devices=2, days=20, faults=faults)


def ingest_fleet(folder: Path, spec: FleetSpec, file_format: FileFormat = "ndjson") -> Ingested:
    write_fleet(spec, folder / "site", file_format)
    settings = load_settings(folder / "site" / "tidecast.toml", lake=str(folder / "lake"))
    if spec.faults.unit_change:
        ingest_unit_intervals(settings, [folder / "site" / UNITS_FILE])
    report = ingest_paths(settings, [folder / "site"], IngestOptions(), ReplayClock(spec.start + timedelta(days=spec.days)))
    return Ingested(spec, settings, folder / "site", *simulate(spec), report)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Ingested:
    """A fleet with all faults, compressed, ingested once."""
    return ingest_fleet(tmp_path_factory.mktemp("all"), fleet(MIXTURES["all"]), "ndjson.gz")


@pytest.mark.parametrize("faults", MIXTURES.values(), ids=MIXTURES)
def test_the_report_counts_what_the_ledger_lists(tmp_path: Path, faults: FaultSpec) -> None:
    """Shown to fail by counting the second of two equal events as accepted, and by an earliest year of 1900."""
    done = ingest_fleet(tmp_path, fleet(faults))
    reasons = dict(done.ledger["outcome"].str.extract("quarantined:(.*)").drop_nulls().value_counts().iter_rows())
    num_duplicates = done.entries("duplicate").height
    assert done.report.read == len(done.events)
    assert done.report.reasons == reasons
    assert done.report.quarantined == sum(reasons.values())
    assert done.report.duplicate == num_duplicates
    assert done.report.late == done.entries("late", "revision").height
    assert done.report.accepted == len(done.events) - num_duplicates - sum(reasons.values())


def test_a_reading_that_was_overtaken_within_the_allowed_lateness_is_not_late(tmp_path: Path) -> None:
    """Shown to fail by a watermark without the allowed lateness."""
    every_10_s = FleetSpec(
        num_devices=1,
        days=1,
        sample_interval=timedelta(seconds=10),
        metrics=("temperature", "power"),
        faults=FaultSpec.only("out_of_order"),
    )
    done = ingest_fleet(tmp_path, every_10_s)
    assert len(done.ledger) > 10
    assert (done.report.late, done.report.accepted) == (0, len(done.events))


def test_each_quarantined_line_is_kept_whole_with_its_reason(everything: Ingested) -> None:
    place = pl.concat_str(pl.lit("readings.ndjson.gz:"), "position")
    lines = everything.events.with_row_index("position", offset=1).select(pl.col("position").cast(pl.Int64), "payload")
    expected = everything.ledger.join(lines, on="position").select(
        place.alias("position"), "payload", error_code=pl.col("outcome").str.extract("quarantined:(.*)")
    )
    stored = everything.table(Quarantine).select("position", "payload", "error_code")
    assert stored.sort("position").equals(expected.drop_nulls("error_code").sort("position"))


def test_what_came_late_is_marked_late_and_nothing_else(everything: Ingested) -> None:
    expected = everything.entries("late", "revision").select(*KEY, pl.col("seq").alias("source_seq"))
    marked = everything.table(Readings).filter("is_late").select(*KEY, "source_seq")
    assert marked.sort(KEY).equals(expected.sort(KEY))


def test_every_accepted_reading_is_stored_once(everything: Ingested) -> None:
    listed = everything.entries("accepted", "converted", "late", "revision", "duplicate").select(*KEY, pl.col("seq").alias("source_seq"))
    readings = everything.table(Readings)
    assert not readings.select(*KEY, "source_seq").is_duplicated().any()
    assert listed.join(readings, on=[*KEY, "source_seq"], how="anti").is_empty()


def test_the_newest_of_each_stamp_is_the_truth_in_the_metrics_unit(everything: Ingested) -> None:
    newest = everything.table(Readings).sort("received_at", "source_seq").unique(KEY, keep="last")
    true = truth(everything.spec).select(
        pl.concat_str("device_id", "metric", separator="/").alias("series_id"), "ts", true="value", true_unit="unit"
    )
    both = newest.join(true, on=KEY, how="left")
    assert (both["value"] - both["true"]).abs().max() < 0.004  # degF comes with two decimals
    assert (both["unit"] == both["true_unit"]).all()
    num_lost = everything.ledger.filter(pl.col("outcome").str.contains("missing$|quarantined")).height
    assert len(newest) == len(true) - num_lost


def test_ingesting_the_same_folder_again_changes_nothing(everything: Ingested) -> None:
    readings, quarantine = everything.table(Readings), everything.table(Quarantine)
    again = everything.again()
    assert (again.read, again.accepted) == (everything.report.read, 0)
    assert everything.table(Readings).sort(KEY).equals(readings.sort(KEY))
    assert everything.table(Quarantine).sort("position").equals(quarantine.sort("position"))
