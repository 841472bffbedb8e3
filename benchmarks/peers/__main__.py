"""The libraries a user would pick instead, on the same file and protocol as `benchmarks.accuracy`, side by side with its forecasts.

    python -m benchmarks.accuracy --data FILE --protocol ltsf --horizon 96 --out ours.parquet > ours.json
    python -m benchmarks.peers    --data FILE --protocol ltsf --horizon 96 --stride 25 --peers-python peers/bin/python \
        --results results/ETTh1_96 --ours ours.parquet

Every peer trains once on the training period, looks at the validation period for early stopping alone, and forecasts every origin asked
for from a window or a filter that ends there; all forecasts, ours too, are scored by the same code on the same origins. One thread each;
seconds are CPU seconds. Prints Markdown tables, overall and by lead, then one JSON line. --results keeps what the peers made: a peer
whose forecasts of the same task and budget are there is not run again.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.accuracy.options import load_task, task_options
from benchmarks.accuracy.scores import score_frames
from benchmarks.accuracy.task import Task
from benchmarks.peers.exchange import THREADS, Budget, Exchange, exchange_of
from benchmarks.peers.run_peer import PEERS
from benchmarks.peers.tables import BY_LEAD, METRICS, Row, by_lead, overall
from flows.quiet import hush
from pipeline.errors import DataError, SettingsError, TidecastError

ROOT = Path(__file__).parents[2]
FAULT = 2
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def main() -> None:
    """Run the peers that are asked for and print the tables."""
    hush()
    arguments = _parser().parse_args()
    try:
        print(compare(arguments))
    except TidecastError as error:
        print(error, file=sys.stderr)
        sys.exit(FAULT)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    task_options(parser)
    add = parser.add_argument
    add("--peers", default=",".join(PEERS), help="which, as a,b (default %(default)s)")
    add("--peers-python", default=sys.executable, metavar="PYTHON", help="the interpreter of the peers' environment")
    add("--seconds", type=float, default=600.0, help="CPU seconds of training that each peer may take (default 600)")
    add("--stride", type=int, default=1, metavar="K", help="forecast every K-th origin; coprime to the season (default 1)")
    add("--seed", type=int, default=1, help="of the peers (default 1)")
    add("--results", type=Path, required=True, metavar="DIR", help="what the peers are given, and what they made")
    add(
        "--ours",
        type=Path,
        metavar="PARQUET",
        help="forecasts by benchmarks.accuracy --out; its JSON line beside it, as .json, tells the times",
    )
    return parser


def compare(arguments: argparse.Namespace) -> str:
    """Return the tables and the JSON line.

    Raises:
        SettingsError: for a peer that does not exist, or a budget that makes no sense.
        DataError: for a file that cannot be used, or forecasts that lack what was asked.
    """
    names = [name.strip() for name in arguments.peers.split(",") if name.strip()]
    unknown = sorted(set(names) - set(PEERS))
    if unknown or arguments.seconds <= 0:
        raise SettingsError(
            f"The peers are {', '.join(PEERS)}, with seconds above 0; got {', '.join(unknown) or arguments.seconds}. Correct it."
        )
    task = load_task(arguments)
    exchange = exchange_of(task, Budget(arguments.seconds, arguments.stride, arguments.seed))
    exchange.write(arguments.results)
    rows = [_peer(name, exchange, arguments.results, arguments.peers_python) for name in names]
    if arguments.ours:
        rows.append(_ours(arguments.ours, exchange))
    points = {row.scores["points"] for row in rows if row.scores is not None}
    if len(points) > 1:
        raise DataError(f"A comparison requires the same points from everybody; got {sorted(points)}. Make the forecasts of one task anew.")
    told = {
        "data": arguments.data.name,
        "protocol": arguments.protocol,
        "horizon": task.horizon,
        "season": task.season,
        "series": len(task.ids),
        "past_covariates": list(task.past_covariates),
        "stride": arguments.stride,
        "origins": len(exchange.origins),
        "budget_s": arguments.seconds,
        "threads": THREADS,
        "forecasters": {row.name: _record(row, arguments.results) for row in rows},
    }
    page = _page(told, rows, task)
    (arguments.results / "tables.md").write_text(page + "\n")
    return f"{page}\n\n{json.dumps(told, allow_nan=False)}"


def _page(told: dict[str, Any], rows: list[Row], task: Task) -> str:
    covariates = ", ".join(task.past_covariates) or "none"
    title = (
        f"{told['data']}, {told['protocol']}, horizon {task.horizon}, season {task.season}, past covariates: {covariates}; "
        f"{told['origins']} origins (stride {told['stride']}); {told['budget_s']:g} CPU seconds of training each, {THREADS} thread"
    )
    return "\n\n".join([title, overall(rows), *(by_lead(rows, metric, task.horizon) for metric in BY_LEAD)])


def _peer(name: str, exchange: Exchange, results: Path, python: str) -> Row:
    """Run a peer unless its result is there, and score it."""
    folder = results / name
    record = _stored(folder)
    if record.get("fingerprint") != exchange.fingerprint:
        print(f"running {name}", file=sys.stderr, flush=True)
        failure = _run(name, results, python)
        if failure:
            return Row(name, None, None, None, f"FAILED: {failure}")
        record = _stored(folder)
    scores = score_frames(exchange.task, [exchange.read_forecasts(folder / "forecasts.parquet")])
    budget = f"{record['budget_s']:g} s: {record['how']}"
    return Row(name, scores, float(record["training_s"]), float(record["forecasting_s"]), budget, bool(record["cut_off"]))


def _stored(folder: Path) -> dict[str, Any]:
    """Return what a peer said of itself, nothing if it has not run."""
    path = folder / "peer.json"
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def _run(name: str, results: Path, python: str) -> str | None:
    """Run one peer to its end; return the last line of its complaint if it failed."""
    folder = results / name
    folder.mkdir(exist_ok=True)
    (folder / "peer.json").unlink(missing_ok=True)
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(THREADS)), "RAY_USAGE_STATS_ENABLED": "0"}
    command = [python, "-m", "benchmarks.peers.run_peer", name, str(results.resolve())]
    with (folder / "log.txt").open("w") as log:
        done = subprocess.run(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)
    if done.returncode == 0:
        return None
    lines = (folder / "log.txt").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"exit status {done.returncode}"


def _ours(path: Path, exchange: Exchange) -> Row:
    """Score forecasts of `benchmarks.accuracy` at the origins of the peers; the mean over seeds, where there are several."""
    if not path.is_file():
        raise DataError(f"--ours requires a file; got {path}, which does not exist. Make it with benchmarks.accuracy --out.")
    stamp = exchange.task.stamp_type
    same = exchange.origins.with_columns(pl.col("unique_id").cast(pl.String), pl.col("cutoff").cast(stamp)).lazy()
    frame = (
        pl.scan_parquet(path)
        .with_columns(pl.col("unique_id").cast(pl.String), pl.col("cutoff").cast(stamp))
        .join(same, on=["unique_id", "cutoff"], how="semi")
        .collect()
    )
    seeds = frame.partition_by("seed") if "seed" in frame.columns else [frame]
    scores = _mean_scores([score_frames(exchange.task, [part.drop("seed", strict=False)]) for part in seeds])
    report = path.with_suffix(".json")
    told = json.loads(report.read_text()) if report.is_file() else {}
    how = f"{told['train_seconds']:.0f} s of wall-clock time" if told else "not told"
    return Row("tidecast", scores, told.get("train_seconds"), told.get("forecast_seconds"), f"{how}, mean of {len(seeds)} seeds")


def _mean_scores(scores: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean over seeds of every metric, overall and by lead."""
    if len(scores) == 1:
        return scores[0]

    def mean(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if len(known) == len(values) else None

    leads = {name: [mean(list(step)) for step in zip(*(part["by_lead"][name] for part in scores), strict=True)] for name in METRICS}
    return {**{name: mean([part[name] for part in scores]) for name in METRICS}, "by_lead": leads, "points": scores[0]["points"]}


def _record(row: Row, results: Path) -> dict[str, Any]:
    """Return all that is known of one row."""
    return {
        "scores": row.scores,
        "training_s": row.training_s,
        "forecasting_s": row.forecasting_s,
        "cut_off": row.is_cut_off,
        "budget": row.budget,
        "record": _stored(results / row.name),
    }


if __name__ == "__main__":
    main()
