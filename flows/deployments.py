"""The schedules: what runs when, with `tidecast serve`, against a standing Prefect server.

Ticks, ingests and maintenance never queue up: a run that finds one of its kind going on is cancelled, because the next does its work too.
Trainings and backtests queue. Correctness rests on the fences in the store, not on these limits.
"""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from prefect import Flow, serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron, Interval, Schedule
from prefect.settings import PREFECT_API_URL
from prefect.types.entrypoint import EntrypointType

from flows.standing_server import require_answer
from pipeline.errors import SettingsError
from pipeline.settings import Settings

DEFAULT_TICK = timedelta(minutes=5)  # where the settings leave the sample interval to be inferred
# UTC, when a site is quiet; the tables are tidied before a training reads them
TIDY, DAILY, WEEKLY = "30 1 * * *", "30 2 * * *", "30 3 * * 0"

DROP = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
QUEUE = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE)


def deployments(settings: Settings, landing: Path) -> list[RunnerDeployment]:
    """Return the flows with their schedules.

    Args:
        settings: every run works with these; only what differs from the defaults is stored with Prefect. Keep passwords out of
            `tracking.uri`: MLflow and object stores take theirs from the environment, which the runs inherit.
        landing: folder whose files are ingested.
    """
    from flows.backtest import backtest
    from flows.forecast import forecast
    from flows.ingest import ingest_landing
    from flows.maintain import maintain
    from flows.train import train  # here, because Lightning comes with it: `require_server` refuses before that

    tick = settings.prepare.sample_interval or DEFAULT_TICK
    given = {"settings": _as_parameter(settings)}
    return [
        _deployment(ingest_landing, Interval(tick, slug="landing"), DROP, {**given, "folder": str(landing.resolve())}),
        _deployment(forecast, Interval(tick, slug="tick"), DROP, given),
        _deployment(maintain, Cron(TIDY, timezone="UTC", slug="tidy"), DROP, given),
        _deployment(train, Cron(DAILY, timezone="UTC", slug="daily"), QUEUE, given),
        _deployment(backtest, Cron(WEEKLY, timezone="UTC", slug="weekly"), QUEUE, given),
    ]


def cadence(deployment: RunnerDeployment) -> str:
    """Say when a deployment runs: `every 0:05:00` or `cron 30 2 * * * UTC`."""
    schedules = [planned.schedule for planned in deployment.schedules or []]
    said = [
        f"every {schedule.interval}" if isinstance(schedule, IntervalSchedule) else f"cron {schedule.cron} {schedule.timezone}"
        for schedule in schedules
        if isinstance(schedule, IntervalSchedule | CronSchedule)
    ]
    return ", ".join(said)


def require_server() -> None:
    """Refuse to go on without a standing Prefect server: schedules live there.

    Raises:
        SettingsError: where no server is named, or it does not answer.
    """
    if not PREFECT_API_URL.value():
        raise SettingsError(
            "tidecast serve requires the address of a standing Prefect server in PREFECT_API_URL; got none. "
            "Run `tidecast ui` in another terminal and copy the export line that it prints."
        )
    require_answer()


def serve_all(planned: Sequence[RunnerDeployment]) -> None:
    """Register the schedules and run what falls due, until interrupted; the schedules stay on, so a restart goes on where it was."""
    serve(*planned, pause_on_shutdown=False, print_starting_message=False)


def _deployment(flow: Flow[..., Any], schedule: Schedule, limit: ConcurrencyLimitConfig, parameters: dict[str, Any]) -> RunnerDeployment:
    return RunnerDeployment.from_flow(
        flow,
        "tidecast",
        schedules=[schedule],
        concurrency_limit=limit,
        parameters=parameters,
        entrypoint_type=EntrypointType.MODULE_PATH,  # holds wherever the runs are started
        description=flow.description,
    )


def _as_parameter(settings: Settings) -> dict[str, Any]:
    """Return what differs from the defaults, with local folders made absolute."""
    folders = {
        "lake": settings.lake if settings.is_remote else str(Path(settings.lake).resolve()),
        "state": str(settings.state_dir.resolve()),
    }
    return {**settings.model_dump(mode="json", exclude_defaults=True), **folders}
