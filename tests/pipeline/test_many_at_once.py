"""Writers, a compactor with vacuum, a slow reader and regularise on one lake at once: nobody fails, and nobody sees half of anything."""

import json
import subprocess
import sys
from pathlib import Path

import polars as pl

from pipeline.schemas import Observations, Readings
from pipeline.store.catalog import Catalog
from pipeline.store.lake import Lake, read
from tests.many_at_once import ROWS, SOURCE, batch, observe
from tests.streams import START, Stream
from tests.waiting import PATIENCE_S, until

ROOT = Path(__file__).parents[2]
CREW = ("write", "write", "maintain", "observe", "look")
ENOUGH = 40  # commits


def test_all_parts_of_a_lake_work_at_once(tmp_path: Path) -> None:
    """Shown to fail by writing through the table's path, by a retention of 0 hours, and by reading without a pinned version."""
    stream = registered(tmp_path / "busy")
    command = [sys.executable, "-m", "tests.many_at_once"]
    crew = [
        subprocess.Popen([*command, role, str(stream.folder)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for role in CREW
    ]
    try:
        until(lambda: (stream.lake.last_seq(Readings, SOURCE) or 0) >= ENOUGH)
        (stream.folder / "stop").touch()
        outputs = [worker.communicate(timeout=PATIENCE_S) for worker in crew]
    finally:
        for worker in crew:
            worker.kill()
    assert [worker.returncode for worker in crew] == [0] * len(crew), [errors for _, errors in outputs]
    first, second, merged, written, seen = (json.loads(output) for output, _ in outputs)

    won = sorted(seq for seq in first + second if seq is not None)
    assert won == list(range(1, len(won) + 1))  # each number has one winner, and none is left out
    assert len(won) >= ENOUGH
    assert seen == sorted(seen)
    assert sum(merged) > 0
    assert len(written) > 1
    assert read(stream.lake.scan(Readings)).height == ROWS * len(won)
    observe(stream, 0)
    assert observations(stream).equals(observations(undisturbed(tmp_path / "alone", len(won))))


def registered(folder: Path) -> Stream:
    """Make a lake that knows its one series."""
    Lake(str(folder / "lake")).create_all()
    stream = Stream(folder)
    series = {"series_id": "north/flow", "device_id": "north", "metric": "flow", "first_ts": START, "last_ts": stream.clock.now()}
    Catalog(stream.settings.state_dir).upsert_series(pl.DataFrame([series]), default_aggregation="mean")
    return stream


def undisturbed(folder: Path, num_commits: int) -> Stream:
    """Make the same lake in one go."""
    stream = registered(folder)
    stream.lake.append(Readings, pl.concat([batch(seq) for seq in range(1, num_commits + 1)]), app_id=SOURCE, seq=num_commits)
    observe(stream, 0)
    return stream


def observations(stream: Stream) -> pl.DataFrame:
    return read(stream.lake.scan(Observations)).select(*Observations.columns).sort(Observations.key)
