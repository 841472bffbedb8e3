"""From files to tables: every reading is accounted for, and nothing that is repeated, interrupted or doubled changes that."""

import gzip
import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipeline.clock import ReplayClock
from pipeline.errors import DataError
from pipeline.ingest.ingest import IngestOptions, ingest_paths
from pipeline.ingest.mapping import ColumnMapping
from pipeline.prepare.regularise import regularise
from pipeline.schemas import Quarantine, Readings
from pipeline.settings import load_settings
from pipeline.store.catalog import Catalog
from pipeline.store.catalog_file import transaction
from pipeline.store.lake import Lake

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
KEY = ["series_id", "ts", "received_at", "value"]
MESSY = [
    '{"device_id":"d","metric":"t","ts":"2026-05-01T00:00:00Z","value":20.5,"unit":"degC","seq":1}',
    '{"device_id":"d","metric":"t","ts":"2026-05-01T01:00:00Z","value":69.8,"unit":"degF","seq":2}',
    '{"device_id":"d","metric":"t","ts":"2026-05-01T01:00:00Z","value":69.8,"unit":"degF","seq":2}',
    '{"device_id":"d","metric":"t","ts":"2026-05-01T02:00:00Z","value":3.0,"unit":"bar","seq":3}',
    '{"device_id":"d","metric":"t","ts":"2026-05-01T03:00:00Z","value":null,"seq":4}',
    '{"device_id":"d","metric":"t","ts":"2036-05-01T03:00:00Z","value":1.0,"seq":5}',
    '{"device_id":"d","metric":"t"',
]


# Ingests "s.csv" in batches of three and is killed where its second commit would be.
KILLED = """
import os, signal, sys
from pathlib import Path
from datetime import UTC, datetime
from pipeline.clock import ReplayClock
from pipeline.ingest import ingest
from pipeline.settings import load_settings

folder, store, commits = Path(sys.argv[1]), ingest.store_readings, []

def dying(lake, readings, source):
    if commits:
        os.kill(os.getpid(), signal.SIGKILL)
    commits.append(store(lake, readings, source=source))
    return commits[-1]

ingest.store_readings = dying
settings = load_settings(lake=str(folder / "lake"), ingest={"batch_rows": 3})
options = ingest.IngestOptions(aggregation={"energy": "counter"})
ingest.ingest_paths(settings, [folder / "s.csv"], options, ReplayClock(datetime(2026, 6, 1, 12, tzinfo=UTC)))
"""


class BusyClock(ReplayClock):
    """A clock that lets something else happen before it first answers."""

    def __init__(self, start, meanwhile):
        super().__init__(start)
        self.todo = [meanwhile]

    def now(self):
        """Return the instant, after what is still to happen."""
        while self.todo:
            self.todo.pop()()
        return super().now()


class Site:
    """A lake, a clock and a folder of files."""

    def __init__(self, folder, **changes):
        self.folder = folder
        self.settings = load_settings(lake=str(folder / "lake"), **changes)
        self.clock = ReplayClock(NOON)

    def write(self, name, *lines):
        """Write a file of text lines, packed where its name says so."""
        path = self.folder / name
        content = "\n".join(lines)
        path.write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
        return path

    def ingest(self, *paths, **options):
        """Ingest with the options that are not the defaults."""
        return ingest_paths(self.settings, paths, IngestOptions(**options), self.clock)

    def table(self, schema=Readings):
        """Read one whole table."""
        return Lake(self.settings.lake).scan(schema).collect()

    def versions(self):
        """Return the versions of the tables that ingest writes."""
        return [Lake(self.settings.lake).version(schema) for schema in (Readings, Quarantine)]

    def series(self):
        """Read the catalog."""
        return Catalog(self.settings.state_dir).series()


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


def hourly(*values, start=0, header="timestamp,value"):
    return [header, *(f"{NOON + (start + i) * HOUR - timedelta(days=9):%Y-%m-%dT%H:%M:%SZ},{value}" for i, value in enumerate(values))]


def counts(report):
    return (report.read, report.accepted, report.duplicate, report.late, report.quarantined)


def test_every_reading_is_accounted_for(site):
    report = site.ingest(site.write("x.ndjson", *MESSY))
    assert counts(report) == (7, 2, 1, 0, 4)
    assert report.reasons == {"unknown_unit": 1, "missing_value": 1, "future_timestamp": 1, "unparseable_line": 1}
    assert site.table().sort("ts").select("series_id", "value", "unit").rows() == [
        ("d/t", 20.5, "degC"),
        ("d/t", pytest.approx(21.0), "degC"),
    ]
    assert set(site.table(Quarantine)["payload"].to_list()) == {line.encode() for line in MESSY[3:]}


def test_ingesting_again_changes_nothing(site):
    path = site.write("x.ndjson", *MESSY)
    first, versions = site.ingest(path), site.versions()
    site.clock.advance(HOUR)
    again = site.ingest(path)
    assert counts(again) == (7, 0, 3, 0, 4)
    assert (again.reasons, site.versions()) == (first.reasons, versions)


