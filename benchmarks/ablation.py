"""What each part of the forecaster is worth: train it without that part, or with another in its place, and score validation.

    python -m benchmarks.ablation --data ETTh1.csv --protocol ltsf --horizon 96 [--variants none,no-highway] [--seeds 1]

Nothing here ever looks at the test period: what is kept is decided on validation scores of several data sets (docs/decisions.md).
Prints a Markdown table, the change against the unchanged forecaster in percent, and one JSON line.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from flows.quiet import hush
from pipeline.errors import SettingsError, TidecastError

if TYPE_CHECKING:
    from benchmarks.accuracy.task import Task
    from models.config import ForecasterConfig
    from models.forecaster import CausalForecaster

FAULT = 2
METRICS = ("wql", "mae", "mse", "coverage80")
REFERENCE = "none"


def without_stack(config: "ForecasterConfig") -> "CausalForecaster":
    """Return a forecaster whose decoder never sees the stack."""
    forecaster = _build(config)
    forecaster.stack.norms[-1].requires_grad_(requires_grad=False)
    for parameter in forecaster.stack.norms[-1].parameters():
        parameter.data.zero_()
    return forecaster


def without_highway(config: "ForecasterConfig") -> "CausalForecaster":
    """Return a forecaster whose highway stays zero."""
    forecaster = _build(config)
    forecaster.decoder.highway.requires_grad_(requires_grad=False)
    return forecaster


def without_anchors(config: "ForecasterConfig") -> "CausalForecaster":
    """Return a forecaster that starts from the normaliser's mean alone."""
    forecaster = _build(config)
    forecaster.decoder.anchor_gate.requires_grad_(requires_grad=False)
    forecaster.decoder.anchor_bias_HA.requires_grad_(False)
    forecaster.decoder.anchor_bias_HA.data[:, :-1] = -10.0  # the last gate is the mean's
    return forecaster


def without_chrono(config: "ForecasterConfig") -> "CausalForecaster":
    """Return a forecaster whose gates start half open, as PyTorch's do."""
    forecaster = _build(config)
    for name, parameter in forecaster.stack.named_parameters():
        if name.endswith("bias_hh_l0"):
            parameter.data.zero_()
    return forecaster


def _build(config: "ForecasterConfig") -> "CausalForecaster":
    from models.forecaster import CausalForecaster

    return CausalForecaster(config)


@dataclass(frozen=True)
class Variant:
    """One change: of the training's settings, the network, the forecaster's configuration, or how it is built."""

    settings: dict[str, Any] = field(default_factory=dict)
    network: dict[str, Any] = field(default_factory=dict)
    config: Callable[["ForecasterConfig"], "ForecasterConfig"] = lambda config: config
    build: Callable[["ForecasterConfig"], "CausalForecaster"] = _build


def _half_lives(*factors: float) -> Callable[["ForecasterConfig"], "ForecasterConfig"]:
    """Return a change of the slowest half-life to multiples of what it is; the others stay."""
    return lambda config: replace(config, half_lives=(*(config.half_lives[0] * factor for factor in factors), *config.half_lives[1:]))


VARIANTS = {
    REFERENCE: Variant(),
    "no-stack": Variant(build=without_stack),
    "no-highway": Variant(build=without_highway),
    "no-anchors": Variant(build=without_anchors),
    "no-calendar": Variant(config=lambda config: replace(config, calendar=False)),
    "no-chrono": Variant(build=without_chrono),
    "stack-at-once": Variant(settings={"highway_first": False}),
    "cumulative-normaliser": Variant(config=_half_lives(math.inf)),
    "half-life-a-third": Variant(config=_half_lives(1 / 3)),
    "half-life-threefold": Variant(config=_half_lives(3.0)),
    "one-half-life": Variant(config=lambda config: replace(config, half_lives=config.half_lives[:1])),
    "context-halved": Variant(config=lambda config: replace(config, context_length=max(1, config.context_length // 2))),
    "plain": Variant(network={"wiring": "plain"}),
    "input-skips": Variant(network={"input_skips": True}),
    "gru": Variant(network={"cell": "gru"}),
    "one-layer": Variant(network={"num_layers": 1}),
    "three-layers": Variant(network={"num_layers": 3}),
    "hidden-32": Variant(network={"hidden_size": 32}),
    "hidden-128": Variant(network={"hidden_size": 128}),
    "dropout-0.1": Variant(network={"dropout": 0.1}),
    "dropout-0.5": Variant(network={"dropout": 0.5}),
    "half-the-rate": Variant(settings={"learning_rate": 1e-3}),
    "twice-the-rate": Variant(settings={"learning_rate": 4e-3}),
}


def main() -> None:
    """Run the variants that the command line asks for."""
    hush()
    from benchmarks.accuracy.options import load_task, task_options

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ablation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    task_options(parser)
    parser.add_argument("--variants", default=",".join(VARIANTS), help="which, as a,b (default all: %(default)s)")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="train each N times (default 1)")
    parser.add_argument("--max-seconds", type=float, default=300.0, metavar="X", help="of each training (default 300)")
    arguments = parser.parse_args()
    try:
        task = load_task(arguments)
        rows = [_row(task, name, arguments.seeds, arguments.max_seconds) for name in _names(arguments.variants)]
    except TidecastError as error:
        print(error, file=sys.stderr)
        sys.exit(FAULT)
    print(_table(rows))
    print(json.dumps({"data": arguments.data.name, "horizon": task.horizon, "variants": rows}))


def _names(text: str) -> list[str]:
    names = [REFERENCE, *(name.strip() for name in text.split(",") if name.strip() != REFERENCE)]
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        raise SettingsError(f"--variants requires some of {', '.join(VARIANTS)}; got {', '.join(unknown)}. Correct it.")
    return names


def _row(task: "Task", name: str, num_seeds: int, max_seconds: float) -> dict[str, Any]:
    """Train a variant with every seed; return its mean validation scores."""
    from benchmarks.accuracy.run import config_of, score, settings_of
    from pipeline.train.fit import fit

    variant, runs = VARIANTS[name], []
    for seed in range(num_seeds):
        settings = settings_of(task, seed, max_seconds)
        network = replace(settings.network, **variant.network)
        settings = settings.model_copy(update={**variant.settings, "network": network})
        fitted = fit(task.panel, task.split, variant.config(config_of(task, settings)), settings, build=variant.build)
        scores, _ = score(fitted.forecaster, task, task.validation)
        runs.append([scores[metric] for metric in METRICS])
        print(f"{name} seed {seed}: {dict(zip(METRICS, runs[-1], strict=True))}", file=sys.stderr, flush=True)
    means = [sum(values) / num_seeds for values in zip(*runs, strict=True)]
    return {"variant": name, **dict(zip(METRICS, means, strict=True))}


def _table(rows: list[dict[str, Any]]) -> str:
    base = rows[0]
    lines = ["| variant | wql | change | mae | mse | coverage80 |", "|---|---:|---:|---:|---:|---:|"]
    for row in rows:
        change = 100 * (row["wql"] / base["wql"] - 1)
        lines.append(
            f"| {row['variant']} | {row['wql']:.4f} | {change:+.1f} % | {row['mae']:.4f} | {row['mse']:.4f} | {row['coverage80']:.3f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
