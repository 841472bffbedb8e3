"""The Lightning module: loss, optimiser and schedule around a `CausalForecaster`; nothing else.

Lightning is imported here and in `pipeline.train` only: serving never loads it.
"""

import math

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from models.batch import TrainingBatch
from models.forecaster import CausalForecaster
from models.heads import to_normalised
from models.losses import pinball


class ForecasterTraining(pl.LightningModule):
    """Trains a forecaster by forking sequences: a multi-horizon pinball loss at every origin of an encoded sequence.

    Source of forking sequences: Wen et al. 2017, "A Multi-Horizon Quantile Recurrent Forecaster".
    """

    def __init__(self, forecaster: CausalForecaster, *, learning_rate: float, weight_decay: float, num_steps: int) -> None:
        super().__init__()
        self.forecaster = forecaster
        self.learning_rate, self.weight_decay, self.num_steps = learning_rate, weight_decay, num_steps
        self.levels_Q: Tensor
        self.register_buffer("levels_Q", torch.tensor(forecaster.config.quantile_levels), persistent=False)

    def loss(self, batch: TrainingBatch) -> Tensor:
        """Return the pinball loss in the normalised units of each origin, so that every series and time counts alike."""
        sequence = batch.sequence
        top_TBD, _, _ = self.forecaster.stack(
            self.forecaster.features(sequence), *self.forecaster.stack.initial_state(sequence.time_TB.shape[1])
        )
        quantiles_OBHQ = self.forecaster.decode_normalised(sequence, top_TBD, batch.origins_O)
        mean_OB1 = sequence.mean_KTB[0][batch.origins_O].unsqueeze(-1)
        scale_OB1 = sequence.scale_KTB[0][batch.origins_O].unsqueeze(-1)
        target_OBH = to_normalised(batch.target_OBH, mean_OB1, scale_OB1, quantiles_OBHQ.dtype)
        started_OB1 = (sequence.age_TB[batch.origins_O] >= 0).unsqueeze(-1)
        return pinball(quantiles_OBHQ, target_OBH, batch.observed_OBH & started_OB1, self.levels_Q.to(quantiles_OBHQ.dtype))

    def training_step(self, batch: TrainingBatch, batch_index: int) -> Tensor:  # noqa: ARG002 (Lightning's signature)
        """Return the loss of one batch of segments."""
        loss = self.loss(batch)
        self.log("train/pinball", loss, on_step=False, on_epoch=True, batch_size=1)
        return loss

    def validation_step(self, batch: TrainingBatch, batch_index: int) -> None:  # noqa: ARG002 (Lightning's signature)
        """Log the loss over the validation origins."""
        self.log("validation/pinball", self.loss(batch), batch_size=int(batch.observed_OBH.sum()))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return AdamW with a short warm-up and a cosine decay over the planned steps."""
        optimiser = torch.optim.AdamW(self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        warm_up = max(1, min(100, self.num_steps // 10))

        def factor(step: int) -> float:
            progress = min(1.0, max(0.0, (step - warm_up) / max(1, self.num_steps - warm_up)))
            return min(1.0, (step + 1) / warm_up) * (0.02 + 0.98 * (1 + math.cos(math.pi * progress)) / 2)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
