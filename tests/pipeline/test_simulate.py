"""Laws of `pipeline.ingest.simulate`: the files of a simulated fleet."""

import gzip
import json
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from pipeline.errors import DataError, SettingsError
from pipeline.ingest.fleet import METRICS, FaultSpec, FleetSpec
from pipeline.ingest.formats import discover
from pipeline.ingest.simulate import simulate, write_fleet
from pipeline.settings import load_settings

SPEC = FleetSpec(num_devices=2, days=10, faults=FaultSpec.all(0.004), allowed_lateness=timedelta(seconds=90))
SAMPLE = Path(__file__).parents[2] / "data" / "sample"


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("once", "again"):
        write_fleet(SPEC, tmp_path / name, "ndjson.gz")
    write_fleet(FleetSpec(num_devices=2, days=10, seed=8), tmp_path / "other", "ndjson.gz")
    assert contents(tmp_path / "once") == contents(tmp_path / "again")
    assert contents(tmp_path / "once")["readings.ndjson.gz"] != contents(tmp_path / "other")["readings.ndjson.gz"]


def test_a_line_has_exactly_the_keys_of_an_event() -> None:
    events, _ = simulate(FleetSpec(num_devices=1, days=1, faults=FaultSpec.none()))
    line = json.loads(events["payload"][0])
    assert list(line) == ["device_id", "metric", "ts", "value", "unit", "seq", "received_at"]
    assert (line["device_id"], line["ts"], line["unit"], line["seq"]) == ("sensor-0001", "2026-01-01T00:00:00Z", "degC", 1)
    assert line["received_at"].startswith("2026-01-01T00:00:0")
    assert line["received_at"].endswith("Z")


def test_a_line_says_what_its_row_says() -> None:
    events, _ = simulate(FleetSpec(num_devices=1, days=2, faults=FaultSpec.none()))
    read = pl.read_ndjson(b"\n".join(events["payload"])).with_columns(pl.col("ts", "received_at").str.to_datetime(time_zone="UTC"))
    assert read.equals(events.drop("payload"))


def test_the_file_is_the_events_in_order_and_the_ledger_beside_it(tmp_path: Path) -> None:
    report = write_fleet(SPEC, tmp_path)
    events, ledger = simulate(SPEC)
    assert (tmp_path / "readings.ndjson").read_bytes().split(b"\n")[:-1] == events["payload"].to_list()
    assert pl.read_csv(tmp_path / "ledger.txt", try_parse_dates=True).equals(ledger.with_columns(pl.col("ts").dt.cast_time_unit("us")))
    assert (report.lines, report.devices, report.series) == (len(events), 2, 8)
    assert sum(report.faults.values()) == sum(report.outcomes.values()) == len(ledger)
    assert json.loads(json.dumps(report.to_dict()))["folder"] == str(tmp_path)


def test_compression_changes_no_byte_of_the_lines(tmp_path: Path) -> None:
    write_fleet(SPEC, tmp_path)
    write_fleet(SPEC, tmp_path, "ndjson.gz")
    assert gzip.decompress((tmp_path / "readings.ndjson.gz").read_bytes()) == (tmp_path / "readings.ndjson").read_bytes()


def test_the_settings_declare_every_metric(tmp_path: Path) -> None:
    write_fleet(SPEC, tmp_path)
    declared = load_settings(tmp_path / "tidecast.toml")
    assert {name: (metric.unit, metric.aggregation) for name, metric in declared.metrics.items()} == {
        name: (metric.unit, metric.aggregation) for name, metric in METRICS.items()
    }
    assert declared.ingest.allowed_lateness == timedelta(seconds=90)


def test_settings_that_somebody_wrote_are_not_replaced(tmp_path: Path) -> None:
    """Shown to fail by writing without a look."""
    (tmp_path / "tidecast.toml").write_text('lake = "precious"\n')
    with pytest.raises(DataError, match="without settings of your own; got"):
        write_fleet(SPEC, tmp_path)
    assert contents(tmp_path) == {"tidecast.toml": b'lake = "precious"\n'}


def test_of_a_written_folder_only_the_readings_are_input(tmp_path: Path) -> None:
    write_fleet(SPEC, tmp_path, "ndjson.gz")
    files, _ = discover([tmp_path])
    assert [file.path.name for file in files] == ["readings.ndjson.gz"]


def test_a_format_or_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"ndjson or ndjson.gz; got 'csv'"):
        write_fleet(SPEC, tmp_path, "csv")
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="requires a folder that can be written"):
        write_fleet(SPEC, tmp_path / "file")


def test_the_committed_sample_is_what_its_command_makes(tmp_path: Path) -> None:
    write_fleet(FleetSpec(faults=FaultSpec.all(0.0015)), tmp_path, "ndjson.gz")
    made, committed = contents(tmp_path), contents(SAMPLE)
    assert gzip.decompress(committed.pop("readings.ndjson.gz")) == gzip.decompress(made.pop("readings.ndjson.gz"))
    assert committed == made
