"""Each flow leaves what the plain call leaves, and a page in Prefect that says so."""

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL
from prefect.states import Failed
from prefect.testing.utilities import prefect_test_harness
from typer.testing import CliRunner

from flows import direct, orchestrated
from flows.cli import app
from flows.deployments import deployments
from flows.forecast import advance, close, score
from flows.ingest import ingest_files, ingest_landing, regularise_readings, take_landed
from flows.maintain import maintain, merge_delete_and_hash
from flows.tasks import is_transient
from models.config import NetworkConfig
from pipeline.clock import SystemClock
from pipeline.doctor.doctor import examine
from pipeline.errors import DataError, ModelError
from pipeline.evaluate.backtest import BacktestReport, BacktestRequest
from pipeline.forecast.rolling import ForecastReport
from pipeline.ingest.fleet import FaultSpec, FleetSpec
from pipeline.ingest.ingest import IngestOptions
from pipeline.ingest.simulate import write_fleet
from pipeline.schemas import Forecasts, Observations, Plans, Readings, TableSchema
from pipeline.settings import ListenSettings, Settings, TrainSettings
from pipeline.store.lake import Lake, read
from pipeline.study.plan import DepthRequest
from pipeline.study.tune import TuneRequest
from pipeline.train.train import TrainReport, TrainRequest
from tests.studies import small_lake

