"""The stages and studies called without Prefect: what `--no-orchestrator` runs. `flows.orchestrated` offers the same as flow runs.

Both leave the same lake and the same MLflow store, which `tests/flows/test_flows.py` holds them to.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from flows.closing import close_ticks
from flows.console import report_epoch, report_step
from pipeline.clock import SystemClock

if TYPE_CHECKING:
    from pipeline.doctor.hashes import HashReport
    from pipeline.evaluate.backtest import BacktestReport, BacktestRequest
    from pipeline.forecast.rolling import ForecastReport
    from pipeline.ingest.ingest import IngestOptions, IngestReport
    from pipeline.prepare.regularise import RegulariseReport
    from pipeline.settings import Settings
    from pipeline.store.maintenance import MaintenanceReport
    from pipeline.study.depth_report import DepthReport
    from pipeline.study.plan import DepthRequest
    from pipeline.study.tune import TuneReport, TuneRequest
    from pipeline.train.train import TrainReport, TrainRequest


@dataclass(frozen=True)
class IngestOutcome:
    """What became of the files: their readings, and the observations made of them."""

    ingested: "IngestReport"
    regularised: "RegulariseReport"

    def to_dict(self) -> dict[str, object]:
        """Return a JSON-ready form: the counts of readings, and `observations` with its own."""
        return {**self.ingested.to_dict(), "observations": self.regularised.to_dict()}


def read_files(paths: list[Path], options: "IngestOptions", settings: "Settings") -> "IngestReport":
    """Read files into the table of readings, or into that of plans."""
    from pipeline.ingest.ingest import ingest_paths
    from pipeline.ingest.known_future import ingest_plans

    return (ingest_plans if options.is_plan else ingest_paths)(settings, paths, options, SystemClock())


def ingest(paths: list[Path], options: "IngestOptions", settings: "Settings") -> IngestOutcome:
    """Ingest files and folders, then bring the observations up to them."""
    from pipeline.prepare.regularise import regularise

    return IngestOutcome(read_files(paths, options, settings), regularise(settings, SystemClock()))


def train(request: "TrainRequest", settings: "Settings") -> "TrainReport":
    """Train a model on the lake's observations."""
    from pipeline.train.train import train as train_model

    close_ticks(settings, SystemClock())
    return train_model(settings, request, SystemClock(), report_epoch)


def forecast(origins: int, settings: "Settings") -> "ForecastReport":
    """Close the ticks that are due, forecast from the newest, and score what has come true."""
    from pipeline.evaluate.maturity import score_matured
    from pipeline.forecast.rolling import forecast as advance_and_forecast

    close_ticks(settings, SystemClock())
    report = advance_and_forecast(settings, SystemClock(), origins=origins)
    return replace(report, scored=score_matured(settings, SystemClock()))


def backtest(request: "BacktestRequest", settings: "Settings") -> "BacktestReport":
    """Backtest the champion."""
    from pipeline.evaluate.backtest import backtest as score_past_origins

    close_ticks(settings, SystemClock())
    return score_past_origins(settings, request, SystemClock())


def maintain(settings: "Settings") -> "dict[str, MaintenanceReport | HashReport]":
    """Merge the lake's small files, delete those that nothing refers to any more, and record content hashes; a report for each step."""
    from pipeline.doctor.hashes import record_hashes
    from pipeline.store.lake import Lake
    from pipeline.store.maintenance import compact, vacuum

    lake = Lake(settings.lake)
    done: dict[str, MaintenanceReport | HashReport] = {"compacted": compact(lake), "vacuumed": vacuum(lake)}
    if not settings.is_remote:  # an object store checks its objects itself
        done["hashed"] = record_hashes(lake, settings.state_dir)
    return done


def tune(request: "TuneRequest", settings: "Settings") -> "TuneReport":
    """Search for good settings."""
    from pipeline.study.tune import tune as search_settings

    close_ticks(settings, SystemClock())
    return search_settings(settings, request, SystemClock(), report_step)


def study_depth(request: "DepthRequest", settings: "Settings") -> "DepthReport":
    """Compare depths, each tuned on its own."""
    from pipeline.study.depth import study_depth as compare_depths

    close_ticks(settings, SystemClock())
    return compare_depths(settings, request, SystemClock(), report_step)
