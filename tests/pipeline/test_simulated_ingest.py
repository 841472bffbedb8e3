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
from pipeline.prepare.regularise import regularise
from pipeline.schemas import Observations, Quarantine, Readings
from pipeline.settings import Settings, load_settings
from pipeline.store.catalog import Catalog
from pipeline.store.lake import Lake
from pipeline.store.series import retire_series

KEY = ["series_id", "ts"]
AFTER = FleetSpec.start + timedelta(days=20)
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


@pytest.fixture(scope="module")
def clocks(tmp_path_factory: pytest.TempPathFactory) -> Ingested:
    """A fleet with what goes wrong with clocks and streams, ingested once."""
    return ingest_fleet(tmp_path_factory.mktemp("clocks"), fleet(OF_CLOCKS))


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


def expected_late(done: Ingested) -> pl.DataFrame:
    return done.entries("late", "revision").select(*KEY, pl.col("seq").alias("source_seq")).sort(KEY)


def marked_late(settings: Settings) -> pl.DataFrame:
    return Lake(settings.lake).scan(Readings).filter("is_late").select(*KEY, "source_seq").collect().sort(KEY)


def test_what_came_late_is_marked_late_and_nothing_else(everything: Ingested, clocks: Ingested) -> None:
    """Shown to fail by an idle rule that forgets what it has lifted the watermark to, and by one that the second reading ends."""
    for done in (everything, clocks):
        assert marked_late(done.settings).equals(expected_late(done))
    assert clocks.entries("late").filter(fault="outage").height > 10


@pytest.mark.parametrize("batch_rows", [97, 100_000])
def test_no_border_of_batches_or_runs_changes_what_is_late(tmp_path: Path, clocks: Ingested, batch_rows: int) -> None:
    """The lines come in two runs, the border in the middle of what a device brings after an outage.

    Shown to fail by keeping the last arrival, or the end of the last silence, out of the catalog.
    """
    cut = int(clocks.entries("late").filter(fault="outage")["position"].sort()[1])
    settings = load_settings(clocks.folder / "tidecast.toml", lake=str(tmp_path / "lake"), ingest={"batch_rows": batch_rows})
    ingest_unit_intervals(settings, [clocks.folder / UNITS_FILE])
    lines = clocks.events["payload"].to_list()
    for name, part in (("first", lines[:cut]), ("second", lines[cut:])):
        (tmp_path / f"{name}.ndjson").write_bytes(b"\n".join(part))
        ingest_paths(settings, [tmp_path / f"{name}.ndjson"], IngestOptions(), ReplayClock(AFTER))
    assert marked_late(settings).equals(expected_late(clocks))


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


def test_a_unit_that_the_registry_alone_knows_is_converted(tmp_path: Path) -> None:
    """Shown to fail by leaving the registry unread: 68 degF would be stored as 68 degC."""
    done = ingest_fleet(tmp_path, fleet(FaultSpec.only("unit_change", rate=0.02)))
    assert done.events.filter(pl.col("unit").is_null()).height == len(done.ledger) > 10
    true = truth(done.spec).select("ts", pl.concat_str("device_id", "metric", separator="/").alias("series_id"), true="value")
    both = done.table(Readings).join(true, on=KEY)
    assert (both["value"] - both["true"]).abs().max() < 0.004
    assert (len(both), done.report.quarantined) == (len(true), 0)


def test_a_folder_of_readings_passes_over_its_registry_of_units(clocks: Ingested) -> None:
    assert [note for note in clocks.report.notes if note.startswith(UNITS_FILE)]
    assert clocks.report.read == len(clocks.events)


def test_a_fast_clock_moves_no_watermark(tmp_path: Path) -> None:
    """Shown to fail by a `max_future` of a day."""
    done = ingest_fleet(tmp_path, fleet(FaultSpec.only("future_clock", rate=0.02)))
    assert (done.report.late, done.report.reasons) == (0, {"future_timestamp": len(done.ledger)})


def test_a_gap_is_a_tick_that_nobody_observed(tmp_path: Path) -> None:
    """Shown to fail by leaving the ticks of a gap out."""
    metrics = ("temperature", "power")  # a counter has no value in the tick after a gap either
    done = ingest_fleet(tmp_path, FleetSpec(num_devices=2, days=20, metrics=metrics, faults=FaultSpec.only("gap", rate=0.01)))
    regularise(done.settings, ReplayClock(AFTER + timedelta(hours=1)))
    unobserved = Lake(done.settings.lake).scan(Observations).filter(~pl.col("observed")).collect()
    last = done.table(Readings).group_by("series_id").agg(last=pl.col("ts").max())
    missing = done.entries("missing").join(last, on="series_id").filter(pl.col("ts") < pl.col("last"))  # then the gap has an end
    assert unobserved.select(KEY).sort(KEY).equals(missing.select(KEY).sort(KEY))
    assert unobserved["value"].null_count() == len(unobserved) > 10


def test_a_device_that_is_gone_retires_by_itself_and_one_that_was_retired_is_still_stored(tmp_path: Path) -> None:
    """Shown to fail by counting silence from the newest stamp of the series itself."""
    done = ingest_fleet(tmp_path, fleet(FaultSpec.only("retirement", rate=0.02)))
    catalog, days = Catalog(done.settings.state_dir), timedelta(days=3)
    assert catalog.retired(AFTER, days) == set(done.entries("missing")["series_id"])
    assert len(catalog.retired(AFTER, days)) == 4
    retire_series(done.settings, ReplayClock(AFTER), ["*"])
    line = '{"device_id":"sensor-0001","metric":"power","ts":"2026-01-21T00:00:00Z","value":1.5,"unit":"kW","seq":9999}'
    (tmp_path / "more.ndjson").write_text(line)
    assert ingest_paths(done.settings, [tmp_path / "more.ndjson"], IngestOptions(), ReplayClock(AFTER)).accepted == 1
    assert len(catalog.retired(AFTER, None)) == 8
