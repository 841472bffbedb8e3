"""Whether the 20,000th commit is as quick as the 200th: `python -m benchmarks.long_log`.

Makes small commits of readings through `Lake.append`, as a drain makes one every ten seconds, and measures around the 200th and around
the last one: append, open, and a point query. The lake looks after itself (`pipeline.store.upkeep`); nothing else runs on it but a
vacuum every 8,640 commits, which is a day of them. The run is over a hundred times quicker than the stream it stands for, and so is the
one clock that matters: the log keeps a tombstone for 18 seconds in place of an hour. Both measurements are of the same run, so the
ratio holds on a busy machine too; CPU time stands beside the time on the clock for the same reason. Prints one JSON object.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median, quantiles

import polars as pl

from pipeline.schemas import Readings
from pipeline.store.lake import Lake, read
from pipeline.store.maintenance import vacuum

START = datetime(2026, 1, 1, tzinfo=UTC)
CADENCE = timedelta(seconds=10)
DAY = timedelta(days=1) // CADENCE  # commits
WINDOW = 200  # appends that one measurement is made of: two rounds of upkeep, ten checkpoints
TOMBSTONES_S = 18  # as many commits as in an hour at the stream's cadence, or more
DEVICES = 50


def main() -> None:
    """Append, measure twice, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commits", type=int, default=20_000)
    commits = parser.parse_args().commits
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(folder)
        lake.create_all()
        early, late = measured(lake, commits)
    ratios = {name: round(late[name] / early[name], 2) for name in early if "_ms" in name}
    print(json.dumps({"at_200": early, f"at_{commits}": late, "ratio": ratios}, indent=2))


def measured(lake: Lake, commits: int) -> tuple[dict[str, float], dict[str, float]]:
    """Make the commits 1 to `commits` (at least 500) on a lake that holds none, and return what was measured early and late."""
    lake.open(Readings).alter.set_table_properties({"delta.deletedFileRetentionDuration": f"interval {TOMBSTONES_S} seconds"})
    early = _run(lake, 1, 200 + WINDOW // 2)
    _run(lake, 201 + WINDOW // 2, commits - WINDOW)
    return early, _run(lake, commits - WINDOW + 1, commits)


def _run(lake: Lake, first: int, last: int) -> dict[str, float]:
    """Commit the batches `first` to `last` and return what the last `WINDOW` of them took, and what reads take then."""
    times: list[tuple[float, float]] = []
    for seq in range(first, last + 1):
        rows = batch(seq)
        times.append(_timed(lambda rows=rows, seq=seq: lake.append(Readings, rows, app_id="bench", seq=seq)))  # type: ignore[misc]
        if seq % DAY == 0:
            vacuum(lake)
    one = pl.col("series_id") == "device-07/temperature"
    newest = pl.col("ts") >= START + last * CADENCE - timedelta(hours=1)
    log = Path(lake.table_uri(Readings), "_delta_log")
    return {
        **_summary("append", times[-WINDOW:]),
        **_summary("open", [_timed(lambda: lake.open(Readings)) for _ in range(40)]),
        **_summary("query", [_timed(lambda: read(lake.scan(Readings).filter(one, newest))) for _ in range(40)]),
        "rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "log_files": len(list(log.iterdir())),
        "live_files": len(lake.open(Readings).file_uris()),
    }


def _timed(action: Callable[[], object]) -> tuple[float, float]:
    """Return what an action takes, in ms: on the clock, and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    action()
    return (time.perf_counter() - clock) * 1e3, (time.process_time() - processor) * 1e3


def _summary(name: str, times: list[tuple[float, float]]) -> dict[str, float]:
    clock, processor = zip(*times, strict=True)
    return {
        f"{name}_ms_p50": round(median(clock), 1),
        f"{name}_ms_p95": round(quantiles(clock, n=20)[-1], 1),
        f"{name}_cpu_ms_p50": round(median(processor), 1),
        f"{name}_cpu_ms_p95": round(quantiles(processor, n=20)[-1], 1),
    }


def batch(seq: int) -> pl.DataFrame:
    """Return the rows of one commit: a reading of each device."""
    now = START + seq * CADENCE
    devices = pl.DataFrame({"device_id": [f"device-{number:02d}" for number in range(DEVICES)]})
    return devices.with_columns(
        source=pl.lit("bench"),
        source_seq=pl.lit(seq),
        metric=pl.lit("temperature"),
        series_id=pl.col("device_id") + "/temperature",
        ts=pl.lit(now),
        value=pl.lit(20.0 + seq % 7),
        unit=pl.lit("°C"),
        quality=pl.lit(0),
        received_at=pl.lit(now),
        ingested_at=pl.lit(now),
        is_late=pl.lit(value=False),
        ingest_date=pl.lit(now.date()),
    )


if __name__ == "__main__":
    main()