def test_a_file_that_grew_adds_only_what_is_new(site):
    site.ingest(site.write("x.ndjson", *MESSY))
    report = site.ingest(site.write("x.ndjson", *MESSY, "garbage", MESSY[0].replace("T00:", "T05:")))
    assert counts(report) == (9, 1, 3, 0, 5)
    assert (len(site.table()), len(site.table(Quarantine))) == (3, 5)


def test_a_stamp_from_the_future_is_accepted_once_its_time_has_come(site):
    path = site.write("x.ndjson", *MESSY)
    site.ingest(path)
    site.clock.advance(timedelta(days=3653))
    assert counts(site.ingest(path)) == (7, 1, 3, 0, 3)


def test_a_run_that_stopped_half_way_is_completed_by_the_next(tmp_path):
    """A torn gzip stops the first run after some commits."""
    site = Site(tmp_path, ingest={"batch_rows": 4000})
    lines = hourly(*range(20_000), start=-20_000)
    path = site.write("x.csv.gz", *lines)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 9 // 10])
    with pytest.raises(DataError, match="whole gzip file"):
        site.ingest(path)
    stored = len(site.table())
    path.write_bytes(whole)
    site.clock.advance(HOUR)
    assert 0 < stored < 20_000
    assert counts(site.ingest(path)) == (20_000, 20_000 - stored, stored, 0, 0)
    assert (site.table()["received_at"] == site.table()["ts"]).all()


@pytest.fixture
def killed(tmp_path):
    """A site whose ingest of ten readings, newest first, was killed after three, and which was then regularised."""
    site = Site(tmp_path, ingest={"batch_rows": 3})
    header, *rows = hourly(*range(10), header="timestamp,energy")
    site.path = site.write("s.csv", header, *reversed(rows))
    run = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert (run.returncode, len(site.table())) == (-signal.SIGKILL, 3)
    regularise(site.settings, site.clock)
    return site


def test_no_stage_finds_readings_without_their_declared_aggregation(killed):
    """Shown to fail by registering the series at the end of the run: regularise decided on the mean."""
    assert killed.series()["aggregation"].to_list() == ["counter"]


def test_a_killed_run_is_completed_as_if_nothing_had_happened_in_between(killed):
    """Shown to fail by taking `last_ts` from the catalog: the other seven were behind it, late and received now."""
    killed.clock.advance(HOUR)
    report = killed.ingest(killed.path, aggregation={"energy": "counter"})
    assert (counts(report), report.notes) == ((10, 7, 3, 0, 0), ())
    assert (killed.table()["received_at"] == killed.table()["ts"]).all()
    with transaction(killed.settings.state_dir) as connection:
        assert connection.execute("SELECT count(*) FROM unfinished_ingests").fetchone() == (0,)


def test_runs_at_once_agree_on_the_unit_of_a_metric(site):
    """The second run starts and ends after the first has read the catalog and before it has met a unit.

    Shown to fail by deciding the unit from what the catalog held at the start of the run.
    """
    celsius = site.write("c.ndjson", MESSY[0])
    fahrenheit = site.write("f.ndjson", MESSY[1])
    site.clock = BusyClock(NOON, lambda: site.ingest(celsius))
    site.ingest(fahrenheit)
    assert site.table().sort("ts").select("value", "unit").rows() == [(20.5, "degC"), (pytest.approx(21.0), "degC")]


def test_a_unit_that_the_catalog_has_lost_is_that_of_the_stored_readings(site):
    """Shown to fail by settling what the file proposes."""
    site.ingest(site.write("c.ndjson", MESSY[0]))
    (site.settings.state_dir / "catalog.db").unlink()
    site.ingest(site.write("f.ndjson", MESSY[1]))
    assert site.table()["unit"].unique().to_list() == ["degC"]


def test_two_runs_at_once_store_each_reading_once(tmp_path):
    site = Site(tmp_path, ingest={"batch_rows": 3})
    path = site.write("x.ndjson", *MESSY)
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda _: site.ingest(path), range(2)))
    assert sum(report.accepted for report in reports) == 2
    assert (len(site.table()), len(site.table(Quarantine))) == (2, 4)


def test_history_arrives_when_it_was_measured_and_what_is_behind_arrives_now(site):
    site.ingest(site.write("s.csv", *hourly(1, 2, 3)))
    site.clock.advance(HOUR)
    report = site.ingest(site.write("s.csv", *hourly(1, 9, 3, 4)))
    corrected, newer = site.table().filter(pl.col("value").is_in([9.0, 4.0])).sort("ts").rows(named=True)
    assert counts(report) == (4, 2, 2, 1, 0)
    assert (corrected["received_at"], corrected["is_late"]) == (NOON + HOUR, True)
    assert (newer["received_at"], newer["is_late"]) == (newer["ts"], False)


