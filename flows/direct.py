"""The four stages called without Prefect: what `--no-orchestrator` runs. `flows.orchestrated` offers the same functions as flow runs.

Both leave the same lake and the same MLflow store, which `tests/flows/test_flows.py` holds them to.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from flows.console import report_epoch
from pipeline.clock import SystemClock

if TYPE_CHECKING:
    from pipeline.evaluate.backtest import BacktestReport, BacktestRequest
    from pipeline.forecast.rolling import ForecastReport
    from pipeline.ingest.ingest import IngestOptions, IngestReport
    from pipeline.prepare.regularise import RegulariseReport
    from pipeline.settings import Settings
    from pipeline.train.train import TrainReport, TrainRequest


@dataclass(frozen=True)
class IngestOutcome:
    """What became of the files: their readings, and the observations made of them."""

    ingested: "IngestReport"
    regularised: "RegulariseReport"

    def to_dict(self) -> dict[str, object]:
        """Return a JSON-ready form: the counts of readings, and `observations` with its own."""
        return {**self.ingested.to_dict(), "observations": self.regularised.to_dict()}


def ingest(paths: list[Path], options: "IngestOptions", settings: "Settings") -> IngestOutcome:
    """Ingest files and folders, then bring the observations up to them."""
    from pipeline.ingest.ingest import ingest_paths
    from pipeline.prepare.regularise import regularise

    return IngestOutcome(ingest_paths(settings, paths, options, SystemClock()), regularise(settings, SystemClock()))


def train(request: "TrainRequest", settings: "Settings") -> "TrainReport":
    """Train a model on the lake's observations."""
    from pipeline.train.train import train as train_model

    return train_model(settings, request, SystemClock(), report_epoch)


def forecast(origins: int, settings: "Settings") -> "ForecastReport":
    """Close the ticks that are due, forecast from the newest, and score what has come true."""
    from pipeline.evaluate.maturity import score_matured
    from pipeline.forecast.rolling import forecast as advance_and_forecast
    from pipeline.prepare.regularise import regularise

    regularise(settings, SystemClock())
    report = advance_and_forecast(settings, SystemClock(), origins=origins)
    return replace(report, scored=score_matured(settings, SystemClock()))


def backtest(request: "BacktestRequest", settings: "Settings") -> "BacktestReport":
    """Backtest the champion."""
    from pipeline.evaluate.backtest import backtest as score_past_origins

    return score_past_origins(settings, request, SystemClock())
