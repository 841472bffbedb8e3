"""A run holds what a training was given and what came of it, whatever happens meanwhile."""

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.clock import ReplayClock
from pipeline.errors import SettingsError, StoreError
from pipeline.settings import Settings
from pipeline.tracking.mlflow_store import connect, experiment_id
from pipeline.tracking.run import FLUSH_EVERY, tracked_run
from tests.lakes import empty_mlflow_store

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path):
    shutil.copytree(empty_mlflow_store(), tmp_path / "lake" / "mlflow")
    return Settings(lake=str(tmp_path / "lake"))


@pytest.fixture
def clock():
    return ReplayClock(NOON)


def stored(settings, run):
    return connect(settings).get_run(run.run_id)


def history(settings, run, metric):
    return [(point.step, point.value) for point in connect(settings).get_metric_history(run.run_id, metric)]


def test_a_run_is_signed_with_code_settings_and_tables(settings, clock):
    with tracked_run(settings, "first", clock, input_versions={"observations": 4, "readings": 9}, tags={"role": "train"}) as run:
        run.log_params({"horizon": 24, "seasons": [24, 168]}, "model.")
    data = stored(settings, run).data
    assert data.params["train.learning_rate"] == "0.002"
    assert data.params["model.seasons"] == "[24, 168]"
    assert {"config.hash", "git_sha", "git_dirty", "tidecast_version"} < data.tags.keys()
    assert (data.tags["data.observations.version"], data.tags["data.readings.version"], data.tags["role"]) == ("4", "9", "train")


def test_input_tables_are_named_as_delta_tables_of_one_version(settings, clock):
    with tracked_run(settings, "run", clock, input_versions={"observations": 4}) as run:
        pass
    (entry,) = stored(settings, run).inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest, entry.dataset.source_type) == ("observations", "v4", "delta_table")
    assert json.loads(entry.dataset.source) == {"path": f"{settings.lake}/observations", "delta_table_version": 4}


def test_a_run_takes_its_instants_from_the_clock(settings, clock):
    with tracked_run(settings, "run", clock) as run:
        clock.advance(timedelta(hours=1))
    info = stored(settings, run).info
    assert (info.start_time, info.end_time) == (NOON.timestamp() * 1000, (NOON + timedelta(hours=1)).timestamp() * 1000)
    assert info.status == "FINISHED"


def test_no_metric_is_lost_between_batches(settings, clock):
    with tracked_run(settings, "run", clock) as run:
        for epoch in range(1100):
            run.log_metrics({"train/pinball": float(epoch), "validation/pinball": -1.0}, epoch)
    assert history(settings, run, "train/pinball") == [(epoch, float(epoch)) for epoch in range(1100)]
    assert len(history(settings, run, "validation/pinball")) == 1100


def test_metrics_are_seen_while_the_run_goes_on(settings, clock):
    with tracked_run(settings, "run", clock) as run:
        run.log_metrics({"loss": 1.0}, 0)
        before = history(settings, run, "loss")
        clock.advance(FLUSH_EVERY)
        run.log_metrics({"loss": 0.5}, 1)
        assert (before, history(settings, run, "loss")) == ([], [(0, 1.0), (1, 0.5)])


def test_the_step_of_a_curve_by_lead_is_the_lead(settings, clock):
    with tracked_run(settings, "run", clock) as run:
        run.log_by_lead({"test/mae": [0.1, 0.2, 0.4]})
    assert history(settings, run, "test/mae") == [(1, 0.1), (2, 0.2), (3, 0.4)]


def test_artifacts_lie_below_the_lake(settings, clock, tmp_path):
    (tmp_path / "fan.png").write_bytes(b"\x89PNG")
    with tracked_run(settings, "run", clock) as run:
        run.log_artifact(tmp_path / "fan.png", "plots")
        run.log_summary("# Summary\n")
        run.log_json({"mae": 1.0}, "metrics.json")
    folder = settings.artifacts_dir / run.run_id / "artifacts"
    assert (folder / "plots" / "fan.png").read_bytes() == b"\x89PNG"
    assert (folder / "summary.md").read_text() == stored(settings, run).data.tags["mlflow.note.content"] == "# Summary\n"
    assert json.loads((folder / "metrics.json").read_text()) == {"mae": 1.0}


def test_a_lake_that_was_copied_keeps_its_artifacts_to_itself(settings, clock, tmp_path):
    """Shown to fail by leaving the experiment where it was made: MLflow stores its absolute location."""
    with tracked_run(settings, "run", clock) as first:
        first.log_text("text", "note.txt")
    before = sorted((tmp_path / "lake").rglob("*"))
    copy = Settings(lake=str(tmp_path / "my copy"))
    shutil.copytree(tmp_path / "lake", copy.lake)
    with tracked_run(copy, "run", clock) as run:
        run.log_text("text", "note.txt")
    assert (copy.artifacts_dir / run.run_id / "artifacts" / "note.txt").is_file()
    assert sorted((tmp_path / "lake").rglob("*")) == before


