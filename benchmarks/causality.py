"""What reading the future is worth in validation, and what it costs live: two leaks, each made on purpose and measured.

    python -m benchmarks.causality --data ETTh1.csv [--leak layers|filling|both] [--missing 0.05 0.2 0.5] [--steps 400]

Every column of the wide file is a series; rows up to --train train, those up to --validation choose and score, the rest is not
read. `layers`: the causal forecaster against the same one with bidirectional layers of half the width each way. `filling`:
blocks of the history are lost, and a forecaster that reads gaps as gaps stands against one whose gaps were filled from both
sides. "validation" is the score of one pass over the validation period, "live" that of the same weights fed tick by tick with what
is there at each tick. Errors are against what came true, in standard deviations of the training period. Prints Markdown tables.
"""

import argparse
import itertools
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.panel import panel_of_file
from benchmarks.two_way import TwoWayStack
from models.batch import TrainingBatch
from models.config import ForecasterConfig
from models.forecaster import CausalForecaster
from models.losses import pinball
from models.offline import minimise
from models.training import ForecasterTraining
from pipeline.offline.fill import FillSettings, fill_panel, fit_filler
from pipeline.prepare.sequences import Panel
from pipeline.prepare.splits import Split
from pipeline.settings import TrainSettings
from pipeline.train.datamodule import SegmentDataModule
from pipeline.train.fit import forecaster_config

HORIZON = 24
MEAN_GAP = 6  # ticks: lengths of the blocks that are lost are geometric
HEADER = "| {0} | score | mean absolute error, all leads | step 1 | step {1} | pinball |\n|---|---|---|---|---|---|"


@dataclass(frozen=True)
class Arena:
    """What the two rivals of a leak share: borders, network, budget and unit of error."""

    split: Split
    config: ForecasterConfig
    settings: TrainSettings
    num_steps: int
    unit_B: Tensor

    def train(self, panel: Panel, forecaster: CausalForecaster) -> None:
        """Fit a forecaster on a panel by the loss that `tidecast train` uses; the weights of the best validation loss stay."""
        data = SegmentDataModule(panel, self.split, self.config, self.settings)
        training = ForecasterTraining(forecaster, learning_rate=0.0, weight_decay=0.0)  # for its loss alone
        batches = itertools.chain.from_iterable(itertools.repeat(data.segments))
        minimise(
            forecaster,
            lambda: training.loss(forecaster, next(batches)),
            num_steps=self.num_steps,
            learning_rate=self.settings.learning_rate,
            validate=lambda: float(training.loss(forecaster, data.validation)),
        )

    def examine(self, panel: Panel, truth: Panel) -> TrainingBatch:
        """Return the validation period as `panel` shows it, with the targets of `truth`."""
        shown, true = (SegmentDataModule(p, self.split, self.config, self.settings).validation for p in (panel, truth))
        return shown._replace(target_OBH=true.target_OBH, observed_OBH=true.observed_OBH)

    def score(self, forecaster: CausalForecaster, batch: TrainingBatch, *, tick_by_tick: bool) -> str:
        """Return the cells of a table row: errors over all leads, at the first and at the last, and the pinball loss."""
        with torch.inference_mode():
            features_TBF = forecaster.features(batch.sequence)
            state = forecaster.stack.initial_state(features_TBF.shape[1])
            parts = []
            for some_TBF in torch.split(features_TBF, 1 if tick_by_tick else len(features_TBF)):
                top_TBD, *state = forecaster.stack(some_TBF, *state)
                parts.append(top_TBD)
            quantiles_OBHQ = forecaster.decode(batch.sequence, torch.cat(parts), batch.origins_O)
        quantiles_OBHQ, target_OBH = quantiles_OBHQ / self.unit_B[:, None, None], batch.target_OBH / self.unit_B[:, None]
        absolute_OBH = (target_OBH - quantiles_OBHQ[..., self.config.quantile_levels.index(0.5)]).abs()
        seen_OBH, levels_Q = batch.observed_OBH, torch.tensor(self.config.quantile_levels)
        by_step = [float(absolute_OBH[..., step][seen_OBH[..., step]].mean()) for step in (0, -1)]
        numbers = [float(absolute_OBH[seen_OBH].mean()), *by_step, float(pinball(quantiles_OBHQ, target_OBH, seen_OBH, levels_Q))]
        return " | ".join(f"{number:.3f}" for number in numbers)

    def fresh(self) -> CausalForecaster:
        """Return an untrained causal forecaster, always the same."""
        torch.manual_seed(self.settings.seed)
        return CausalForecaster(self.config)


