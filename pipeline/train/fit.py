"""One training run: seed, Trainer, phases that end by the validation period, the best weights.

Called by `pipeline.train.train`. Lightning stays in here; what comes out is a plain `CausalForecaster`.
"""

import logging
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, Timer
from torch import Tensor

from models.batch import TrainingBatch
from models.config import ForecasterConfig
from models.forecaster import CausalForecaster
from models.training import ForecasterTraining
from pipeline.errors import ModelError, SettingsError
from pipeline.prepare.covariates import CovariateNames, PanelCovariates
from pipeline.prepare.sequences import Panel
from pipeline.prepare.splits import Split
from pipeline.settings import TrainSettings
from pipeline.train.datamodule import SegmentDataModule
from pipeline.train.regression import fit_highway

logger = logging.getLogger(__name__)

Progress = Callable[[int, int, float, float], None]
"""Told of every epoch: its number, the most there can be, the training loss and the validation loss."""

DAY, WEEK = timedelta(days=1), timedelta(weeks=1)
LONGEST_SEASON = 2016  # ticks a state may have to hold: a week of five minutes
CONTEXT_SEASONS, LONGEST_CONTEXT = 4, 672  # what the highway reads: four of the longest season; in ticks, four weeks of hours at most
ONE_EPOCH_S = 1.0  # a limit that is not over before the first epoch
SHARES = (1.0, 0.75, 0.5, 0.25, 0.0)  # of the way from the regression's weights to the best epoch's
RATE_CUT, NUM_PHASES = 0.3, 2  # what the learning rate is cut to where it no longer helps, and how many phases there are


@dataclass(frozen=True)
class FitResult:
    """A fitted forecaster and how it got there.

    Attributes:
        forecaster: with the best weights, in evaluation mode, on the CPU.
        curves: one row for each epoch: epoch, train/pinball, validation/pinball, train/clipped (a share of the steps), learning_rate.
        best_epoch: of the returned weights.
        num_parameters: of the forecaster.
    """

    forecaster: CausalForecaster
    curves: tuple[dict[str, float], ...]
    best_epoch: int
    num_parameters: int


