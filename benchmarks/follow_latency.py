"""How soon after a tick closes its forecasts can be read, while a lake is followed: p50, p95 and where the time goes.

    python -m benchmarks.follow_latency [--series 2000] [--history 48] [--ticks 12] [--single]

A fleet of hourly series; every tick their readings are committed before it closes, and the clock is set to the instant of closing. Random
weights: the time does not depend on them. `--single` opens the state anew for each tick, as a scheduled run of `tidecast forecast` does.
Prints one JSON line: seconds of one tick until its forecasts are committed (`forecasts_s`), and until their scores are too (`tick_s`).
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

import numpy as np
import polars as pl
import torch

from models.config import ForecasterConfig, NetworkConfig
from models.forecaster import CausalForecaster
from pipeline.clock import ReplayClock
from pipeline.evaluate.maturity import score_matured
from pipeline.forecast.follower import Follower
from pipeline.schemas import Readings
from pipeline.settings import ForecastSettings, Settings
from pipeline.store.lake import Lake
from pipeline.store.readings import append_readings
from pipeline.tracking.model_card import ModelCard, TrainedSeries
from pipeline.tracking.provenance import SourceRevision
from pipeline.tracking.registry import register, save_model

START, HOUR = datetime(2026, 3, 2, tzinfo=UTC), timedelta(hours=1)
HORIZON = 24


def main() -> None:
    """Follow a fleet for some ticks and print what each phase took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=2_000)
    parser.add_argument("--history", type=int, default=48, help="hours that are there before")
    parser.add_argument("--ticks", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--single", action="store_true", help="open the state anew for each tick")
    parser.add_argument("--profile", type=Path, help="write a profile of the last ticks there")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measured(Path(folder), arguments)))


def measured(folder: Path, arguments: argparse.Namespace) -> dict[str, object]:
    """Return the figures of one run."""
    settings = Settings(lake=str(folder / "lake"), forecast=ForecastSettings(snapshot_interval=timedelta(days=1)))
    clock, scored_s = ReplayClock(START + arguments.history * HOUR), [0.0]
    Lake(settings.lake).create_all()
    _register(folder / "model", settings, clock)
    for hours in np.array_split(np.arange(arguments.history), 4):
        _arrive(settings, arguments.series, hours.tolist())

    def score(settings: Settings, clock: ReplayClock) -> int:
        started = time.perf_counter()
        done = score_matured(settings, clock)
        scored_s[0] = time.perf_counter() - started
        return done

    follower = Follower(settings, clock, score)  # type: ignore[arg-type]
    follower.lead()
    follower.tick()
    profile, ticks_s, forecasts_s = cProfile.Profile(), [], []
    for tick in range(arguments.ticks):
        hour = arguments.history + tick
        clock.instant = START + hour * HOUR + timedelta(seconds=30)
        _arrive(settings, arguments.series, [hour])
        clock.instant = START + hour * HOUR + settings.ingest.allowed_lateness
        if arguments.single:
            follower.forget()
        started = time.perf_counter()
        if arguments.profile:
            profile.enable()
        done = follower.tick()
        profile.disable()
        ticks_s.append(time.perf_counter() - started)
        forecasts_s.append(ticks_s[-1] - scored_s[0])
        if done.forecast.rows_written != arguments.series:
            sys.exit(f"a tick requires a forecast of every series; got {done.forecast.rows_written}")
    if arguments.profile:
        profile.dump_stats(arguments.profile)
    return {
        "series": arguments.series,
        "horizon": HORIZON,
        "ticks": arguments.ticks,
        "single": arguments.single,
        **_percentiles("forecasts_s", forecasts_s),
        **_percentiles("tick_s", ticks_s),
        "first_s": round(forecasts_s[0], 3),
        "last_s": round(forecasts_s[-1], 3),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _percentiles(name: str, seconds: list[float]) -> dict[str, float]:
    return {f"{name}_p{level}": round(float(np.percentile(seconds, level)), 3) for level in (50, 95)}


def _register(folder: Path, settings: Settings, clock: ReplayClock) -> None:
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


def _arrive(settings: Settings, num_series: int, hours: list[int]) -> None:
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
