"""What the flows share: when a task is tried again, settings, the closing of ticks, and how a report reaches the run's page."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import ParamSpec, TypeVar

from prefect import Task, task
from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

from flows.closing import close_ticks
from pipeline.clock import SystemClock
from pipeline.prepare.regularise import RegulariseReport
from pipeline.settings import Settings, load_settings

P = ParamSpec("P")
R = TypeVar("R")
_USERS_TO_MEND = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)


def is_transient(tried: Task[..., object], run: TaskRun, state: State[object]) -> bool:  # noqa: ARG001 (Prefect's signature)
    """Tell whether trying again may help: a disk, a network or a lock; never what the user has to mend."""
    fault = state.data
    while isinstance(fault, BaseException):  # the store words its faults: what happened is their cause
        if isinstance(fault, OSError | sqlite3.OperationalError):
            return not isinstance(fault, _USERS_TO_MEND)
        fault = fault.__cause__
    return False


def retried_task(function: Callable[P, R]) -> Task[P, R]:
    """Make a task that is tried three times more where that may help: after 2, 4 and 8 seconds, and nothing is cached.

    The jitter is there so that runs which failed together do not come back together.
    """
    return task(
        retries=3,
        retry_delay_seconds=exponential_backoff(2),
        retry_jitter_factor=0.5,
        retry_condition_fn=is_transient,
        cache_policy=NO_CACHE,
    )(function)


def settings_of_run(settings: Settings | None) -> Settings:
    """Return the settings a run was given, else those of the process it runs in."""
    return settings if settings is not None else load_settings()


@retried_task
def close(settings: Settings) -> RegulariseReport:
    """Take in what has arrived and write the observations of the ticks that have closed by now."""
    return close_ticks(settings, SystemClock())


Rows = Sequence[Mapping[str, object]]


def publish(key: str, markdown: str, rows: Rows) -> None:
    """Put a report on the run's page as two artifacts, `<key>-summary` and `<key>-table`."""
    create_markdown_artifact(markdown, key=f"{key}-summary")
    create_table_artifact([dict(row) for row in rows], key=f"{key}-table")


async def apublish(key: str, markdown: str, rows: Rows) -> None:
    """Do as `publish`, in an asynchronous flow."""
    await acreate_markdown_artifact(markdown, key=f"{key}-summary")
    await acreate_table_artifact([dict(row) for row in rows], key=f"{key}-table")