def main() -> None:
    """Make the leaks, train the rivals, and print what each scores when validated and when live."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--leak", choices=("layers", "filling", "both"), default="both")
    parser.add_argument("--missing", type=float, nargs="+", default=[0.05, 0.2, 0.5])
    parser.add_argument("--train", type=int, default=8640)
    parser.add_argument("--validation", type=int, default=11520)
    parser.add_argument("--steps", type=int, default=400)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    whole = panel_of_file(arguments.data)
    panel = whole.truncated(whole.label(0, arguments.validation - 1))
    settings = TrainSettings(horizon=HORIZON, batch_size=16)
    arena = Arena(
        split=Split(panel.label(0, arguments.train - 1), panel.end),
        config=forecaster_config(settings, panel.interval),
        settings=settings,
        num_steps=arguments.steps,
        unit_B=torch.from_numpy(np.nanstd(panel.values_TB[: arguments.train], axis=0)),
    )
    if arguments.leak != "filling":
        _leak_of_layers(arena, panel)
    if arguments.leak != "layers":
        _leak_of_filling(arena, panel, arguments.missing)


def _leak_of_layers(arena: Arena, panel: Panel) -> None:
    two_way = arena.fresh()
    two_way.stack = TwoWayStack(two_way.stack)  # type: ignore[assignment]  # it stands in for the causal one
    batch = arena.examine(panel, panel)
    print(HEADER.format("layers", HORIZON))
    for name, forecaster in (("causal", arena.fresh()), ("bidirectional", two_way)):
        arena.train(panel, forecaster)
        print(f"| {name} | validation | {arena.score(forecaster, batch, tick_by_tick=False)} |")
        print(f"| {name} | live | {arena.score(forecaster, batch, tick_by_tick=True)} |", flush=True)


def _leak_of_filling(arena: Arena, truth: Panel, shares: list[float]) -> None:
    print("\n" + HEADER.format("missing, and how gaps are read", HORIZON))
    for share in shares:
        gapped = replace(truth, values_TB=_with_blocks_lost(truth, share))
        filled_rows = fill_panel(fit_filler(gapped, FillSettings(num_steps=arena.num_steps)), gapped)
        ticks = len(truth.values_TB)
        filled_TB = filled_rows["value"].fill_null(np.nan).to_numpy().reshape(len(truth.series_ids), ticks).T
        filled = replace(truth, values_TB=filled_TB)
        masked, leaking = arena.fresh(), arena.fresh()
        arena.train(gapped, masked)
        arena.train(filled, leaking)
        live = arena.examine(gapped, truth)
        hindsight = arena.examine(filled, truth)
        print(f"| {share:.0%}, as gaps | validation and live | {arena.score(masked, live, tick_by_tick=False)} |")
        print(f"| {share:.0%}, filled from both sides | validation | {arena.score(leaking, hindsight, tick_by_tick=False)} |")
        print(f"| {share:.0%}, filled from both sides | live | {arena.score(leaking, live, tick_by_tick=False)} |", flush=True)


def _with_blocks_lost(panel: Panel, share: float) -> np.ndarray:
    """Return the values with blocks of geometric length missing, at random places, until the share is lost; first and last ticks stay."""
    rng = np.random.default_rng(0)
    values_TB = panel.values_TB.copy()
    for column, length in enumerate(panel.length_B):
        while np.isnan(values_TB[:, column]).mean() < share:
            start = rng.integers(1, length - 1)
            values_TB[start : min(start + rng.geometric(1 / MEAN_GAP), length - 1), column] = np.nan
    return values_TB


if __name__ == "__main__":
    main()
