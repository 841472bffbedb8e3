"""The laws 5, 6 and 10, asked of the code that trains a forecaster of ours.

Skill on noise is asked of small fresh forecasters of the model's kind, fitted by that code; the split of the very batches it
makes, with the borders that the model's card records. Called by `pipeline.verify.verify`.

Letters: B series, T ticks, O origins, H horizon.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from models.causality import Finding
from models.config import ForecasterConfig
from pipeline.forecast.engine import StreamEngine
from pipeline.prepare.covariates import PanelCovariates
from pipeline.prepare.sequences import Panel
from pipeline.prepare.splits import Split
from pipeline.settings import TrainSettings
from pipeline.train.datamodule import SegmentDataModule
from pipeline.train.fit import fit
from pipeline.verify.made_up import made_up_panel, noise_covariates
from pipeline.verify.skill import Trial, judge

Floats = NDArray[np.float64]

NUM_SERIES, TRAIN_TICKS, VALIDATION_TICKS, TEST_TICKS = 24, 600, 100, 150
SHAPE = TRAIN_TICKS + VALIDATION_TICKS + TEST_TICKS, NUM_SERIES
LONGEST_REACH = 24  # ticks; what reaches further needs longer to learn that the last value is all there is
MOST_BATCHES = 50  # of an epoch, looked through for law 10


def small_config(config: ForecasterConfig) -> ForecasterConfig:
    """Return the configuration of a forecaster of the same kind that is fitted in seconds."""
    network = replace(config.network, hidden_size=min(16, config.network.hidden_size), num_layers=min(2, config.network.num_layers))
    seasons = tuple(season for season in config.seasons[:1] if season <= LONGEST_REACH)
    context_length = min(config.context_length, LONGEST_REACH)
    return replace(config, network=network, seasons=seasons, context_length=context_length, horizon=min(4, config.horizon))


def small_settings(settings: TrainSettings, max_seconds: float) -> TrainSettings:
    """Return the settings of a training that is done in seconds: small segments, large steps, and at most so long."""
    quick = {"batch_size": 8, "segment_length": 128, "burn_in": 32, "max_epochs": 15, "highway_first": False, "learning_rate": 1e-2}
    return settings.model_copy(update={**quick, "max_seconds": max_seconds})


def trial(name: str, panel: Panel, naive_TB: Floats, config: ForecasterConfig, settings: TrainSettings) -> Trial:
    """Fit a forecaster on the first part of a panel and compare it with a naive forecast on the last.

    Args:
        name: of what the panel holds.
        panel: of `TRAIN_TICKS + VALIDATION_TICKS + TEST_TICKS` ticks, all observed.
        naive_TB: at each tick, what the naive forecast says of every later one.
        config: of the forecaster.
        settings: of the training.
    """
    test_start = TRAIN_TICKS + VALIDATION_TICKS
    forecaster = fit(panel, Split(panel.label(0, TRAIN_TICKS), panel.label(0, test_start)), config, settings).forecaster
    origins_O = np.arange(test_start, len(panel.values_TB) - config.horizon)
    engine = StreamEngine.fresh(forecaster, len(panel.series_ids), calibrate=False)
    median = config.quantile_levels.index(0.5)
    blocks = engine.advance(panel.values_TB, panel.time_TB, origins_O, panel.covariates)
    median_OBH = np.concatenate([block.quantiles_OBHQ[..., median] for block in blocks])
    actual_OBH = panel.values_TB[origins_O[:, None] + np.arange(1, config.horizon + 1)].transpose(0, 2, 1)
    naive_OB1 = naive_TB[origins_O][..., None]
    return Trial.of(name, np.abs(actual_OBH - median_OBH).mean((0, 2)), np.abs(actual_OBH - naive_OB1).mean((0, 2)))


def random_walks(seed: int = 0) -> Floats:
    """Return random walks (T, B): the last value is the best forecast."""
    return np.random.default_rng(seed).normal(size=SHAPE).cumsum(0)


def daily_cycles(interval: timedelta) -> Floats:
    """Return daily cycles with noise (T, B), or cycles of 24 ticks where a day has fewer than 4."""
    rng, period = np.random.default_rng(0), timedelta(days=1) / interval
    turns_TB = np.arange(SHAPE[0])[:, None] / (period if period >= 4 else 24) + rng.uniform(size=SHAPE[1])
    cycle_TB: Floats = 10 + 3 * np.sin(2 * np.pi * turns_TB)
    return cycle_TB + rng.normal(0, 0.5, SHAPE)


def no_skill_on_noise(config: ForecasterConfig, settings: TrainSettings) -> Finding:
    """Ask law 5 of small forecasters of a kind; each of the three trainings takes at most `settings.max_seconds`."""
    interval = timedelta(seconds=config.sample_interval_s)
    covariates = noise_covariates(config, *SHAPE)
    walks_TB, cycles_TB = random_walks(), daily_cycles(interval)
    shuffled_TB = np.random.default_rng(1).permuted(cycles_TB, axis=0)
    medians_TB = np.broadcast_to(np.median(shuffled_TB[:TRAIN_TICKS], axis=0), SHAPE)

    def tried(name: str, values_TB: Floats, naive_TB: Floats) -> Trial:
        return trial(name, made_up_panel(values_TB, interval, covariates), naive_TB, config, settings)

    without = [tried("random walks", walks_TB, walks_TB), tried("shuffled readings", shuffled_TB, medians_TB)]
    return judge(5, without, tried("daily cycles", cycles_TB, cycles_TB))


def crystal_ball(config: ForecasterConfig, settings: TrainSettings) -> Finding:
    """Ask law 6 of small forecasters of a kind, given one past covariate; each of the two trainings takes `settings.max_seconds`.

    The column is the target itself, so that at the target's tick it is the answer. The control is a column that says at every
    tick what comes next, and is known there.
    """
    interval = timedelta(seconds=config.sample_interval_s)
    asked = replace(config, past_covariates=("column",), future_covariates=(), static_covariates=())
    shuffled_TB = np.random.default_rng(2).normal(size=SHAPE)

    def tried(name: str, column_TB: Floats) -> Trial:
        column = PanelCovariates.of_past(("column",), column_TB[..., None])
        return trial(name, made_up_panel(shuffled_TB, interval, column), np.zeros(SHAPE), asked, settings)

    target = tried("a past column that is the target", shuffled_TB)
    return judge(6, [target], tried("a past column that says what is next", np.roll(shuffled_TB, -1, axis=0)))


def split_gap_of_batches(panel: Panel, split: Split, config: ForecasterConfig, settings: TrainSettings) -> Finding:
    """Ask law 10 of the batches that training makes of a panel.

    Args:
        panel: that was trained on, or one like it.
        split: the recorded borders.
        config: of the forecaster.
        settings: of the training.
    """
    data = SegmentDataModule(panel, split, config, settings)
    ahead_H = (config.sample_interval_s * torch.arange(1, config.horizon + 1, dtype=torch.float64)).long()
    latest = 0
    for batch in islice(data.train_dataloader(), MOST_BATCHES):
        times_OBH = batch.sequence.time_TB[batch.origins_O].unsqueeze(-1) + ahead_H
        scored = times_OBH[batch.scored_OBH]
        latest = max(latest, int(scored.max()) if len(scored) else 0)
    first = int(data.validation.sequence.time_TB[data.validation.origins_O].min())
    border = int(split.train_end.timestamp())
    seen = f"training targets end {_instant(latest)}, validation origins begin {_instant(first)}, the border is {_instant(border)} UTC"
    return Finding(law=10, verdict="holds" if 0 < latest <= border and latest <= first else "broken", seen=seen)


def _instant(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"
