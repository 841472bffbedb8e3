"""Runs below a run: the trials of a study, each written once it has ended, so that a study that was killed leaves none half done.

Called by `pipeline.study`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pipeline.clock import Clock
from pipeline.settings import Settings
from pipeline.tracking.mlflow_store import connect, experiment_id, store_errors
from pipeline.tracking.run import Run, tracked_run

STUDY, PARENT = "tidecast.study", "mlflow.parentRunId"
PAGE = 1000  # runs that MLflow returns at once
STATUS = {"complete": "FINISHED", "pruned": "KILLED", "fail": "FAILED"}


@dataclass(frozen=True, kw_only=True)
class Child:
    """A run below another.

    Attributes:
        name: as the page shows it; one of its parent's.
        state: how it ended.
        params: what it was trained with.
        curves: a row for each epoch, with `epoch` its number.
        metrics: the scalars at the end.
        started, ended: instants.
        error: what ended it.
    """

    name: str
    state: Literal["complete", "pruned", "fail"]
    params: Mapping[str, object]
    curves: Sequence[Mapping[str, float]]
    metrics: Mapping[str, float]
    started: datetime
    ended: datetime
    error: str | None = None


@contextmanager
def study_run(settings: Settings, study: str, clock: Clock, *, input_versions: Mapping[str, int], role: str) -> Iterator[Run]:
    """Open the run of a study: a new one, or that which an earlier command of the same study left."""
    earlier = _search(settings, f"tags.`{STUDY}` = '{study}'")
    resume = str(earlier[0][0]) if earlier else None
    tags = {STUDY: study, "role": role}
    with tracked_run(settings, study, clock, input_versions=input_versions, tags=tags, resume=resume) as run:
        yield run


def logged_children(run: Run) -> set[str]:
    """Return the names of the runs below a run that have ended."""
    return {name for _, name in _search(run.settings, f"tags.`{PARENT}` = '{run.run_id}' and attributes.status != 'RUNNING'")}


def log_child(run: Run, child: Child) -> None:
    """Write a run below another, with the instants at which it took place."""
    from mlflow.entities import Metric

    started_ms, ended_ms = (round(instant.timestamp() * 1000) for instant in (child.started, child.ended))
    tags = {PARENT: run.run_id, "role": "trial", "state": child.state, **({"error": child.error} if child.error else {})}
    with store_errors(run.settings):
        made = run.client.create_run(experiment_id(run.client, run.settings), started_ms, tags, child.name)
    below = Run(run.settings, run.clock, run.client, made.info.run_id, child.ended)
    below.log_params(child.params)
    rows = [(int(row["epoch"]), name, value) for row in child.curves for name, value in row.items() if name != "epoch"]
    below.pending = [Metric(name, float(value), ended_ms, epoch) for epoch, name, value in rows]
    below.pending += [Metric(name, float(value), ended_ms, 0) for name, value in child.metrics.items()]
    below.flush()
    with store_errors(run.settings):
        run.client.set_terminated(below.run_id, STATUS[child.state], ended_ms)


def _search(settings: Settings, condition: str) -> list[tuple[str, str]]:
    """Return id and name of the experiment's runs that meet a condition, the newest first."""
    client = connect(settings)
    found: list[tuple[str, str]] = []
    token = None
    with store_errors(settings):
        experiment = experiment_id(client, settings)
        while True:
            page = client.search_runs([experiment], condition, max_results=PAGE, order_by=["attributes.start_time DESC"], page_token=token)
            found += [(run.info.run_id, str(run.info.run_name)) for run in page]
            token = page.token
            if not token:
                return found
