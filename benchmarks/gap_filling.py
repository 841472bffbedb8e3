"""Gap filling from both sides against linear interpolation and seasonal fill, on gaps as long as real ones are.

    python -m benchmarks.gap_filling --data FILE [--series PATTERN] [--companion METRIC] [--gaps-from FILE] [--seeds 3]

The filler is fitted on the first 70 % of the time. Out of the rest, gaps of the lengths that the data really has are cut where
the truth is known, each length `--repeats` times at random places, and filled by every method from the same window. Prints
a Markdown table of mean absolute errors by gap length, in the metric's unit, and one JSON line.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.panel import panel_of_file
from models.gap_filling import GapWindow, interpolate, interpolate_seasonal
from pipeline.offline.fill import FillSettings, FittedFiller, fit_filler
from pipeline.offline.gaps import Gaps, Stretches, find_gaps, gap_windows
from pipeline.prepare.sequences import Panel

FITTED_FRACTION = 0.7
BUCKETS = ((1, 1), (2, 5), (6, 24), (25, 72), (73, 168))
METHODS = ("line", "seasonal", "bidirectional")

Errors = dict[str, NDArray[np.float64]]


def main() -> None:
    """Fit, cut, fill, and print the errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--series", action="append", help="glob pattern, repeatable; all series by default")
    parser.add_argument("--companion", action="append", default=[], help="a metric of the same device that is read along, repeatable")
    parser.add_argument("--gaps-from", type=Path, help="take the gap lengths of this file, for data that has no gaps")
    parser.add_argument("--gaps-series", action="append", help="the series of --gaps-from that match")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--steps", type=int, default=FillSettings.num_steps)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    companions = tuple(arguments.companion)
    panel = panel_of_file(arguments.data, arguments.series, companions)
    gapped = panel if arguments.gaps_from is None else panel_of_file(arguments.gaps_from, arguments.gaps_series)
    lengths = find_gaps(gapped).length_G
    lengths = lengths[lengths <= BUCKETS[-1][1]]
    border_B = (FITTED_FRACTION * panel.length_B).astype(np.int64)
    cuts = Stretches(panel, border_B).cut(np.repeat(lengths, arguments.repeats), np.random.default_rng(0))
    runs, seconds = [], []
    for seed in range(arguments.seeds):
        started = time.perf_counter()
        fitted = fit_filler(panel.first_rows(border_B), FillSettings(seed=seed, num_steps=arguments.steps, companions=companions), lengths)
        seconds.append(time.perf_counter() - started)
        runs.append(_errors(fitted, panel, cuts))
    errors = {name: np.mean([run[name] for run in runs], axis=0) for name in METHODS}
    print(_table(cuts, errors))
    overall = {name: round(float(np.average(errors[name], weights=cuts.length_G)), 4) for name in METHODS}
    print(json.dumps({"data": arguments.data.name, "gaps": len(cuts.length_G), "mae": overall, "fit_s": round(float(np.mean(seconds)), 1)}))


def _errors(fitted: FittedFiller, panel: Panel, cuts: Gaps) -> Errors:
    """Return the mean absolute error of each gap by method."""
    order = np.argsort(cuts.length_G, kind="stable")
    errors = {name: np.empty(len(order)) for name in METHODS}
    for first in range(0, len(order), 256):
        some = order[first : first + 256]
        window = gap_windows(panel, cuts.select(some), fitted.reach)
        for name, filled_TB in _filled(fitted, window).items():
            error_TB = torch.where(window.gap_TB, (filled_TB - window.values_TB).abs(), 0.0)
            errors[name][some] = (error_TB.sum(0) / window.gap_TB.sum(0)).numpy()
    return errors


def _filled(fitted: FittedFiller, window: GapWindow) -> dict[str, torch.Tensor]:
    line_TB = interpolate(window.values_TB, window.seen_TB)
    season = fitted.filler.season
    with torch.inference_mode():
        return {
            "line": line_TB,
            "seasonal": line_TB if season is None else interpolate_seasonal(window.values_TB, window.seen_TB, season),
            "bidirectional": fitted.filler(window),
        }


def _table(cuts: Gaps, errors: Errors) -> str:
    """Return a row for each bucket of lengths: gaps, the error over all their ticks by method, and the gain over the better rival."""
    rows = ["| gap length (ticks) | gaps | line | seasonal | bidirectional | against the better |", "|---|---|---|---|---|---|"]
    for shortest, longest in BUCKETS:
        inside = (cuts.length_G >= shortest) & (cuts.length_G <= longest)
        if not inside.any():
            continue
        mae = {name: float(np.average(errors[name][inside], weights=cuts.length_G[inside])) for name in METHODS}
        gain = mae["bidirectional"] / min(mae["line"], mae["seasonal"]) - 1
        name = f"{shortest}" if shortest == longest else f"{shortest} to {longest}"
        rows.append(f"| {name} | {inside.sum()} | {' | '.join(f'{mae[method]:.3f}' for method in METHODS)} | {gain:+.1%} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
