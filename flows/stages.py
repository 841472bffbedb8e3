"""The stages and the studies, however they are run: as plain calls (`flows.direct`) or as flow runs (`flows.orchestrated`).

Called by the verbs; imports neither until it is known which.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from flows.direct import IngestOutcome
    from pipeline.evaluate.backtest import BacktestReport, BacktestRequest
    from pipeline.forecast.rolling import ForecastReport
    from pipeline.ingest.ingest import IngestOptions
    from pipeline.settings import Settings
    from pipeline.study.depth_report import DepthReport
    from pipeline.study.plan import DepthRequest
    from pipeline.study.tune import TuneReport, TuneRequest
    from pipeline.train.train import TrainReport, TrainRequest


class Stages(Protocol):
    """What both modules offer."""

    def ingest(self, paths: list[Path], options: "IngestOptions", settings: "Settings") -> "IngestOutcome":
        """Ingest files and folders."""

    def train(self, request: "TrainRequest", settings: "Settings") -> "TrainReport":
        """Train a model."""

    def forecast(self, origins: int, settings: "Settings") -> "ForecastReport":
        """Forecast from the newest closed ticks."""

    def backtest(self, request: "BacktestRequest", settings: "Settings") -> "BacktestReport":
        """Backtest the champion."""

    def tune(self, request: "TuneRequest", settings: "Settings") -> "TuneReport":
        """Search for good settings."""

    def study_depth(self, request: "DepthRequest", settings: "Settings") -> "DepthReport":
        """Compare depths, each tuned on its own."""


def stages(no_orchestrator: bool) -> Stages:
    """Return the stages as plain calls or as flow runs; Prefect is imported for the latter only."""
    if no_orchestrator:
        from flows import direct

        return direct
    from flows import orchestrated

    return orchestrated
