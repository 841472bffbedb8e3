"""What is scheduled when, and with what care for runs that meet."""

from datetime import timedelta
from pathlib import Path

import pytest
from prefect.client.schemas.objects import ConcurrencyLimitStrategy
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.deployments import cadence, deployments, require_server
from flows.forecast import forecast
from pipeline.errors import SettingsError
from pipeline.settings import PrepareSettings, Settings

SETTINGS = Settings(lake="here/lake", prepare=PrepareSettings(sample_interval=timedelta(minutes=15)))


@pytest.fixture(scope="module")
def planned() -> dict[str, object]:
    return {deployment.flow_name: deployment for deployment in deployments(SETTINGS, Path("landing"))}


def test_ticks_follow_the_sample_interval_and_trainings_the_calendar(planned) -> None:
    assert {name: cadence(deployment) for name, deployment in planned.items()} == {
        "ingest-landing": "every 0:15:00",
        "forecast": "every 0:15:00",
        "maintain": "cron 30 1 * * * UTC",
        "train": "cron 30 2 * * * UTC",
        "backtest": "cron 30 3 * * 0 UTC",
    }


def test_a_tick_that_meets_another_is_dropped_and_a_training_waits(planned) -> None:
    limits = {name: deployment.concurrency_options.collision_strategy for name, deployment in planned.items()}
    drop, queue = ConcurrencyLimitStrategy.CANCEL_NEW, ConcurrencyLimitStrategy.ENQUEUE
    assert limits == {"ingest-landing": drop, "forecast": drop, "maintain": drop, "train": queue, "backtest": queue}
    assert {deployment.concurrency_limit for deployment in planned.values()} == {1}


def test_runs_get_the_settings_of_serve_wherever_they_start(planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown to fail by leaving the lake's folder relative."""
    parameters = planned["forecast"].parameters
    there = Path("here/lake").resolve()
    monkeypatch.chdir(tmp_path)
    settings = forecast.validate_parameters(parameters)["settings"]
    assert Path(settings.lake) == there
    assert settings.state_dir == there / "state"
    assert settings.prepare.sample_interval == timedelta(minutes=15)


def test_schedules_require_a_standing_server() -> None:
    with temporary_settings({PREFECT_API_URL: None}), pytest.raises(SettingsError, match="Run `tidecast ui` in another terminal"):
        require_server()
