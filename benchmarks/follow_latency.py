"""How soon after a tick closes its forecasts can be read, while a lake is followed, against single runs.

    python -m benchmarks.follow_latency [--series 2000] [--history 48] [--ticks 6]

A fleet of hourly series; every tick their readings are committed before it closes, and the clock is set to the instant of closing. Random
weights: the time does not depend on them. Some ticks are followed; for as many the model is loaded, the state opened and saved anew, as
scheduled runs of `tidecast forecast` do, in the same process. Prints one JSON line: seconds of a tick until its forecasts are committed
(`forecasts_s`) and until its scores are too (`tick_s`), medians, and the processor's seconds beside the wall's.
"""

import argparse
import cProfile
import json
import resource
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch

from models.config import ForecasterConfig, NetworkConfig
from models.forecaster import CausalForecaster
from pipeline.clock import Clock, ReplayClock
from pipeline.evaluate.maturity import score_matured
from pipeline.forecast.follower import Follower
from pipeline.schemas import Readings
from pipeline.settings import ForecastSettings, Settings
from pipeline.store.lake import Lake
from pipeline.store.readings import append_readings
from pipeline.tracking.model_card import ModelCard, TrainedSeries
from pipeline.tracking.provenance import SourceRevision
from pipeline.tracking.registry import register
from pipeline.tracking.saved_model import save_model

START, HOUR = datetime(2026, 3, 2, tzinfo=UTC), timedelta(hours=1)
HORIZON = 24


def main() -> None:
    """Follow a fleet for some ticks and print what each phase took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=2_000)
    parser.add_argument("--history", type=int, default=48, help="hours that are there before")
    parser.add_argument("--ticks", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--profile", type=Path, help="write a profile of the followed ticks there")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measured(Path(folder), arguments)))


def measured(folder: Path, arguments: argparse.Namespace) -> dict[str, object]:
    """Return the figures of one run."""
    settings = Settings(lake=str(folder / "lake"), forecast=ForecastSettings(snapshot_interval=timedelta(days=1)))
    clock = ReplayClock(START + arguments.history * HOUR)
    Lake(settings.lake).create_all()
    register_random_weights(folder / "model", settings, clock)
    for hours in np.array_split(np.arange(arguments.history), 4):
        arrive(settings, arguments.series, hours.tolist())
    scored: list[Marks] = []

    def score(settings: Settings, clock: Clock) -> int:
        scored.append(Marks.now())
        return score_matured(settings, clock)

    follower = Follower(settings, clock, score)
    follower.lead()
    follower.tick()
    result: dict[str, object] = {"series": arguments.series, "horizon": HORIZON, "history": arguments.history, "ticks": arguments.ticks}
    profile = cProfile.Profile()
    for number, name in enumerate(("followed", "single")):
        forecasts, ticks = [], []
        for tick in range(arguments.ticks):
            hour = arguments.history + number * arguments.ticks + tick
            clock.instant = START + hour * HOUR + timedelta(seconds=30)
            arrive(settings, arguments.series, [hour])
            clock.instant = START + hour * HOUR + settings.ingest.allowed_lateness
            began = Marks.now()
            if name == "single":
                follower.forget()
            elif arguments.profile:
                profile.enable()
            done = follower.tick()
            profile.disable()
            ticks.append(Marks.now().since(began))
            forecasts.append(scored[-1].since(began))
            if done.forecast.rows_written != arguments.series:
                sys.exit(f"a tick requires a forecast of every series; got {done.forecast.rows_written}")
        result[name] = {"forecasts_s": _median(forecasts), "tick_s": _median(ticks)}
    if arguments.profile:
        profile.dump_stats(arguments.profile)
    return {**result, "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}


class Marks(NamedTuple):
    """Seconds of the wall's clock and of the processor's."""

    wall: float
    processor: float

    @classmethod
    def now(cls) -> "Marks":
        """Read both clocks."""
        return cls(time.perf_counter(), time.process_time())

    def since(self, before: "Marks") -> "Marks":
        """Return what has passed on both."""
        return Marks(self.wall - before.wall, self.processor - before.processor)


def _median(marks: list[Marks]) -> dict[str, float]:
    return {name: round(float(np.median([getattr(mark, name) for mark in marks])), 3) for name in Marks._fields}


def register_random_weights(folder: Path, settings: Settings, clock: ReplayClock) -> None:
    """Make a model of the usual size the champion."""
    config = ForecasterConfig(
        sample_interval_s=3600, horizon=HORIZON, context_length=96, seasons=(24,), network=NetworkConfig(num_layers=2, hidden_size=64)
    )
    card = ModelCard(
        config=config,
        series=TrainedSeries.of(["device-0/value"]),
        series_patterns=None,
        train_end=START,
        validation_end=START,
        data_end=START,
        observations_version=1,
        source=SourceRevision(None, None),
        metrics={},
        created_at=START,
        tidecast_version="0",
        seed=0,
        settings={},
    )
    save_model(folder, CausalForecaster(config), card)
    register(settings, folder, clock)


def arrive(settings: Settings, num_series: int, hours: list[int]) -> None:
    """Commit one reading of each series and hour, as a live source's drain does."""
    lake, rng = Lake(settings.lake), np.random.default_rng(hours[0])
    devices = pl.DataFrame({"device_id": [f"device-{number}" for number in range(num_series)]})
    stamps = pl.DataFrame({"ts": [START + hour * HOUR for hour in hours], "source_seq": hours})
    frame = devices.join(stamps, how="cross").with_columns(
        source=pl.lit("bench"),
        metric=pl.lit("value"),
        series_id=pl.col("device_id") + "/value",
        value=pl.Series(rng.normal(size=num_series * len(hours))),
        unit=pl.lit(None, pl.String),
        quality=pl.lit(0),
        received_at=pl.col("ts") + timedelta(seconds=1),
        ingested_at=pl.col("ts") + timedelta(seconds=10),
        is_late=pl.lit(value=False),
        ingest_date=pl.col("ts").dt.date(),
    )
    append_readings(lake, Readings.conform(frame), source="bench", seq=hours[-1] + 1)


if __name__ == "__main__":
    main()