def test_a_location_that_somebody_chose_for_artifacts_stays(settings, clock, tmp_path):
    """Shown to fail by taking every other location for one of a lake that was copied."""
    connect(settings).create_experiment("tidecast", artifact_location=(tmp_path / "chosen").as_uri())
    with tracked_run(settings, "run", clock) as run:
        run.log_text("text", "note.txt")
    assert (tmp_path / "chosen" / run.run_id / "artifacts" / "note.txt").is_file()


@pytest.mark.parametrize(("error", "status"), [(ValueError("no data"), "FAILED"), (KeyboardInterrupt("no data"), "KILLED")])
def test_a_broken_run_keeps_its_metrics_and_names_its_error(settings, clock, error, status):
    with pytest.raises(type(error)), tracked_run(settings, "run", clock) as run:  # noqa: PT012 (what breaks comes after a metric)
        run.log_metrics({"loss": 1.0}, 3)
        raise error
    assert stored(settings, run).info.status == status
    assert stored(settings, run).data.tags["error"] == f"{type(error).__name__}: no data"
    assert history(settings, run, "loss") == [(3, 1.0)]


def test_a_run_inside_a_flow_names_the_flow_run(settings, clock, monkeypatch):
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "0b6e")
    with tracked_run(settings, "run", clock) as run:
        pass
    assert stored(settings, run).data.tags["prefect.flow_run_id"] == "0b6e"


def test_the_hash_changes_with_what_is_computed_and_not_with_where(settings, clock, tmp_path):
    def hash_of(changed):
        with tracked_run(changed, "run", clock) as run:
            return stored(settings, run).data.tags["config.hash"]

    elsewhere = Settings(lake=str(tmp_path / "other"), tracking={"uri": settings.tracking_uri})
    assert hash_of(settings) == hash_of(elsewhere)
    assert hash_of(settings) != hash_of(Settings(lake=settings.lake, train={"seed": 1}))


@pytest.mark.parametrize("uri", ["file:./mlruns", "mlruns", "s3://bucket/mlruns"])
def test_a_tracking_uri_without_a_database_is_refused(tmp_path, clock, uri):
    with pytest.raises(SettingsError, match="requires a database or a server"), tracked_run(Settings(tracking={"uri": uri}), "run", clock):
        pass


def test_a_damaged_database_is_named_at_once(tmp_path, clock):
    (tmp_path / "mlflow.db").write_bytes(b"not a database" * 100)
    settings = Settings(tracking={"uri": f"sqlite:///{tmp_path}/mlflow.db"})
    with pytest.raises(StoreError, match=r"mlflow\.db; got DatabaseError: file is not a database"), tracked_run(settings, "run", clock):
        pass


def test_a_server_that_is_down_is_named_without_its_password(clock, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    settings = Settings(tracking={"uri": "http://user:secret@127.0.0.1:9"})
    with pytest.raises(StoreError, match=r"requires a working http://user:\*\*\*@127.0.0.1:9; got"), tracked_run(settings, "run", clock):
        pass


def test_a_deleted_experiment_is_not_written_to(settings, clock):
    client = connect(settings)
    client.delete_experiment(experiment_id(client, settings))
    with pytest.raises(StoreError, match="got 'tidecast', which was deleted"), tracked_run(settings, "run", clock):
        pass


def test_a_sqlite_store_elsewhere_keeps_its_artifacts_beside_it(settings, tmp_path, clock, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with tracked_run(Settings(tracking={"uri": settings.tracking_uri}), "run", clock) as run:
        run.log_text("text", "note.txt")
    assert (tmp_path / "lake" / "mlflow" / "artifacts" / run.run_id / "artifacts" / "note.txt").is_file()
    assert not (tmp_path / "mlruns").exists()


TRACK_FIFTY_BATCHES = """
import sys
from pipeline.clock import SystemClock
from pipeline.settings import Settings
from pipeline.tracking.run import tracked_run
with tracked_run(Settings(lake=sys.argv[1]), "run", SystemClock()) as run:
    for epoch in range(50):
        run.log_metrics({f"metric_{k}": float(epoch) for k in range(10)}, epoch)
        run.flush()
"""


def test_processes_that_start_at_once_share_a_new_store_in_silence(tmp_path):
    settings = Settings(lake=str(tmp_path / "lake"))
    command = [sys.executable, "-c", TRACK_FIFTY_BATCHES, settings.lake]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(2)]
    assert [(*process.communicate(), process.returncode) for process in processes] == [(b"", None, 0)] * 2
    client = connect(settings)
    runs = client.search_runs([experiment_id(client, settings)])
    assert [len(client.get_metric_history(run.info.run_id, "metric_9")) for run in runs] == [50, 50]
