"""The anchors of a forecast: values known at the origin that a target may be near, which the decoder mixes step by step.

The last value, the value one season before the target and its mean over the seasons in the context, and the means of the other
normalisers (the slowest one's mean is 0 in normalised units: the decoder adds it). Called by `models.forecaster`.

Letters: O origins, B series, H horizon, L context, P ticks of a season, M seasons in the context.
"""

import torch
from torch import Tensor

from models.batch import Sequence
from models.config import ForecasterConfig


def num_anchors(config: ForecasterConfig) -> int:
    """Return how many anchors `anchors` gives."""
    return 1 + len(config.seasons) + len(_averaged(config)) + len(config.half_lives)


def anchors(sequence: Sequence, context_LOB: Tensor, origins_O: Tensor, config: ForecasterConfig) -> list[Tensor]:
    """Return the anchors, (O, B, 1) or (O, B, H) float64 each, in the metric's unit.

    Args:
        sequence: around the origins.
        context_LOB: last `context_length` values of each origin, oldest first.
        origins_O: ticks of the sequence that forecast.
        config: names seasons, horizon and normalisers.
    """
    last_OB1 = context_LOB[-1].unsqueeze(-1)
    age_OB1 = sequence.age_TB[origins_O].unsqueeze(-1)
    return [
        last_OB1,
        *(_seasonal(sequence, origins_O, season, last_OB1, config) for season in config.seasons),
        *(_seasonal_mean(context_LOB, age_OB1, season, config.horizon) for season in _averaged(config)),
        *(mean_TB[origins_O].unsqueeze(-1) for mean_TB in sequence.mean_KTB[1:]),
    ]


def _averaged(config: ForecasterConfig) -> list[int]:
    """Return the seasons that the context holds at least twice: one value of each would be the seasonal anchor again."""
    return [season for season in config.seasons if config.context_length >= 2 * season]


def _seasonal(sequence: Sequence, origins_O: Tensor, season: int, last_OB1: Tensor, config: ForecasterConfig) -> Tensor:
    """Return the values (O, B, H) whole seasons before each target, the newest not after the origin; else the last."""
    step_H = torch.arange(1, config.horizon + 1, device=origins_O.device)
    back_H = step_H - season * -(-step_H // season)
    row_O1 = (origins_O + config.history_length).unsqueeze(1)
    seasonal_OBH = sequence.history_RTB[row_O1 + back_H].movedim(1, -1)
    is_there_OBH = sequence.age_TB[origins_O].unsqueeze(-1) >= -back_H
    return torch.where(is_there_OBH, seasonal_OBH, last_OB1)


def _seasonal_mean(context_LOB: Tensor, age_OB1: Tensor, season: int, horizon: int) -> Tensor:
    """Return the mean (O, B, H) of the context's values at the target's place in the season; of none, the last value."""
    num_seasons, num_places = len(context_LOB) // season, min(season, horizon)
    values_MPOB = context_LOB[-num_seasons * season :].reshape(num_seasons, season, *context_LOB.shape[1:])
    total_OBP = values_MPOB[:, :num_places].sum(dim=0).movedim(0, -1)  # what was before the first reading is 0
    newest_ago_P = torch.arange(season - 1, season - 1 - num_places, -1, device=context_LOB.device)
    count_OBP = ((age_OB1 - newest_ago_P) // season + 1).clamp(0, num_seasons)
    mean_OBP = torch.where(count_OBP > 0, total_OBP / count_OBP.clamp(min=1), context_LOB[-1].unsqueeze(-1))
    return mean_OBP.repeat(1, 1, -(-horizon // season))[..., :horizon]  # step 1 is at the place of the oldest of the last season
