"""The stages and studies as Prefect flow runs, called from the command line; `flows.direct` offers the same functions without Prefect.

Without PREFECT_API_URL, Prefect starts a server for the length of the process (some 15 s), with the database that `tidecast ui` shows. So
what a moment's look shows to be impossible is refused before.
"""

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from flows.direct import IngestOutcome

if TYPE_CHECKING:
    from pipeline.evaluate.backtest import BacktestReport, BacktestRequest
    from pipeline.forecast.rolling import ForecastReport
    from pipeline.ingest.ingest import IngestOptions
    from pipeline.settings import Settings
    from pipeline.study.depth_report import DepthReport
    from pipeline.study.plan import DepthRequest
    from pipeline.study.tune import TuneReport, TuneRequest
    from pipeline.train.train import TrainReport, TrainRequest


def _keep_prefect_off_the_terminal() -> None:
    """Leave the logs of runs to the run's page: the command line prints the error itself, as one sentence without a traceback."""
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
    from flows.ingest import ingest as flow

    _keep_prefect_off_the_terminal()
    return flow(paths, options, settings)


def train(request: "TrainRequest", settings: "Settings") -> "TrainReport":
    """Train a model on the lake's observations."""
    _require_observations(settings)
    from flows.train import train as flow

    _keep_prefect_off_the_terminal()
    return flow(request, settings)


def forecast(origins: int, settings: "Settings") -> "ForecastReport":
    """Forecast from the newest closed ticks."""
    from pipeline.tracking.registry import require_champion

    require_champion(settings)
    from flows.forecast import forecast as flow

    _keep_prefect_off_the_terminal()
    return asyncio.run(flow(origins, settings))


def backtest(request: "BacktestRequest", settings: "Settings") -> "BacktestReport":
    """Backtest the champion."""
    from pipeline.tracking.registry import require_champion

    require_champion(settings)
    from flows.backtest import backtest as flow

    _keep_prefect_off_the_terminal()
    return flow(request, settings)


def tune(request: "TuneRequest", settings: "Settings") -> "TuneReport":
    """Search for good settings."""
    _require_observations(settings)
    from flows.tune import tune as flow

    _keep_prefect_off_the_terminal()
    return flow(request, settings)


def study_depth(request: "DepthRequest", settings: "Settings") -> "DepthReport":
    """Compare depths, each tuned on its own."""
    _require_observations(settings)
    from flows.study import study_depth as flow

    _keep_prefect_off_the_terminal()
    return flow(request, settings)
