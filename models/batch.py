"""The tensors between the data and the network, each with its shape; time comes first everywhere.

Letters: T ticks, B series, R history ticks before the first one, K normalisers, L layers, D hidden, O origins, H horizon,
Q quantile levels, S = T + H ticks; P past, U known-future and J static covariates, V = P + U, F features.
"""

from dataclasses import dataclass, fields
from typing import NamedTuple, Self

import torch
from torch import Tensor

from models.normaliser import SMALLEST_SCALE


class Covariates(NamedTuple):
    """What is known of B series beside the target, in its own units; columns in the order of the `ForecasterConfig`."""

    past_TBP: Tensor
    """(T, B, P) float64: measured at tick t; read only where observed, and forward only."""
    past_observed_TBP: Tensor
    """(T, B, P) bool."""
    future_SBU: Tensor
    """(S, B, U) float64: row s is tick s, and was known a horizon before it; read only where observed."""
    future_observed_SBU: Tensor
    """(S, B, U) bool."""
    static_BJ: Tensor
    """(B, J) float64, NaN where unknown."""

    @classmethod
    def of(cls, past_TBP: Tensor, future_SBU: Tensor, static_BJ: Tensor) -> Self:
        """Return covariates from values that are NaN where they are not known."""
        return cls(past_TBP, ~past_TBP.isnan(), future_SBU, ~future_SBU.isnan(), static_BJ)


class CovariateInputs(NamedTuple):
    """Covariates as the network reads them: free of unit and level, each row known at its tick."""

    past_TBF: Tensor
    """(T, B, 3 P) float64: normalised value, change since the tick before, observed mask."""
    future_SBF: Tensor
    """(S, B, 2 U) float64: normalised value (0 where unknown), mask; the rows up to t + H are known at tick t."""
    static_BJ: Tensor
    """(B, J) float64: as given."""


class Sequence(NamedTuple):
    """A stretch of T consecutive ticks of B series as the network reads it, with all the statistics known at each tick."""

    history_RTB: Tensor
    """(R + T, B) float64: values in the metric's unit, gaps filled forward, 0 before the first; row R + t is tick t."""
    mean_KTB: Tensor
    """(K, T, B) float64: exponentially weighted means after tick t."""
    scale_KTB: Tensor
    """(K, T, B) float64, > 0: exponentially weighted standard deviations after tick t."""
    observed_TB: Tensor
    """(T, B) bool: whether tick t was observed."""
    since_TB: Tensor
    """(T, B) int64: ticks since the last observation, 0 where observed."""
    age_TB: Tensor
    """(T, B) int64: ticks since the first observation of the series; negative before it."""
    time_TB: Tensor
    """(T, B) int64: label of tick t, seconds since the epoch, UTC."""
    covariates: CovariateInputs | None = None
    """Of a forecaster that has some."""

    def columns(self, some: slice) -> "Sequence":
        """Return the same stretch of some of the series."""
        covariates = self.covariates
        if covariates is not None:
            covariates = CovariateInputs(covariates.past_TBF[:, some], covariates.future_SBF[:, some], covariates.static_BJ[some])
        return Sequence(
            self.history_RTB[:, some],
            self.mean_KTB[..., some],
            self.scale_KTB[..., some],
            self.observed_TB[:, some],
            self.since_TB[:, some],
            self.age_TB[:, some],
            self.time_TB[:, some],
            covariates,
        )


class TrainingBatch(NamedTuple):
    """A batch of segments with what came true after each of their origins."""

    sequence: Sequence
    origins_O: Tensor
    """(O,) int64: the ticks of the sequence that issue a forecast, after the burn-in."""
    target_OBH: Tensor
    """(O, B, H) float64: value of the tick h steps after the origin; arbitrary where not observed."""
    observed_OBH: Tensor
    """(O, B, H) bool: whether the target exists in the period that the batch is of."""

    @property
    def scored_OBH(self) -> Tensor:
        """Which targets count (O, B, H): those that exist, of origins that have a unit.

        Nothing has one before the first reading, nor while all readings were zero: the first other value would be a billion scales
        away, and where a tenth of the origins see one (counts that begin with zeros) the outer quantiles of every series would follow.
        """
        scale_OB, age_OB = self.sequence.scale_KTB[0][self.origins_O], self.sequence.age_TB[self.origins_O]
        return self.observed_OBH & ((age_OB >= 0) & (scale_OB > SMALLEST_SCALE)).unsqueeze(-1)


@dataclass
class CarriedState:
    """All that a forecaster remembers of B series between two ticks; advancing it makes a new one."""

    h_LBD: Tensor
    """Hidden states, in the network's dtype."""
    c_LBD: Tensor
    """Cell states; of zero width for GRU layers."""
    count_B: Tensor
    """Observations seen, int64."""
    mean_KB: Tensor
    """Normaliser means, float64."""
    variance_KB: Tensor
    """Normaliser variances, float64."""
    history_RB: Tensor
    """The last R values, filled forward, oldest first, float64."""
    since_B: Tensor
    """Ticks since the last observation, int64."""
    age_B: Tensor
    """Ticks since the first observation, -1 before it, int64."""
    covariate_count_VB: Tensor
    """Statistics of the past and then the known-future covariates, as those of the target above; V is 0 without any."""
    covariate_mean_KVB: Tensor
    covariate_variance_KVB: Tensor
    covariate_last_VB: Tensor
    covariate_since_VB: Tensor
    covariate_age_VB: Tensor

    def select(self, index: Tensor) -> Self:
        """Return the state of some of the series."""
        return type(self)(**{f.name: getattr(self, f.name).index_select(_series_axis(f.name), index) for f in fields(self)})

    def replace(self, index: Tensor, other: Self) -> None:
        """Overwrite, in place, the state of the series at `index` with `other`'s."""
        for f in fields(self):
            getattr(self, f.name).index_copy_(_series_axis(f.name), index, getattr(other, f.name))

    @classmethod
    def concat(cls, states: list[Self]) -> Self:
        """Join the states of several groups of series."""
        return cls(**{f.name: torch.cat([getattr(s, f.name) for s in states], dim=_series_axis(f.name)) for f in fields(cls)})


def _series_axis(name: str) -> int:
    letters = name.rpartition("_")[2]
    return letters.index("B")
