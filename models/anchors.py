"""The anchors of a forecast: values known at the origin that a target may be near, which the decoder mixes step by step.

The last value, the value one season before the target and its mean over the seasons in the context, and the means of the other
normalisers (the slowest one's mean is 0 in normalised units: the decoder adds it). Called by `models.forecaster`.

Letters: O origins, B series, H horizon, L context, P ticks of a season.
"""

import torch
from torch import Tensor

from models.batch import Sequence
from models.config import ForecasterConfig


def num_anchors(config: ForecasterConfig) -> int:
    """Return how many anchors `anchors` gives."""
    return 1 + len(config.seasons) + len(_averaged(config)) + len(config.half_lives)


def anchors(sequence: Sequence, context_OBL: Tensor, origins_O: Tensor, config: ForecasterConfig) -> list[Tensor]:
    """Return the anchors, (O, B, 1) or (O, B, H) float64 each, in the metric's unit.

    Args:
        sequence: around the origins.
        context_OBL: last `context_length` values of each origin, oldest first.
        origins_O: ticks of the sequence that forecast.
        config: names seasons, horizon and normalisers.
    """
    last_OB1 = context_OBL[..., -1:]
    age_OB1 = sequence.age_TB[origins_O].unsqueeze(-1)
    return [
        last_OB1,
        *(_seasonal(sequence, origins_O, season, last_OB1, config) for season in config.seasons),
        *(_seasonal_mean(context_OBL, age_OB1, season, config.horizon) for season in _averaged(config)),
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


def _seasonal_mean(context_OBL: Tensor, age_OB1: Tensor, season: int, horizon: int) -> Tensor:
    """Return the mean (O, B, H) of the context's values at the target's place in the season; of none, the last value."""
    num_seasons, length = context_OBL.shape[-1] // season, context_OBL.shape[-1]
    ago_L = torch.arange(length - 1, -1, -1, device=context_OBL.device)
    is_there_OBL = age_OB1 >= ago_L
    whole = slice(length - num_seasons * season, length)
    shape = (*context_OBL.shape[:-1], num_seasons, season)
    counted, values = is_there_OBL[..., whole].reshape(shape), context_OBL[..., whole].reshape(shape)
    count_OBP = counted.sum(dim=-2)
    total_OBP = torch.where(counted, values, 0.0).sum(dim=-2)
    mean_OBP = torch.where(count_OBP > 0, total_OBP / count_OBP.clamp(min=1), context_OBL[..., -1:])
    place_H = torch.arange(horizon, device=context_OBL.device) % season  # step 1 is at the place of the oldest of the last season
    return mean_OBP[..., place_H]
