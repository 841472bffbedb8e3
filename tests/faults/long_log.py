"""Twenty thousand commits, as a stream makes in two days and more: everything is there once, the log stays short, nothing grows slow."""

from pathlib import Path

import polars as pl

from benchmarks.long_log import DEVICES, batch, measured
from pipeline.schemas import Readings
from pipeline.store.lake import Lake, read
from tests.faults.outcome import Outcome

AGAIN_EVERY = 500  # commits, of which one is tried a second time
MOST_LOG_FILES, MOST_LIVE_FILES = 1_000, 120  # 500 to 600 versions and their checkpoints; what 100 commits leave unmerged
MOST_MS, MOST_MORE_MIB = 100, 100  # asked of an append, of opening, of the memory


def long_log(folder: Path, *, commits: int) -> Outcome:
    """Commit small batches; then look at every row, try old commits again, and say what append, open and memory came to."""
    lake = Lake(str(folder / "lake"))
    lake.create_all()
    early, late = measured(lake, commits)
    again = [seq for seq in range(1, commits + 1, AGAIN_EVERY) if lake.append(Readings, batch(seq), app_id="bench", seq=seq)]
    stored = read(lake.scan(Readings).select("series_id", "ts", "source_seq", "value"))
    per_commit = stored.group_by("source_seq").agg(rows=pl.len(), value=pl.col("value").unique())
    wrong = per_commit.filter((pl.col("rows") != DEVICES) | (pl.col("value") != pl.concat_list(20.0 + pl.col("source_seq") % 7)))
    faults = {
        "commits were accepted twice": len(again),
        "rows too few or too many": abs(len(stored) - commits * DEVICES),
        "rows are there twice": int(stored.select("series_id", "ts").is_duplicated().sum()),
        "commits are not whole": len(wrong) + commits - len(per_commit),
        "files too many in the log": max(0, int(late["log_files"]) - MOST_LOG_FILES),
        "data files too many": max(0, int(late["live_files"]) - MOST_LIVE_FILES),
    }
    append, opening, more = late["append_ms_p95"], late["open_ms_p95"], late["rss_mib"] - early["rss_mib"]
    facts = (
        f"append p95 {append:.0f} ms and open p95 {opening:.0f} ms (asked: {MOST_MS}), memory +{more:.0f} MiB (asked: {MOST_MORE_MIB}), "
        f"{late['log_files']:.0f} log files, {late['live_files']:.0f} data files"
    )
    failure = "; ".join(f"{number} {what}" for what, number in faults.items() if number)
    return Outcome(f"{commits:,} commits of {DEVICES} readings", facts=facts, failure=failure)
