"""What the network reads of covariates: each is normalised by causal statistics of its own, which are part of the carried state.

A past covariate is read forward, as the target is. A known-future one has one normalised value for each tick, by the statistics of the
plan up to that tick: an origin knows its plan a horizon ahead, so these rows are as legitimate as the calendar.
Called by `models.forecaster`.

Letters: T ticks, H horizon, S = T + H, B series, P past and U known-future covariates, V = P + U, K normalisers, F features.
"""

import torch
from torch import Tensor

from models.batch import CarriedState, CovariateInputs, Covariates
from models.config import ForecasterConfig
from models.normaliser import Statistics, Tracked, track

PAST_FEATURES = 3  # of each past covariate: value, change, mask
FUTURE_FEATURES = 2  # of each known-future covariate: value, mask


def initial_statistics(config: ForecasterConfig, like_B: Tensor) -> Statistics:
    """Return the statistics (V, B) of covariates of which nothing has been seen, on the device of `like_B`."""
    shape = (len(config.past_covariates) + len(config.future_covariates), *like_B.shape)
    counts = like_B.new_zeros(shape, dtype=torch.int64)
    moments = like_B.new_zeros((2, *shape), dtype=torch.float64)
    return Statistics(counts, moments, moments.clone(), moments[0].clone(), counts.clone(), counts - 1)


def carried_statistics(state: CarriedState) -> Statistics:
    """Return the statistics (V, B) of the covariates in a carried state."""
    return Statistics(
        state.covariate_count_VB,
        state.covariate_mean_KVB,
        state.covariate_variance_KVB,
        state.covariate_last_VB,
        state.covariate_since_VB,
        state.covariate_age_VB,
    )


def carried_fields(statistics: Statistics) -> dict[str, Tensor]:
    """Return statistics (V, B) as the fields of a carried state: the inverse of `carried_statistics`."""
    return {
        "covariate_count_VB": statistics.count_B,
        "covariate_mean_KVB": statistics.mean_KB,
        "covariate_variance_KVB": statistics.variance_KB,
        "covariate_last_VB": statistics.last_B,
        "covariate_since_VB": statistics.since_B,
        "covariate_age_VB": statistics.age_B,
    }


def encode(covariates: Covariates, before: Statistics, config: ForecasterConfig) -> tuple[CovariateInputs, Statistics]:
    """Normalise covariates and advance their statistics through T ticks.

    Args:
        covariates: of T ticks, and H more of the plan.
        before: statistics (V, B) after the tick before the first.
        config: names the covariates; its slowest half-life is theirs.

    Returns:
        The inputs, and the statistics after the last of the T ticks: what is read ahead is not carried.

    Raises:
        ValueError: when the covariates are not those of the configuration.
    """
    num_ticks, num_past = covariates.past_TBP.shape[0], len(config.past_covariates)
    _require_matching(covariates, config)
    values_TVB = torch.cat([covariates.past_TBP, covariates.future_SBU[:num_ticks]], dim=-1).movedim(-1, 1)
    observed_TVB = torch.cat([covariates.past_observed_TBP, covariates.future_observed_SBU[:num_ticks]], dim=-1).movedim(-1, 1)
    tracked = _track(values_TVB, observed_TVB, before, config)
    past_TBF = _past_inputs(tracked, observed_TVB, before.last_B, num_past)
    planned = Statistics(*(part[..., num_past:, :] for part in tracked.after))
    plan_SUB, mask_SUB = covariates.future_SBU.movedim(-1, 1), covariates.future_observed_SBU.movedim(-1, 1)
    ahead = _track(plan_SUB[num_ticks:], mask_SUB[num_ticks:], planned, config)
    future_SUB = torch.cat([_normalised(tracked)[:, num_past:], _normalised(ahead)])
    future_SUB = torch.where(mask_SUB, future_SUB, 0.0)
    future_SBF = torch.cat([future_SUB, mask_SUB.double()], dim=1).movedim(1, -1)
    return CovariateInputs(past_TBF, future_SBF, covariates.static_BJ), tracked.after


def _past_inputs(tracked: Tracked, observed_TVB: Tensor, last_VB: Tensor, num_past: int) -> Tensor:
    """Return (T, B, 3 P): what a covariate is, how it has moved since the tick before, whether it was observed."""
    before_TVB = torch.cat([last_VB.unsqueeze(0), tracked.filled_TB[:-1]])
    change_TVB = ((tracked.filled_TB - before_TVB) / tracked.scale_KTB[0]).asinh()
    change_TVB = torch.where(tracked.age_TB >= 1, change_TVB, 0.0)
    parts = (_normalised(tracked), change_TVB, observed_TVB.double())
    return torch.cat([part[:, :num_past] for part in parts], dim=1).movedim(1, -1)


def _normalised(tracked: Tracked) -> Tensor:
    """Return asinh((x - m) / s), 0 before the first observation.

    The statistics of a tick have read its value, and v >= (1 - a) a d^2, so |x - m| / s is at most sqrt(1/a - 1): the first 1 of a
    flag that was 0 for months counts and does not shout (3.8 at a half-life of 336 ticks), and needs no rule of its own.
    """
    z_TVB = ((tracked.filled_TB - tracked.mean_KTB[0]) / tracked.scale_KTB[0]).asinh()
    return torch.where(tracked.age_TB >= 0, z_TVB, 0.0)


def _track(values_TVB: Tensor, observed_TVB: Tensor, before: Statistics, config: ForecasterConfig) -> Tracked:
    """Run the normaliser over V x B series at once; everything keeps its two axes V and B."""
    shape = values_TVB.shape[1:]
    flat = Statistics(*(part.flatten(-2) for part in before))
    tracked = track(values_TVB.flatten(1), observed_TVB.flatten(1), config.half_lives[:1], flat)
    after = Statistics(*(part.reshape(*part.shape[:-1], *shape) for part in tracked.after))
    filled, mean, scale, since, age = (part.reshape(*part.shape[:-1], *shape) for part in tracked[:-1])
    return Tracked(filled, mean, scale, since, age, after)


def _require_matching(covariates: Covariates, config: ForecasterConfig) -> None:
    got = covariates.past_TBP.shape[-1], covariates.future_SBU.shape[-1], covariates.static_BJ.shape[-1]
    wanted = len(config.past_covariates), len(config.future_covariates), len(config.static_covariates)
    num_rows = covariates.past_TBP.shape[0] + config.horizon
    if got != wanted or covariates.future_SBU.shape[0] != num_rows:
        raise ValueError(
            f"A forecaster requires {wanted} past, known-future and static covariates and {num_rows} rows of known-future ones; "
            f"got {got} and {covariates.future_SBU.shape[0]}. Give what its configuration names, NaN where it is not known."
        )
