"""What the ladder of snapshots saves: one late reading, an hour old, in a fleet with a year of hourly history.

    python -m benchmarks.late_replay [--series 10] [--hours 8760]

The same late reading is taken in twice: with the ladder, and without it, which replays the series from its first tick. Prints one JSON
line: seconds of reading the tables and replaying the series, by the processor's clock and the wall's, and their ratio.
"""

import argparse
import json
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import torch

from benchmarks.follow_latency import HOUR, START, Marks, arrive, register_random_weights
from pipeline.clock import ReplayClock
from pipeline.forecast.rolling import RollingForecasts
from pipeline.prepare.regularise import regularise
from pipeline.schemas import Readings
from pipeline.settings import Settings, TrackingSettings
from pipeline.store.lake import Lake, read
from pipeline.store.readings import append_readings
from pipeline.tracking.registry import champion


def main() -> None:
    """Replay both ways and print their seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=10)
    parser.add_argument("--hours", type=int, default=8_760)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measured(Path(folder), arguments.series, arguments.hours)))


def measured(folder: Path, num_series: int, hours: int) -> dict[str, object]:
    """Return the figures of one run."""
    tracking = TrackingSettings(uri=f"sqlite:///{folder}/mlflow.db")  # shared by both copies of the state
    settings, clock = Settings(lake=str(folder / "lake"), tracking=tracking), ReplayClock(START)
    Lake(settings.lake).create_all()
    register_random_weights(folder / "model", settings, clock)
    arrive(settings, num_series, list(range(hours - 3)))
    rolling = RollingForecasts.open(settings, champion(settings))
    for hour in range(hours - 4, hours):  # the last ticks one by one, each with a snapshot
        if hour >= hours - 3:
            arrive(settings, num_series, [hour])
        clock.instant = START + hour * HOUR + settings.ingest.allowed_lateness
        regularise(settings, clock)
        rolling.advance(clock)
        rolling.snapshot()
    late(settings, clock, hours - 2)
    shutil.copytree(settings.state_dir, folder / "without")
    with_ladder, ticks = replayed(settings, clock)
    older = {rung.name for rung in rolling.state.rungs[:-1]}
    without = settings.model_copy(update={"state": str(folder / "without")})
    for name in older:
        (without.state_dir / "snapshots" / name).unlink()
    from_the_first, all_ticks = replayed(without, clock)
    return {
        "series": num_series,
        "hours": hours,
        "ladder": {"ticks": ticks, **rounded(with_ladder)},
        "first_tick": {"ticks": all_ticks, **rounded(from_the_first)},
        "ratio": round(from_the_first.processor / with_ladder.processor, 1),
    }


def late(settings: Settings, clock: ReplayClock, hour: int) -> None:
    """Correct one reading of one series, now."""
    lake = Lake(settings.lake)
    one = read(lake.scan(Readings).filter(series_id="device-0/value", ts=START + hour * HOUR))
    corrected = one.with_columns(pl.col("value") + 1, received_at=pl.lit(clock.now()), ingested_at=pl.lit(clock.now()))
    append_readings(lake, corrected, source="late", seq=1)
    clock.advance(timedelta(seconds=1))
    regularise(settings, clock)


def replayed(settings: Settings, clock: ReplayClock) -> tuple[Marks, int]:
    """Return what opening the state took until the correction was in it, and the ticks that were read."""
    rolling = RollingForecasts.open(settings, champion(settings))
    began = Marks.now()
    report = rolling.advance(clock)
    assert report.replayed == 1
    assert np.isfinite(rolling.state.carried.h_LBD.numpy()).all()
    return Marks.now().since(began), report.ticks


def rounded(marks: Marks) -> dict[str, float]:
    """Return both clocks' seconds."""
    return {name: round(getattr(marks, name), 3) for name in marks._fields}


if __name__ == "__main__":
    main()
