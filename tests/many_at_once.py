"""The parts of a lake's life that go on at the same time, each for a process of its own: `python -m tests.many_at_once ROLE FOLDER`.

Run by `tests/pipeline/test_many_at_once.py`. Each role works until the file `stop` is there and prints what it did as JSON.
"""

import json
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import polars as pl

import pipeline.store.lake
from pipeline.prepare.regularise import regularise
from pipeline.schemas import Readings
from pipeline.store.lake import read
from pipeline.store.maintenance import compact, vacuum
from tests.streams import START, Stream

ROWS = 50  # in a commit
SOURCE = "ingest/live"


def batch(seq: int) -> pl.DataFrame:
    """Return the rows of one commit: a minute of one series each."""
    stamps = [START + (seq * ROWS + number) * timedelta(seconds=10) for number in range(ROWS)]
    names = {
        "source": "live",
        "device_id": "north",
        "metric": "flow",
        "series_id": "north/flow",
        "unit": None,
        "quality": 0,
        "is_late": False,
    }
    return pl.DataFrame({"ts": stamps}).with_columns(
        *(pl.lit(value).alias(name) for name, value in names.items()),
        source_seq=pl.lit(seq),
        value=pl.lit(float(seq)),
        received_at=pl.col("ts"),
        ingested_at=pl.col("ts"),
        ingest_date=pl.lit(START.date()),
    )


def write(stream: Stream, _round: int) -> int | None:
    """Commit the batch that follows what is stored; return its number where this process has won it."""
    seq = (stream.lake.last_seq(Readings, SOURCE) or 0) + 1
    return seq if stream.lake.append(Readings, batch(seq), app_id=SOURCE, seq=seq) else None


def maintain(stream: Stream, _round: int) -> int:
    """Merge small files and delete old ones; return how many files were merged."""
    merged = compact(stream.lake).files_removed
    vacuum(stream.lake)
    return merged


def observe(stream: Stream, _round: int) -> int:
    """Bring the observations up to the readings; return how many rows that were."""
    return regularise(stream.settings, stream.clock).observations_written


def look(stream: Stream, _round: int) -> int:
    """Read slowly, at one version; return how many rows there were. A part of a commit is never seen."""
    scan = stream.lake.scan(Readings)
    time.sleep(0.2)  # others go on meanwhile: this is the slow reader
    rows = read(scan)
    assert rows.height % ROWS == 0, f"{rows.height} rows are no whole commits"
    assert rows["source_seq"].n_unique() * ROWS == rows.height, "a commit is there in part, or twice"
    return rows.height


ROLES: dict[str, Callable[[Stream, int], int | None]] = {"write": write, "maintain": maintain, "observe": observe, "look": look}


def main() -> None:
    """Do one thing again and again."""
    role, folder = sys.argv[1], Path(sys.argv[2])
    pipeline.store.lake.EVERY = 7  # so that writers tidy often in the seconds of a test
    done = []
    while not (folder / "stop").exists():
        done.append(ROLES[role](Stream(folder), len(done)))
    sys.stdout.write(json.dumps(done))


if __name__ == "__main__":
    main()
