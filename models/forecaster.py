"""The causal forecaster: features, stack and decoder, with everything it remembers in one carried state.

`advance` is the whole of serving: T new ticks of B series in, quantiles at the asked origins and the next state out.
One tick at a time or a whole history in one call give the same numbers, which is why a backtest is the live engine.
Called by `pipeline.forecast.engine` and `models.training`; imports torch alone.

Letters: T ticks, B series, R history, K normalisers, F features, D hidden, O origins, N = O * B, H horizon, L context, Q levels,
S = T + H, J static covariates.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.anchors import anchors
from models.batch import CarriedState, Covariates, Sequence
from models.calendar import calendar, num_calendar_features
from models.config import ForecasterConfig
from models.covariates import FUTURE_FEATURES, PAST_FEATURES, carried_fields, carried_statistics, encode, initial_statistics
from models.heads import QuantileDecoder
from models.highway import HighwayInputs, profile_slot
from models.normaliser import Statistics, track
from models.stacked_lstm import StackedRecurrence
from models.units import to_metric_unit, to_normalised

CHUNK_ORIGINS = 512  # origins of one decoder call when serving; a whole history, or ten thousand series, at once is three times as slow


class KnownAhead(NamedTuple):
    """What is known of the S = T + H ticks up to the last target, as the decoder reads it."""

    basis_SBR: Tensor
    """The decoder's terms of calendar and plans."""
    slot_SB: Tensor
    """Slot of the highway's profile."""


