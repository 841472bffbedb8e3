"""The flow `forecast`, the tick: due ticks are closed, every series' state advances through them, forecasts are written and scored.

It works from what was last committed, so late, doubled and missed runs come to the same tables. Asynchronous, because a synchronous
flow run takes Prefect a second at the least.
"""

import asyncio
from dataclasses import replace

from prefect import flow

from flows.closing import close_ticks
from flows.console import jsonable
from flows.tasks import apublish, retried_task, settings_of_run
from pipeline.clock import SystemClock
from pipeline.evaluate.maturity import score_matured
from pipeline.forecast.rolling import ForecastReport
from pipeline.forecast.rolling import forecast as advance_and_forecast
from pipeline.prepare.regularise import RegulariseReport
from pipeline.settings import Settings


@retried_task
async def close(settings: Settings) -> RegulariseReport:
    """Write the observations of the ticks that have closed by now, in a thread, so that the run's heartbeat goes on."""
    return await asyncio.to_thread(close_ticks, settings, SystemClock())


@retried_task
async def advance(settings: Settings, origins: int) -> ForecastReport:
    """Advance every series and write its forecasts, in a thread too."""
    return await asyncio.to_thread(advance_and_forecast, settings, SystemClock(), origins=origins)


@retried_task
async def score(settings: Settings) -> int:
    """Score the steps of earlier forecasts that have come true; return how many."""
    return await asyncio.to_thread(score_matured, settings, SystemClock())


@flow(name="forecast")
async def forecast(origins: int = 1, settings: Settings | None = None) -> ForecastReport:
    """Forecast from the newest closed ticks; where none has closed since the last run, do nothing.

    Args:
        origins: ticks to forecast for series that are new to the model.
        settings: by default those of the process the run is in.
    """
    settings = settings_of_run(settings)
    await close(settings)
    report = await advance(settings, origins)
    report = replace(report, scored=await score(settings))
    facts = [{"fact": name, "value": jsonable(value)} for name, value in report.to_dict().items()]
    await apublish("forecast", _markdown(report), facts)
    return report


def _markdown(report: ForecastReport) -> str:
    return f"# Forecast\n\nModel {report.model_version}: {report.rows_written} forecasts written for {report.series} series."
