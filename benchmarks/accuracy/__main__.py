"""The accuracy of tidecast on any file, by two published protocols; prints one JSON line.

    python -m benchmarks.accuracy --data ETTh1.csv --protocol ltsf --horizon 96 [--seeds 3] [--out forecasts.parquet]
    python -m benchmarks.accuracy --data m4_hourly.csv --protocol last-window --horizon 48 --season 24

ltsf: a wide CSV with a `date` column; every test window with stride 1, all channels, nothing dropped; mse and mae are of values
standardised by mean and standard deviation of the training rows, all else in the units of the file. last-window: a long CSV
`unique_id, ds, y`; the last H values of each series are the test, the H before them validation. Training and every choice look at nothing
after the validation period.
"""

import argparse
import json
import math
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.quiet import hush
from pipeline.errors import SettingsError, TidecastError

if TYPE_CHECKING:
    from benchmarks.accuracy.forecasting import Forecasts

FAULT = 2


def main() -> None:
    """Run the benchmark that the command line asks for."""
    hush()  # before anything imports torch: one thread unless the user says otherwise
    arguments = _parser().parse_args()
    try:
        line = json.dumps(_run(arguments), allow_nan=False)
    except TidecastError as error:
        _note(str(error))
        sys.exit(FAULT)
    print(line)


def _parser() -> argparse.ArgumentParser:
    from benchmarks.accuracy.options import task_options

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    task_options(parser)
    add = parser.add_argument
    add("--seeds", type=int, default=1, metavar="N", help="train N times, seeds 0 … N-1, and report the means (default 1)")
    add("--max-seconds", type=float, default=600.0, metavar="X", help="of each training (default 600)")
    add(
        "--out",
        type=Path,
        metavar="PARQUET",
        help="write every test forecast: unique_id, cutoff, ds, q0.1 … q0.9 in the units of the file; with several seeds all of them, "
        "told apart by a column seed",
    )
    return parser


def _run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Load the task, run every seed, and return the line to print."""
    from benchmarks.accuracy.forecasting import ForecastWriter
    from benchmarks.accuracy.options import load_task
    from benchmarks.accuracy.run import run_seed, summary

    if arguments.seeds < 1 or not 0 < arguments.max_seconds < math.inf:
        raise SettingsError(
            f"--seeds and --max-seconds require positive numbers; got {arguments.seeds} and {arguments.max_seconds:g}. Correct them."
        )
    if arguments.out is not None and arguments.out.resolve() == arguments.data.resolve():
        raise SettingsError(f"--out requires a file of its own; got {arguments.out}, which --data reads. Name another.")
    task = load_task(arguments)
    runs = []
    with ExitStack() as stack:
        writer = stack.enter_context(ForecastWriter(arguments.out, task)) if arguments.out else None
        for seed in range(arguments.seeds):

            def keep(block: "Forecasts", label: int | None = seed if arguments.seeds > 1 else None) -> None:
                if writer is not None:
                    writer.write(block, label)

            def progress(epoch: int, num_epochs: int, train: float, validation: float, seed: int = seed) -> None:
                _note(f"seed {seed} epoch {epoch + 1} of at most {num_epochs}: training {train:.4f}, validation {validation:.4f}")

            runs.append(run_seed(task, seed, arguments.max_seconds, progress, keep))
    return {
        "data": arguments.data.name,
        "protocol": arguments.protocol,
        "horizon": task.horizon,
        "season": task.season,
        "interval_s": task.panel.interval.total_seconds(),
        "series": len(task.ids),
        "forecasts": int(task.test.count_B.sum()),
        "past_covariates": list(task.past_covariates),
        **summary(runs),
    }


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
