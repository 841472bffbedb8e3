"""One tracked run: what a training was given, how it went and what came of it, in MLflow.

Called by `pipeline.train.train`. Metrics are buffered and written in batches: a write of its own for each costs SQLite
5 ms and a server 12 ms. No autologging: it would pickle the model and knows nothing of the tables behind it.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.clock import Clock
from pipeline.settings import Settings
from pipeline.tracking.mlflow_store import connect, experiment_id, store_errors
from pipeline.tracking.provenance import flattened, recorded_settings, settings_hash, source_revision, tidecast_version

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

FLUSH_EVERY = timedelta(seconds=5)  # the learning curve grows in the page while the model trains
METRICS_PER_BATCH = 1000  # MLflow takes no more at once
PARAMS_PER_BATCH = 100
ERROR_CHARACTERS, NOTE_CHARACTERS = 2000, 8000  # MLflow takes no tag longer than 8000
PREFECT_FLOW_RUN = "PREFECT__FLOW_RUN_ID"  # set in the processes that Prefect starts


@dataclass
class Run:
    """An open run to write to; made by `tracked_run`, which also closes it."""

    settings: Settings
    clock: Clock
    client: "MlflowClient"
    run_id: str
    flushed_at: datetime
    pending: "list[Metric]" = field(default_factory=list)

    def log_params(self, params: Mapping[str, object], prefix: str = "") -> None:
        """Write parameters; trees become dotted names.

        Args:
            params: JSON values by name.
            prefix: before every name, with a dot.
        """
        from mlflow.entities import Param

        flat = [Param(f"{prefix}{name}", value) for name, value in flattened(params).items()]
        with store_errors(self.settings):
            for start in range(0, len(flat), PARAMS_PER_BATCH):
                self.client.log_batch(self.run_id, params=flat[start : start + PARAMS_PER_BATCH])

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Note metrics of one step, as one epoch's losses; they are written with the next flush.

        Args:
            metrics: values by name ("validation/pinball").
            step: epoch, lead or 0 for the scalars at the end.
        """
        from mlflow.entities import Metric

        now = self.clock.now()
        self.pending += [Metric(name, float(value), _milliseconds(now), step) for name, value in metrics.items()]
        if now - self.flushed_at >= FLUSH_EVERY:
            self.flush()

    def log_by_lead(self, curves: Mapping[str, Sequence[float | None]]) -> None:
        """Note one value for each lead, 1 … horizon, of each metric, None where there is none: a curve over the lead."""
        for name, values in curves.items():
            for lead, value in enumerate(values, start=1):
                self.log_metrics({} if value is None else {name: value}, step=lead)

    def flush(self) -> None:
        """Write the metrics noted so far."""
        pending, self.pending, self.flushed_at = self.pending, [], self.clock.now()
        with store_errors(self.settings):
            for start in range(0, len(pending), METRICS_PER_BATCH):
                self.client.log_batch(self.run_id, metrics=pending[start : start + METRICS_PER_BATCH])

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Upload a file, as a plot, into a folder of the run's artifacts."""
        with store_errors(self.settings):
            self.client.log_artifact(self.run_id, str(path), folder)

    def log_text(self, text: str, name: str) -> None:
        """Upload a text under a name ("summary.md")."""
        with store_errors(self.settings):
            self.client.log_text(self.run_id, text, name)

    def log_summary(self, markdown: str) -> None:
        """Upload the summary of the run as `summary.md`, and show it as the description on the run's page."""
        self.log_text(markdown, "summary.md")
        self.set_tags({"mlflow.note.content": markdown[:NOTE_CHARACTERS]})

    def log_json(self, value: object, name: str) -> None:
        """Upload a JSON value under a name ("metrics.json")."""
        self.log_text(json.dumps(value, indent=2, default=str), name)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Write tags."""
        from mlflow.entities import RunTag

        with store_errors(self.settings):
            self.client.log_batch(self.run_id, tags=[RunTag(name, value) for name, value in tags.items()])

    def close(self, status: str) -> None:
        """Write what is pending and end the run.

        Args:
            status: FINISHED, FAILED or KILLED.
        """
        self.flush()
        with store_errors(self.settings):
            self.client.set_terminated(self.run_id, status, _milliseconds(self.clock.now()))


@contextmanager
def tracked_run(
    settings: Settings,
    name: str,
    clock: Clock,
    *,
    input_versions: Mapping[str, int] | None = None,
    tags: Mapping[str, str] | None = None,
    resume: str | None = None,
) -> Iterator[Run]:
    """Open a run of the settings' experiment, signed with code, settings and input tables, and close it at the end.

    An exception closes it as FAILED, an interrupt as KILLED, with the error in the tag `error`, and goes on.

    Args:
        settings: where MLflow is; all of them become parameters.
        name: of the run, as the page shows it.
        clock: for the instants of run and metrics.
        input_versions: Delta version of each table that is read, by its name.
        tags: further ones, as `prefect.flow_run_id` when called inside a flow.
        resume: id of a run that was cut short, to go on with instead of opening one.

    Yields:
        The run.

    Raises:
        SettingsError: when the tracking URI is none.
        StoreError: when the store cannot be written.
    """
    signature = _tags(settings, input_versions or {}) | dict(tags or {})
    run = _start(settings, name, clock, signature) if resume is None else _reopen(settings, clock, resume)
    try:
        if resume is None:
            run.log_params(recorded_settings(settings))
            _log_inputs(run, input_versions or {})
        yield run
    except BaseException as error:
        run.set_tags({"error": f"{type(error).__name__}: {error}"[:ERROR_CHARACTERS]})
        run.close("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    run.close("FINISHED")


def _start(settings: Settings, name: str, clock: Clock, tags: Mapping[str, str]) -> Run:
    client, now = connect(settings), clock.now()
    with store_errors(settings):
        run = client.create_run(experiment_id(client, settings), start_time=_milliseconds(now), tags=dict(tags), run_name=name)
    return Run(settings, clock, client, run.info.run_id, now)


def _reopen(settings: Settings, clock: Clock, run_id: str) -> Run:
    client = connect(settings)
    with store_errors(settings):
        client.update_run(run_id, status="RUNNING")
        if "error" in client.get_run(run_id).data.tags:
            client.delete_tag(run_id, "error")
    return Run(settings, clock, client, run_id, clock.now())


def _tags(settings: Settings, input_versions: Mapping[str, int]) -> dict[str, str]:
    source = source_revision()
    tags = {
        "config.hash": settings_hash(settings),
        "git_sha": source.sha or "unknown",
        "git_dirty": "unknown" if source.dirty is None else str(source.dirty).lower(),
        "tidecast_version": tidecast_version(),
        "mlflow.source.name": "tidecast",
        **{f"data.{table}.version": str(version) for table, version in input_versions.items()},
    }
    if source.sha is not None:
        tags["mlflow.source.git.commit"] = source.sha  # the name under which the page looks for it
    if PREFECT_FLOW_RUN in os.environ:
        tags["prefect.flow_run_id"] = os.environ[PREFECT_FLOW_RUN]
    return tags


def _log_inputs(run: Run, input_versions: Mapping[str, int]) -> None:
    """Name the input tables as MLflow datasets, in the form of its Delta sources, without loading any of them."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    def dataset(table: str, version: int) -> DatasetInput:
        source = {"path": f"{run.settings.lake.rstrip('/')}/{table}", "delta_table_version": version}
        return DatasetInput(
            Dataset(name=table, digest=f"v{version}", source_type="delta_table", source=json.dumps(source)),
            [InputTag("mlflow.data.context", "training")],
        )

    with store_errors(run.settings):
        run.client.log_inputs(run.run_id, [dataset(table, version) for table, version in input_versions.items()])


def _milliseconds(instant: datetime) -> int:
    return round(instant.timestamp() * 1000)
