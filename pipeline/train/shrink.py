"""How far from the regression's weights towards the best epoch's: as far as the validation period can tell, and no further.

Half-way, half of what the stack has over-fitted is gone and three quarters of its gain are left. Of the weights on that line the ones
nearest to the regression are taken whose loss is within a standard error of the least: a validation period of three horizons holds three
independent forecasts, and a gain of 2 % on them says nothing. Called by `pipeline.train.fit`.

Sources: Wortsman et al. 2022, "Robust fine-tuning of zero-shot models"; Breiman et al. 1984, "Classification and Regression Trees",
section 3.4.3, the rule of one standard error.

Letters: O origins, B series, H horizon, G groups of origins.
"""

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from models.batch import TrainingBatch
from models.training import ForecasterTraining

logger = logging.getLogger(__name__)

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the way from the regression's weights


def shrink(
    module: ForecasterTraining, start: Mapping[str, Tensor], best: Mapping[str, Tensor], validation: TrainingBatch
) -> dict[str, Tensor]:
    """Return weights between the regression's and the best epoch's.

    Args:
        module: whose averaged forecaster is used to try them.
        start: weights of the regression.
        best: weights of the best epoch, of the same names.
        validation: origins that choose.
    """
    losses = {}
    for share in SHARES:
        module.averaged.load_state_dict({name: start[name].lerp(best[name], share) for name in best})
        with torch.no_grad():
            losses[share] = losses_of_groups(module, validation)
    share = least_share(losses)
    logger.info("weights on the way from the regression share=%g validation_loss=%.5f", share, float(losses[share].sum()))
    return {name: start[name].lerp(best[name], share) for name in best}


def losses_of_groups(module: ForecasterTraining, batch: TrainingBatch) -> Tensor:
    """Return what each group of origins adds to the validation loss (G,), float64.

    A group is a horizon of all series, which share their weather; where all origins lie closer together, a series.
    """
    loss_OBH, scored_OBH = module.losses(module.averaged.eval(), batch)
    loss_OB = loss_OBH.sum(dim=-1).double() / scored_OBH.sum().clamp(min=1)
    group_O = (batch.origins_O - batch.origins_O[0]) // module.forecaster.config.horizon
    num_groups = int(group_O[-1]) + 1
    if num_groups == 1:
        return loss_OB.sum(dim=0)
    return loss_OB.new_zeros(num_groups).index_add_(0, group_O, loss_OB.sum(dim=1))


def least_share(losses: Mapping[float, Tensor]) -> float:
    """Return the least share whose loss, the sum of its groups' (G,), exceeds the least one by no more than its standard error."""
    best = min(losses, key=lambda share: float(losses[share].sum()))
    for share in sorted(losses):
        excess_G = losses[share] - losses[best]
        if len(excess_G) > 1 and excess_G.sum() <= excess_G.std() * len(excess_G) ** 0.5:
            return share
    return best