def test_readings_taken_to_arrive_now_are_told(site):
    site.ingest(site.write("s.csv", *hourly(1, 2, 3)))
    site.clock.advance(HOUR)
    told = (
        "s.csv: readings that lie behind what was stored for their series count as received now: 1. Name the column of their arrival times"
    )
    assert site.ingest(site.write("s.csv", *hourly(1, 9, 3, 4))).notes == (f"{told} with --received-at if that is known.",)
    assert site.ingest(site.write("s.csv", *hourly(1, 9, 3, 4))).notes == ()


@given(st.permutations(hourly(1, 2, 3, 4, 5)[1:]), st.integers(1, 3))
@hypothesis_settings(max_examples=8, deadline=None)
def test_any_order_of_rows_files_and_batches_gives_the_same_history(tmp_path_factory, rows, batch_rows):
    site = Site(tmp_path_factory.mktemp("order"), ingest={"batch_rows": batch_rows})
    paths = [site.write(f"{part}.csv", "timestamp,value", *rows[part::2]) for part in range(2)]
    site.ingest(*paths, device="s")
    expected = [("s", NOON - timedelta(days=9) + i * HOUR, NOON - timedelta(days=9) + i * HOUR, i + 1.0) for i in range(5)]
    assert site.table().sort("ts").select(KEY).rows() == expected


def test_a_wide_file_becomes_a_series_for_each_column(site):
    report = site.ingest(site.write("plant.csv", *hourly("1,NW,", "2,SE,5", header="date,load,wind,temp")))
    assert (counts(report), report.empty, report.skipped_columns) == ((3, 3, 0, 0, 0), 1, ("wind",))
    assert site.series()["series_id"].to_list() == ["plant/load", "plant/temp"]


def test_the_catalog_knows_what_was_ingested(tmp_path):
    site = Site(tmp_path, metrics={"rain": {"aggregation": "sum", "unit": "mm"}})
    path = site.write("p.csv", *hourly("1,2,3", "4,5,6", header="ts,rain,energy,temp"))
    site.ingest(path, aggregation={"energy": "counter"})
    site.ingest(path)
    catalog = site.series().select("metric", "unit", "aggregation", "first_ts", "last_ts")
    span = (NOON - timedelta(days=9), NOON - timedelta(days=9) + HOUR)
    assert catalog.rows() == [("energy", None, "counter", *span), ("rain", "mm", "sum", *span), ("temp", None, "mean", *span)]


def test_columns_zone_and_device_can_be_declared(site):
    path = site.write("x.csv", "when;who;how much", "2026-05-01 02:00;a;1", "2026-05-01 03:00;b;2")
    mapping = ColumnMapping(ts=("when",), series_id="who", value=("how much",))
    site.ingest(path, mapping=mapping, time_zone="Europe/Berlin")
    assert site.table().sort("ts").select("series_id", "ts").row(0) == ("a", datetime(2026, 5, 1, tzinfo=UTC))


def test_the_inferred_unit_of_epoch_numbers_is_reported(site):
    report = site.ingest(site.write("x.csv", "ts,value", "1746057600000,1"))
    assert report.notes == ("x.csv: its epoch numbers are read as ms (median below 1e11: s, below 1e14: ms, below 1e17: us, else ns).",)
    assert site.table()["ts"][0] == datetime(2025, 5, 1, tzinfo=UTC)


def test_a_folder_leaves_out_what_is_no_reading_and_says_so(site):
    data = site.folder / "data"
    data.mkdir()
    for name, lines in {"a.csv": hourly(1), "sites.csv": ["site,town", "1,Bonn"], "README.md": ["hello"]}.items():
        site.write(f"data/{name}", *lines)
    report = site.ingest(data)
    assert (report.files, report.accepted) == (1, 1)
    assert [note.split(":")[0] for note in report.notes] == ["sites.csv", "README.md"]


def test_naive_stamps_without_a_zone_are_refused_before_anything_is_stored(site):
    paths = [site.write("a.csv", *hourly(1)), site.write("b.csv", "ts,value", "2026-05-01 00:00:00,1")]
    with pytest.raises(
        DataError, match=r"^b\.csv requires stamps with an offset, or a declared zone; got .*'2026-05-01 00:00:00'\. Declare .*--time-zone"
    ):
        site.ingest(*paths)
    assert not (site.folder / "lake").exists()


def test_a_wide_file_of_decimal_commas_is_refused_instead_of_losing_the_column(site):
    path = site.write("de.csv", "ts;temp;hum", "2026-05-01T00:00:00Z;1,5;7", "2026-05-01T01:00:00Z;1,6;8")
    with pytest.raises(DataError, match=r"^de\.csv requires plain numbers with a decimal point; got '1,5' in 'temp'"):
        site.ingest(path)


def test_a_file_without_rows_is_no_error(site):
    report = site.ingest(site.write("x.csv", "ts,value"))
    assert (counts(report), report.notes) == ((0, 0, 0, 0, 0), ("x.csv has a header and no rows.",))


def test_the_report_is_one_json_object(site):
    printed = json.loads(site.ingest(site.write("x.ndjson", *MESSY)).to_json())
    assert {"read": 7, "accepted": 2, "duplicate": 1, "late": 0, "quarantined": 4}.items() <= printed.items()
