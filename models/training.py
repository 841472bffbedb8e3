"""The Lightning module: loss, optimiser and averaged weights around a `CausalForecaster`; nothing else.

Lightning is imported here and in `pipeline.train` only: serving never loads it.
"""

import math
from typing import cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from models.batch import TrainingBatch
from models.forecaster import CausalForecaster
from models.losses import pinball
from models.units import to_normalised

WARM_UP = 50  # steps until the full learning rate
DECAY = 0.97  # of the weights' moving average: it forgets in some 30 steps


class ForecasterTraining(pl.LightningModule):
    """Trains a forecaster by forking sequences: a multi-horizon pinball loss at every origin of an encoded sequence.

    What is validated and kept is the moving average of the weights (Polyak and Juditsky 1992); it makes a decaying learning
    rate all but needless, so that a training can stop, or go on, at any time.
    Source of forking sequences: Wen et al. 2017, "A Multi-Horizon Quantile Recurrent Forecaster".

    Attributes:
        rate_factor: what the learning rate is multiplied by from the next step on.
    """

    def __init__(self, forecaster: CausalForecaster, *, learning_rate: float, weight_decay: float) -> None:
        super().__init__()
        self.forecaster = forecaster
        self.average = AveragedModel(forecaster, avg_fn=_moving_average)
        self.learning_rate, self.weight_decay, self.rate_factor = learning_rate, weight_decay, 1.0
        self.levels_Q: Tensor
        self.register_buffer("levels_Q", torch.tensor(forecaster.config.quantile_levels), persistent=False)

    @property
    def averaged(self) -> CausalForecaster:
        """The forecaster with averaged weights."""
        return cast(CausalForecaster, self.average.module)

    def loss(self, forecaster: CausalForecaster, batch: TrainingBatch) -> Tensor:
        """Return the pinball loss in the normalised units of each origin, so that every series and time counts alike."""
        sequence = batch.sequence
        hidden_LBD, cell_LBD = forecaster.stack.initial_state(sequence.time_TB.shape[1])
        top_TBD, _, _ = forecaster.stack(forecaster.features(sequence), hidden_LBD, cell_LBD)
        quantiles_OBHQ = forecaster.decode_normalised(sequence, top_TBD, batch.origins_O)
        target_OBH, scored_OBH = normalised_targets(batch, quantiles_OBHQ.dtype)
        return pinball(quantiles_OBHQ, target_OBH, scored_OBH, self.levels_Q.to(quantiles_OBHQ.dtype))

    def training_step(self, batch: TrainingBatch, batch_index: int) -> Tensor:  # noqa: ARG002 (Lightning's signature)
        """Return the loss of one batch of segments."""
        loss = self.loss(self.forecaster, batch)
        self.log("train/pinball", loss, on_step=False, on_epoch=True, batch_size=1)
        return loss

    def on_train_batch_end(self, outputs: object, batch: TrainingBatch, batch_idx: int) -> None:  # noqa: ARG002 (Lightning's signature)
        """Take the step's weights into the average."""
        self.average.update_parameters(self.forecaster)

    def validation_step(self, batch: TrainingBatch, batch_index: int) -> None:  # noqa: ARG002 (Lightning's signature)
        """Log the loss of the averaged weights over the validation origins."""
        self.log("validation/pinball", self.loss(self.averaged, batch), batch_size=int(batch.observed_OBH.sum()))

    def go_back_to(self, weights: dict[str, Tensor]) -> None:
        """Continue from earlier averaged weights."""
        self.forecaster.load_state_dict(weights)
        self.averaged.load_state_dict(weights)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,  # noqa: ARG002 (Lightning's signature)
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,  # noqa: ARG002
    ) -> None:
        """Clip the gradient by its global norm and log how often that was needed: in more than a fifth of the steps is too often."""
        limit = math.inf if gradient_clip_val is None else gradient_clip_val
        norm = torch.nn.utils.clip_grad_norm_(self.forecaster.parameters(), limit)
        self.log("train/clipped", (norm > limit).float(), on_step=False, on_epoch=True, batch_size=1)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return AdamW with a short warm-up."""
        optimiser = torch.optim.AdamW(self.forecaster.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1.0, (step + 1) / WARM_UP) * self.rate_factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def normalised_targets(batch: TrainingBatch, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the targets (O, B, H) in the normalised units of each origin, and which of them count."""
    sequence = batch.sequence
    mean_OB1 = sequence.mean_KTB[0][batch.origins_O].unsqueeze(-1)
    scale_OB1 = sequence.scale_KTB[0][batch.origins_O].unsqueeze(-1)
    return to_normalised(batch.target_OBH, mean_OB1, scale_OB1, dtype), batch.scored_OBH


def _moving_average(average: Tensor, current: Tensor, num_averaged: Tensor | int) -> Tensor:
    """Return a moving average that is short at first, when the weights move far."""
    count = int(num_averaged)
    return torch.lerp(average, current, 1 - min(DECAY, (1 + count) / (10 + count)))
