"""The stages and studies as Prefect flow runs, called from the command line; `flows.direct` offers the same functions without Prefect.

Without PREFECT_API_URL, Prefect starts a server for the length of the process (some 15 s), with the database that `tidecast ui` shows. So
what a moment's look shows to be impossible is refused before.
"""

import asyncio
import logging
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from flows.direct import IngestOutcome
from pipeline.errors import SettingsError

if TYPE_CHECKING:
    from pipeline.evaluate.backtest import BacktestReport, BacktestRequest
    from pipeline.forecast.rolling import ForecastReport
    from pipeline.ingest.ingest import IngestOptions
    from pipeline.settings import Settings
    from pipeline.study.depth_report import DepthReport
    from pipeline.study.plan import DepthRequest
    from pipeline.study.tune import TuneReport, TuneRequest
    from pipeline.train.train import TrainReport, TrainRequest


def _prepare_prefect() -> None:
    """See to the server, and leave the logs of runs to the run's page: the command line prints errors itself.

    Raises:
        SettingsError: where Prefect's own settings cannot be used, or name no server that answers.
    """
    from flows.prefect_settings import require_home, require_valid

    require_valid()
    from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_EPHEMERAL_ENABLED

    if PREFECT_API_URL.value():
        from flows.standing_server import require_answer

        require_answer()
    elif not PREFECT_SERVER_EPHEMERAL_ENABLED.value():
        raise SettingsError(
            "PREFECT_SERVER_EPHEMERAL_ENABLED=false requires the address of a standing Prefect server in PREFECT_API_URL; got none. "
            "Name one, unset the variable, or run it with --no-orchestrator."
        )
    else:
        require_home()
        from flows.temporary_server import TemporaryServer  # here: it takes as long to import as all the rest of Prefect

        TemporaryServer()  # Prefect uses the first that a process makes
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).propagate = False
    for name in ("EventsWorker", "APILogWorker"):  # say at the end of a process how many events they still have to send
        logging.getLogger(name).setLevel(logging.ERROR)


def _require_observations(settings: "Settings") -> None:
    from pipeline.schemas import Observations
    from pipeline.store.lake import Lake

    Lake(settings.lake).open(Observations)


def ingest(paths: list[Path], options: "IngestOptions", settings: "Settings") -> IngestOutcome:
    """Ingest files and folders, then bring the observations up to them."""
    from pipeline.ingest.ingest import plan_paths

    plan_paths(paths, options)
    _prepare_prefect()
    from flows.ingest import ingest as flow

    return flow(paths, options, settings)


def train(request: "TrainRequest", settings: "Settings") -> "TrainReport":
    """Train a model on the lake's observations."""
    _require_observations(settings)
    _prepare_prefect()
    from flows.train import train as flow

    return flow(request, settings)


def forecast(origins: int, settings: "Settings") -> "ForecastReport":
    """Forecast from the newest closed ticks."""
    from pipeline.tracking.registry import require_champion

    require_champion(settings)
    _prepare_prefect()
    from prefect.exceptions import TerminationSignal

    from flows.forecast import forecast as flow

    try:
        return asyncio.run(flow(origins, settings))
    except TerminationSignal as ended:  # Prefect hands the signal on from a synchronous flow only: here it hits the loop, not the flow
        signal.raise_signal(ended.signal)
        raise


def backtest(request: "BacktestRequest", settings: "Settings") -> "BacktestReport":
    """Backtest the champion."""
    from pipeline.tracking.registry import require_champion

    require_champion(settings)
    _prepare_prefect()
    from flows.backtest import backtest as flow

    return flow(request, settings)


def tune(request: "TuneRequest", settings: "Settings") -> "TuneReport":
    """Search for good settings."""
    _require_observations(settings)
    _prepare_prefect()
    from flows.tune import tune as flow

    return flow(request, settings)


def study_depth(request: "DepthRequest", settings: "Settings") -> "DepthReport":
    """Compare depths, each tuned on its own."""
    _require_observations(settings)
    _prepare_prefect()
    from flows.study import study_depth as flow

    return flow(request, settings)