def forecaster_config(settings: TrainSettings, interval: timedelta, covariates: PanelCovariates | None = None) -> ForecasterConfig:
    """Return the network's configuration for a grid spacing: a day and a week become seasons where they fit.

    Args:
        settings: of the training.
        interval: grid spacing.
        covariates: of the panel to be fitted on; the forecaster will read those.
    """
    seasons = settings.seasons
    if seasons is None:
        lags = [period // interval for period in (DAY, WEEK) if period % interval == timedelta(0)]
        seasons = tuple(lag for lag in lags if 2 <= lag <= LONGEST_SEASON)
    context = settings.context_length or min(CONTEXT_SEASONS * max(seasons) if seasons else 2 * settings.horizon, LONGEST_CONTEXT)
    longest = max(seasons, default=context)
    past, future, static = CovariateNames() if covariates is None else covariates.names
    return ForecasterConfig(
        sample_interval_s=interval.total_seconds(),
        horizon=settings.horizon,
        context_length=context,
        seasons=seasons,
        half_lives=(2.0 * longest, float(min(seasons, default=max(2, context // 7)))),
        network=settings.network,
        past_covariates=past,
        future_covariates=future,
        static_covariates=static,
    )


@dataclass
class TrainingPhases(Callback):
    """Keeps curves and the best weights, and leads a training through its phases.

    First the stack and the spread learn beside the highway that regression found, then everything at a lower rate. A phase ends after
    `patience` epochs without a better validation loss, and the next goes on from the best weights; after the last, training stops.
    """

    training: ForecasterTraining
    patience: int
    progress: Progress | None
    held_back: bool
    """Whether the highway stands still until the last phase."""
    best_loss: float = math.inf
    best_epoch: int = -1
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    curves: list[dict[str, float]] = field(default_factory=list)
    epochs_since_best: int = 0
    phase: int = 1

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002 (Lightning's signature)
        """Note the epoch's losses, after its validation, and go on to the next phase where this one no longer helps."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        train, validation = metrics.get("train/pinball", math.nan), metrics["validation/pinball"]
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        self.curves.append(
            {
                "epoch": trainer.current_epoch,
                "train/pinball": train,
                "validation/pinball": validation,
                "train/clipped": metrics.get("train/clipped", math.nan),
                "learning_rate": rate,
            }
        )
        self.epochs_since_best += 1
        if validation < self.best_loss:
            self.best_loss, self.best_epoch, self.epochs_since_best = validation, trainer.current_epoch, 0
            self.best_weights = {k: v.detach().cpu().clone() for k, v in self.training.averaged.state_dict().items()}
        if self.progress is not None:
            self.progress(trainer.current_epoch, int(trainer.max_epochs or 0), train, validation)
        if self.epochs_since_best >= self.patience:
            self._next_phase(trainer)

    def _next_phase(self, trainer: pl.Trainer) -> None:
        training = self.training
        if self.phase == NUM_PHASES:
            trainer.should_stop = True
            return
        self.phase += 1
        training.rate_factor *= RATE_CUT
        if self.held_back:
            training.forecaster.decoder.highway.requires_grad_()
        self.epochs_since_best = 0
        if self.best_weights:
            training.go_back_to(self.best_weights)


def fit(
    panel: Panel,
    split: Split,
    config: ForecasterConfig,
    settings: TrainSettings,
    progress: Progress | None = None,
    build: Callable[[ForecasterConfig], CausalForecaster] = CausalForecaster,
) -> FitResult:
    """Train a forecaster on a panel.

    Args:
        panel: all series; nothing after `split.validation_end` is read.
        split: borders of training and validation.
        config: of the forecaster.
        settings: of the optimisation.
        progress: told of every epoch.
        build: makes the forecaster, untrained; an ablation gives its own.

    Raises:
        DataError: when there is too little before a border.
        ModelError: when no epoch had a finite loss.
        SettingsError: when the accelerator asked for is not there.
    """
    started = time.monotonic()
    pl.seed_everything(settings.seed, workers=True, verbose=False)
    data = SegmentDataModule(panel, split, config, settings)
    forecaster = build(config)
    if data.static_BJ is not None:
        forecaster.standardise_static(data.static_BJ)
    highway = forecaster.decoder.highway
    held_back = settings.highway_first and highway.weight_HF.requires_grad  # an ablation may have frozen it for good
    start = None
    if held_back:
        fit_highway(forecaster, data.segments.history, data.validation)
        start = {name: value.clone() for name, value in forecaster.state_dict().items()}
    module = ForecasterTraining(forecaster, learning_rate=settings.learning_rate, weight_decay=settings.weight_decay)
    highway.requires_grad_(highway.weight_HF.requires_grad and not held_back)
    phases = TrainingPhases(module, settings.patience, progress, held_back)
    trainer = _trainer(settings, phases, settings.max_seconds - (time.monotonic() - started))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="lightning")
        warnings.filterwarnings("ignore", category=FutureWarning, module="lightning")
        trainer.fit(module, datamodule=data)
    if trainer.interrupted:  # Lightning swallows the interrupt; what was asked to stop must not go on to register
        raise KeyboardInterrupt
    if not phases.best_weights:
        raise ModelError(
            f"Training requires a finite validation loss; got none in {len(phases.curves)} epochs. "
            "Lower train.learning_rate, or look for absurd values in the readings."
        )
    weights = phases.best_weights if start is None else _best_between(module, start, phases.best_weights, data.validation)
    forecaster.load_state_dict(weights)
    logger.info("fitted epochs=%d best_epoch=%d validation_loss=%.5f", len(phases.curves), phases.best_epoch, phases.best_loss)
    num_parameters = sum(p.numel() for p in forecaster.parameters())
    return FitResult(forecaster.cpu().eval(), tuple(phases.curves), phases.best_epoch, num_parameters)


def _best_between(
    module: ForecasterTraining, start: dict[str, Tensor], best: dict[str, Tensor], validation: TrainingBatch
) -> dict[str, Tensor]:
    """Return the weights with the least validation loss on the line from the regression's to the best epoch's, ends included.

    Half-way, half of what the stack has over-fitted is gone and three quarters of its gain are left. Source: Wortsman et al. 2022,
    "Robust fine-tuning of zero-shot models".
    """
    losses = {}
    for share in SHARES:
        module.averaged.load_state_dict({name: start[name].lerp(best[name], share) for name in best})
        with torch.no_grad():
            losses[share] = float(module.loss(module.averaged.eval(), validation))
    share = min(SHARES, key=losses.__getitem__)
    logger.info("weights on the way from the regression share=%g validation_loss=%.5f", share, losses[share])
    return {name: start[name].lerp(best[name], share) for name in best}


def _trainer(settings: TrainSettings, phases: TrainingPhases, seconds: float) -> pl.Trainer:
    torch.set_float32_matmul_precision("high")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    if settings.accelerator == "gpu" and not torch.cuda.is_available():
        raise SettingsError("train.accelerator=gpu requires a CUDA device; got none. Use cpu or auto.")
    return pl.Trainer(
        accelerator=settings.accelerator,
        devices=1,
        deterministic="warn",  # gathering origins adds up in the order of threads otherwise: a seed must decide
        max_epochs=settings.max_epochs,
        gradient_clip_val=settings.gradient_clip,
        callbacks=[
            phases,
            Timer(timedelta(seconds=max(ONE_EPOCH_S, seconds)), interval="epoch", verbose=False),
        ],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