pytestmark = [
    # Prefect leaves the sockets of an asynchronous flow's clients to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

TINY = TrainSettings(
    horizon=6,
    max_epochs=1,
    segment_length=48,
    burn_in=12,
    seasons=(24,),
    context_length=24,
    network=NetworkConfig(hidden_size=4, num_layers=1),
)
WHEN = {"ingested_at", "created_at", "received_at", "available_at", "ingest_date"}  # by the clock of the run


@dataclass(frozen=True)
class River:
    """What one run of all four stages left."""

    settings: Settings
    ingested: direct.IngestOutcome
    trained: TrainReport
    forecast: ForecastReport
    again: ForecastReport
    backtested: BacktestReport

    def table(self, schema: type[TableSchema]) -> pl.DataFrame:
        """Return a table without what the clock decides, in the order of its key."""
        return Lake(self.settings.lake).scan(schema).drop(WHEN & schema.columns.keys()).collect().sort("series_id", *set(schema.key) - WHEN)


def run_river(stages: ModuleType, readings: Path, lake: Path) -> River:
    """Run the four stages, the tick twice."""
    settings = Settings(lake=str(lake), train=TINY)
    ingested = stages.ingest([readings], IngestOptions(), settings)
    trained = stages.train(TrainRequest(), settings)
    ticks = [stages.forecast(2, settings) for _ in range(2)]
    return River(settings, ingested, trained, *ticks, stages.backtest(BacktestRequest(stride=6), settings))


@pytest.fixture(scope="module")
def prefect_server() -> Iterator[str]:
    """Start one Prefect server for all flow tests."""
    with prefect_test_harness(server_startup_timeout=120):
        yield PREFECT_API_URL.value()
    gc.collect()  # here, where what Prefect left open is excused


@pytest.fixture(scope="module")
def readings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty clean days of two series."""
    folder = tmp_path_factory.mktemp("fleet")
    write_fleet(FleetSpec(num_devices=1, days=20, faults=FaultSpec.none(), metrics=("temperature", "humidity")), folder)
    return folder / "readings.ndjson"


@pytest.fixture(scope="module")
def plain(readings: Path, tmp_path_factory: pytest.TempPathFactory) -> River:
    return run_river(direct, readings, tmp_path_factory.mktemp("plain") / "lake")


@pytest.fixture(scope="module")
def flowing(prefect_server: str, readings: Path, tmp_path_factory: pytest.TempPathFactory) -> River:
    return run_river(orchestrated, readings, tmp_path_factory.mktemp("flowing") / "lake")


def test_the_ingest_flow_leaves_what_the_call_leaves(plain: River, flowing: River) -> None:
    assert flowing.ingested.to_dict() == plain.ingested.to_dict()
    assert flowing.table(Readings).drop("source").equals(plain.table(Readings).drop("source"))
    assert flowing.table(Observations).equals(plain.table(Observations))


def test_the_train_flow_leaves_what_the_call_leaves(plain: River, flowing: River) -> None:
    assert flowing.trained.metrics == pytest.approx(plain.trained.metrics, nan_ok=True)
    assert (flowing.trained.model_version, flowing.trained.promoted) == (plain.trained.model_version, plain.trained.promoted)


def test_the_forecast_flow_leaves_what_the_call_leaves(plain: River, flowing: River) -> None:
    assert flowing.forecast.to_dict() == plain.forecast.to_dict()
    assert flowing.table(Forecasts).equals(plain.table(Forecasts))


def test_a_second_tick_writes_nothing(flowing: River) -> None:
    assert flowing.forecast.rows_written > 0
    assert flowing.again.rows_written == 0


def test_the_backtest_flow_reports_what_the_call_reports(plain: River, flowing: River) -> None:
    assert flowing.backtested.overall == plain.backtested.overall
    assert flowing.backtested.origins == plain.backtested.origins > 0


def test_each_flow_has_a_summary_and_a_table_on_its_page(flowing: River) -> None:
    with get_client(sync_client=True) as client:
        keys = {artifact.key for artifact in client.read_artifacts()}
    assert keys == {f"{flow}-{kind}" for flow in ("ingest", "train", "forecast", "backtest") for kind in ("summary", "table")}


def test_an_empty_landing_folder_is_no_fault(prefect_server: str, tmp_path: Path) -> None:
    assert ingest_landing(tmp_path, Settings(lake=str(tmp_path / "lake"))) is None


def test_the_maintain_flow_records_the_hashes_that_a_deep_examination_needs(plain: River, flowing: River) -> None:
    """Shown to fail by a flow that hashes nothing."""
    assert list(maintain(flowing.settings)) == list(direct.maintain(plain.settings)) == ["compacted", "vacuumed", "hashed"]
    assert examine(flowing.settings, SystemClock(), deep=True).hashed > 0


def test_a_landed_file_is_ingested_once_and_a_bad_one_stops_nothing(prefect_server: str, readings: Path, tmp_path: Path) -> None:
    landing = tmp_path / "landing"
    landing.mkdir()
    (landing / "good.ndjson").write_bytes(readings.read_bytes())
    (landing / "bad.csv").write_text("no,reading\n1,2\n")
    settings = Settings(lake=str(tmp_path / "lake"), listen=ListenSettings(settle=timedelta(0)))
    landed = ingest_landing(landing, settings)
    assert landed is not None
    assert (landed.files, len(landed.failed)) == (1, 1)
    assert not read(Lake(settings.lake).scan(Observations)).is_empty()
    assert ingest_landing(landing, settings) is None


def test_schedules_become_runs(prefect_server: str, tmp_path: Path) -> None:
    """Shown to fail by SQLAlchemy 2.1, on which the scheduler of Prefect 3.8 raises and makes no runs."""
    ids = [deployment.apply() for deployment in deployments(Settings(lake=str(tmp_path)), tmp_path)]
    with get_client(sync_client=True) as client:
        for identity in ids:
            client.request("POST", "/deployments/{id}/schedule", path_params={"id": identity}, json={"min_runs": 1})
        assert {run.deployment_id for run in client.read_flow_runs() if run.state_name == "Scheduled"} == set(ids)


@pytest.mark.parametrize(
    ("fault", "again"), [(OSError("disk"), True), (FileNotFoundError("x"), False), (DataError("x"), False), (ModelError("x"), False)]
)
def test_only_what_may_mend_itself_is_tried_again(fault: Exception, again: bool) -> None:
    """Shown to fail by returning True for every fault."""
    assert is_transient(ingest_files, None, Failed(data=fault)) is again


def test_every_stage_that_reads_or_writes_the_lake_alone_is_tried_again() -> None:
    """Shown to fail by a plain task in the flow `forecast`."""
    for tried in (ingest_files, take_landed, regularise_readings, close, advance, score, merge_delete_and_hash):
        assert (tried.retries, tried.retry_condition_fn, tried.cache_policy) == (3, is_transient, NO_CACHE)


def test_a_fault_inside_a_flow_is_one_sentence_and_no_traceback(prefect_server: str, tmp_path: Path) -> None:
    """Shown to fail by leaving the logs of runs on the terminal."""
    (tmp_path / "readings.csv").write_text("device_id,ts,flow\nnorth,2026-01-01T00:00Z,1\n")
    verb = ["ingest", str(tmp_path / "readings.csv"), "--json", "--lake", str(tmp_path / "readings.csv")]
    command = [sys.executable, "-c", "from flows.cli import main; main()", *verb]
    environment = {**os.environ, "PREFECT_API_URL": prefect_server}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"A lake requires a place that can be written; got '{tmp_path / 'readings.csv'}/readings'")
    assert done.stderr.count("\n") == 1


def test_the_tune_flow_finds_what_the_call_finds(plain: River, flowing: River) -> None:
    request = TuneRequest(trials=1, workers=1)
    called, flown = direct.tune(request, plain.settings), orchestrated.tune(request, flowing.settings)
    assert (flown.study, flown.best, flown.validation) == (called.study, called.best, called.validation)
    with get_client(sync_client=True) as client:
        assert {"tune-summary", "tune-table"} <= {artifact.key for artifact in client.read_artifacts()}


def test_the_ingest_flow_stores_a_plan_as_the_call_does(prefect_server: str, tmp_path: Path) -> None:
    """Shown to fail by a flow that reads every file as readings: stamps that lie ahead go to quarantine then."""
    ahead = pl.datetime_range(datetime(2030, 1, 1, tzinfo=UTC), datetime(2030, 1, 2, tzinfo=UTC), "1h", eager=True)
    tariffs = pl.DataFrame({"device_id": "oven", "ts": ahead, "tariff": range(25)})
    tariffs.write_csv(tmp_path / "tariffs.csv")
    verb = ["ingest", str(tmp_path / "tariffs.csv"), "--plan", "--known-ahead", "7d", "--json", "--lake"]
    flown, called = (
        CliRunner().invoke(app, [*verb, str(tmp_path / lake), *how]) for lake, how in (("flown", []), ("called", ["--no-orchestrator"]))
    )
    assert (flown.exit_code, json.loads(flown.stdout)) == (0, json.loads(called.stdout))
    plans = [Lake(str(tmp_path / lake)).scan(Plans).drop(WHEN & Plans.columns.keys()).collect().sort("ts") for lake in ("flown", "called")]
    assert plans[0].equals(plans[1])
    assert plans[0]["value"].to_list() == list(range(25))


def test_the_depth_flow_compares_and_shows_it_on_its_page(prefect_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown to fail by a page under another name."""
    monkeypatch.setitem(DepthRequest.__init__.__kwdefaults__, "depths", (1, 2))  # the verb compares all five
    monkeypatch.setattr("pipeline.train.datamodule.EPOCH_BATCHES", 1)  # how well it trains is asked elsewhere
    lake = small_lake(tmp_path, num_hours=200)
    verb = ["study", "depth", "--trials", "2", "--seeds", "2", "--epochs", "1", "--workers", "1", "--json"]
    done = CliRunner().invoke(app, verb, env=lake.environment())
    report = json.loads(done.stdout)
    assert (done.exit_code, report["epochs"], report["seeds"]) == (0, 1, 2)
    assert len(report["cells"]) == 4
    assert (Path(report["folder"]) / "depth.md").is_file()
    with get_client(sync_client=True) as client:
        assert {"study-depth-summary", "study-depth-table"} <= {artifact.key for artifact in client.read_artifacts()}