class CausalForecaster(nn.Module):
    """A stack that reads readings forward in time and forecasts quantiles of the next `horizon` ticks at any of them."""

    def __init__(self, config: ForecasterConfig) -> None:
        super().__init__()
        self.config = config
        self.calendar_interval_s = config.sample_interval_s if config.calendar else math.inf
        num_known = num_calendar_features(self.calendar_interval_s) + FUTURE_FEATURES * len(config.future_covariates)
        num_static = len(config.static_covariates)
        num_features = 4 + len(config.seasons) + 2 * (len(config.half_lives) - 1) + num_known
        num_features += PAST_FEATURES * len(config.past_covariates) + num_static
        self.stack = StackedRecurrence(num_features, config.network)
        self.decoder = QuantileDecoder(config, num_known)
        self.static_mean_J: Tensor
        self.static_scale_J: Tensor
        self.register_buffer("static_mean_J", torch.zeros(num_static), persistent=num_static > 0)
        self.register_buffer("static_scale_J", torch.ones(num_static), persistent=num_static > 0)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights; statistics and history are float64 whatever it is."""
        return self.decoder.anchor_bias_HA.dtype

    def standardise_static(self, static_BJ: Tensor) -> None:
        """Take the mean and spread of static covariates from the series trained on; NaN is unknown and does not count."""
        mean_J = static_BJ.nanmean(dim=0)
        scale_J = (static_BJ - mean_J).square().nanmean(dim=0).sqrt()
        self.static_mean_J.copy_(mean_J.nan_to_num())
        self.static_scale_J.copy_(torch.where(scale_J > 0, scale_J, 1.0))

    def initial_state(self, num_series: int) -> CarriedState:
        """Return the state of series of which nothing has been seen."""
        hidden, cell = self.stack.initial_state(num_series)
        normalisers = hidden.new_zeros((len(self.config.half_lives) + 1, num_series), dtype=torch.float64)
        counts = hidden.new_zeros(num_series, dtype=torch.int64)
        covariates = initial_statistics(self.config, counts)
        return CarriedState(
            h_LBD=hidden,
            c_LBD=cell,
            count_B=counts,
            mean_KB=normalisers,
            variance_KB=normalisers.clone(),
            history_RB=normalisers.new_zeros((self.config.history_length, num_series)),
            since_B=counts.clone(),
            age_B=counts - 1,
            **carried_fields(covariates),
        )

    def advance(
        self,
        state: CarriedState,
        values_TB: Tensor,
        observed_TB: Tensor,
        time_TB: Tensor,
        origins_O: Tensor | None = None,
        covariates: Covariates | None = None,
    ) -> tuple[Tensor, CarriedState]:
        """Read T ticks and forecast at some of them.

        Args:
            state: after the tick before the first of these.
            values_TB: float64 in the metric's unit; read only where observed.
            observed_TB: bool.
            time_TB: int64 labels in seconds since the epoch.
            origins_O: ticks, 0 … T - 1, that issue a forecast; None for the last alone.
            covariates: of the same ticks, for a forecaster that has some.

        Returns:
            Quantiles (O, B, H, Q) in the metric's unit, float64, ascending in Q, and the state after the last tick.

        Raises:
            ValueError: when the covariates are not those of the configuration.
        """
        sequence, after = self.observe(state, values_TB, observed_TB, time_TB, covariates)
        top_TBD, hidden, cell = self.stack(self.features(sequence), state.h_LBD, state.c_LBD)
        if origins_O is None:
            origins_O = torch.tensor([values_TB.shape[0] - 1], device=values_TB.device)
        return self.decode(sequence, top_TBD, origins_O), replace(after, h_LBD=hidden, c_LBD=cell)

    def observe(
        self, state: CarriedState, values_TB: Tensor, observed_TB: Tensor, time_TB: Tensor, covariates: Covariates | None = None
    ) -> tuple[Sequence, CarriedState]:
        """Advance statistics and history, not the stack; arguments as for `advance`."""
        before = Statistics(state.count_B, state.mean_KB, state.variance_KB, state.history_RB[-1], state.since_B, state.age_B)
        filled_TB, mean_KTB, scale_KTB, since_TB, age_TB, after = track(values_TB, observed_TB, self.config.half_lives, before)
        history_RTB = torch.cat([state.history_RB, filled_TB])
        sequence = Sequence(history_RTB, mean_KTB, scale_KTB, observed_TB, since_TB, age_TB, time_TB)
        sequence, state = self._observe_covariates(sequence, state, covariates)
        return sequence, replace(
            state,
            count_B=after.count_B,
            mean_KB=after.mean_KB,
            variance_KB=after.variance_KB,
            history_RB=history_RTB[-self.config.history_length :],  # a view: with ten thousand series a copy is a tenth of the step
            since_B=after.since_B,
            age_B=after.age_B,
        )

    def _observe_covariates(self, sequence: Sequence, state: CarriedState, covariates: Covariates | None) -> tuple[Sequence, CarriedState]:
        if (covariates is not None) != self.config.has_covariates:
            wanted, got = ("its", "none") if covariates is None else ("no", "some")
            raise ValueError(f"This forecaster requires {wanted} covariates; got {got}. Give what its configuration names.")
        if covariates is None:
            return sequence, state
        inputs, after = encode(covariates, carried_statistics(state), self.config)
        return sequence._replace(covariates=inputs), replace(state, **carried_fields(after))

    def features(self, sequence: Sequence) -> Tensor:
        """Return the inputs of every tick (T, B, F) in the weights' dtype; each is known at its tick and free of unit and level."""
        reach, num_ticks = self.config.history_length, sequence.time_TB.shape[0]
        mean_TB, scale_TB = sequence.mean_KTB[0], sequence.scale_KTB[0]
        now_TB = sequence.history_RTB[reach:]

        def change_since(lag: int) -> Tensor:
            change = ((now_TB - sequence.history_RTB[reach - lag : reach - lag + num_ticks]) / scale_TB).asinh()
            return torch.where(sequence.age_TB >= lag, change, 0.0)

        columns = [to_normalised(now_TB, mean_TB, scale_TB, now_TB.dtype), change_since(1), *map(change_since, self.config.seasons)]
        for other in range(1, len(self.config.half_lives)):
            columns.append(((sequence.mean_KTB[other] - mean_TB) / scale_TB).asinh())
            columns.append((sequence.scale_KTB[other] / scale_TB).log())
        columns += [sequence.observed_TB.double(), sequence.since_TB.double().log1p()]
        inputs_TBF = torch.stack(columns, dim=-1)
        started_TB1 = (sequence.age_TB >= 0).unsqueeze(-1)
        inputs_TBF = torch.where(started_TB1, inputs_TBF, 0.0)  # before the first observation there is no level to speak of
        groups = [inputs_TBF, calendar(sequence.time_TB, self.calendar_interval_s), *self._covariate_features(sequence)]
        return torch.cat(groups, dim=-1).to(self.dtype)

    def _covariate_features(self, sequence: Sequence) -> list[Tensor]:
        if sequence.covariates is None:
            return []
        past_TBF, future_SBF, static_BJ = sequence.covariates
        standard_BJ = ((static_BJ - self.static_mean_J) / self.static_scale_J).asinh().nan_to_num()
        num_ticks = past_TBF.shape[0]
        return [past_TBF, future_SBF[:num_ticks], standard_BJ.expand(num_ticks, -1, -1)]

    def decode(self, sequence: Sequence, top_TBD: Tensor, origins_O: Tensor) -> Tensor:
        """Return quantiles (O, B, H, Q), float64, in the metric's unit; in chunks that stay in the processor's cache."""
        ahead, num_series = self._known_ahead(sequence), top_TBD.shape[1]
        parts = []
        for first in range(0, max(1, num_series), CHUNK_ORIGINS):
            some = slice(first, min(first + CHUNK_ORIGINS, num_series))
            known = KnownAhead(ahead.basis_SBR[:, some], ahead.slot_SB[:, some])
            parts.append(self._metric_quantiles(sequence.columns(some), top_TBD[:, some], known, origins_O))
        return torch.cat(parts, dim=1)

    def _metric_quantiles(self, sequence: Sequence, top_TBD: Tensor, ahead: KnownAhead, origins_O: Tensor) -> Tensor:
        parts = []
        for some_O in torch.split(origins_O, max(1, CHUNK_ORIGINS // max(1, top_TBD.shape[1]))):
            mean_OB11 = sequence.mean_KTB[0][some_O][..., None, None]
            scale_OB11 = sequence.scale_KTB[0][some_O][..., None, None]
            parts.append(to_metric_unit(self._normalised_quantiles(sequence, top_TBD, ahead, some_O), mean_OB11, scale_OB11))
        return torch.cat(parts)

    def decode_normalised(self, sequence: Sequence, top_TBD: Tensor, origins_O: Tensor) -> Tensor:
        """Return quantiles (O, B, H, Q) in the normalised units of each origin, in the weights' dtype."""
        return self._normalised_quantiles(sequence, top_TBD, self._known_ahead(sequence), origins_O)

    def without_state(self, sequence: Sequence, origins_O: Tensor) -> tuple[tuple[Tensor, ...], HighwayInputs]:
        """Return the anchors, (N, 1) or (N, H) each in the normalised units of each origin, N = O * B, and what the highway reads.

        While the stack is silent these two make the median: `pipeline.train.regression` starts from them.
        """
        return self._anchors_and_inputs(sequence, profile_slot(self._times(sequence), self.config), origins_O)

    def _known_ahead(self, sequence: Sequence) -> KnownAhead:
        time_SB = self._times(sequence)
        num_series = time_SB.shape[1]
        if sequence.covariates is None and (time_SB == time_SB[:, :1]).all():
            time_SB = time_SB[:, :1]  # the calendar is the same for series that are read at the same instants
        known_SBC = calendar(time_SB, self.calendar_interval_s)
        if sequence.covariates is not None:
            known_SBC = torch.cat([known_SBC, sequence.covariates.future_SBF], dim=-1)
        basis: Tensor = self.decoder.calendar_basis(known_SBC.to(self.dtype))
        return KnownAhead(basis.expand(-1, num_series, -1), profile_slot(time_SB, self.config).expand(-1, num_series))

    def _times(self, sequence: Sequence) -> Tensor:
        """Return the labels (S, B) of all ticks up to the last target."""
        step_H1 = torch.arange(1, self.config.horizon + 1, device=sequence.time_TB.device).unsqueeze(1)
        return torch.cat([sequence.time_TB, sequence.time_TB[-1] + (step_H1 * self.config.sample_interval_s).long()])

    def _normalised_quantiles(self, sequence: Sequence, top_TBD: Tensor, ahead: KnownAhead, origins_O: Tensor) -> Tensor:
        state_OBD = top_TBD[origins_O]
        known, inputs = self._anchors_and_inputs(sequence, ahead.slot_SB, origins_O)
        basis_NHR = ahead.basis_SBR[self._targets(origins_O)].movedim(1, 2).flatten(0, 1)
        quantiles_NHQ: Tensor = self.decoder(state_OBD.flatten(0, 1), inputs, known, basis_NHR)
        return quantiles_NHQ.reshape(*state_OBD.shape[:2], *quantiles_NHQ.shape[1:])

    def _targets(self, origins_O: Tensor) -> Tensor:
        """Return the ticks (O, H) of every target."""
        return origins_O.unsqueeze(1) + torch.arange(1, self.config.horizon + 1, device=origins_O.device)

    def _anchors_and_inputs(self, sequence: Sequence, slot_SB: Tensor, origins_O: Tensor) -> tuple[tuple[Tensor, ...], HighwayInputs]:
        """Return the anchors of origins of any series, (N, 1) or (N, H) each, and what the highway reads there."""
        mean_OB, scale_OB = sequence.mean_KTB[0][origins_O], sequence.scale_KTB[0][origins_O]
        ago_L1 = torch.arange(self.config.context_length - 1, -1, -1, device=origins_O.device).unsqueeze(1)
        row_LO = origins_O + self.config.history_length - ago_L1
        context_LOB = sequence.history_RTB.index_select(0, row_LO.flatten()).reshape(*row_LO.shape, mean_OB.shape[1])
        # 1 from the first reading on, 0 before: a comparison and `where` would take ten times as long.
        is_there_LOB = ((sequence.age_TB[origins_O] + 1).to(self.dtype) - ago_L1.unsqueeze(-1)).clamp(0, 1)
        found = anchors(sequence, context_LOB, origins_O, self.config)
        known_OBA = to_normalised(torch.cat(found, dim=-1), mean_OB.unsqueeze(-1), scale_OB.unsqueeze(-1), self.dtype)
        known = torch.split(known_OBA.flatten(0, 1), [anchor.shape[-1] for anchor in found], dim=-1)
        target_OH = self._targets(origins_O)
        nothing_OB0 = mean_OB.new_zeros((*mean_OB.shape, 0), dtype=self.dtype)
        measured_OBV, planned_OBHU = nothing_OB0, nothing_OB0.unsqueeze(2).expand(-1, -1, self.config.horizon, -1)
        if sequence.covariates is not None:
            measured_OBV = sequence.covariates.past_TBF[origins_O].to(self.dtype)
            planned_OBHU = sequence.covariates.future_SBF[target_OH].movedim(1, 2).to(self.dtype)
        return known, HighwayInputs(
            context_NL=(to_normalised(context_LOB, mean_OB, scale_OB, self.dtype) * is_there_LOB).flatten(1).T,
            levels_NK=torch.cat(known[-len(self.config.half_lives) :], dim=-1),
            measured_NV=measured_OBV.flatten(0, 1),
            planned_NHU=planned_OBHU.flatten(0, 1),
            slot_NH=slot_SB[target_OH].movedim(1, -1).flatten(0, 1),
        )
