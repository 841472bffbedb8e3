"""The highway before the stack: a ridge regression for each step, fitted in closed form, in seconds.

Gradients would take a hundred epochs to get there, and the stack would over-fit meanwhile. The absolute error is minimised by least
squares whose weights are renewed (`pipeline.train.least_absolute`), since the highway adds to a median. How much each block of
regressors is held back is chosen on the validation period, block by block, and so is whether it starts from equal shares of the anchors
or from the best ones. Called by `pipeline.train.fit`.

Letters as in `models.highway`; N origins of any series and tick, G steps that choose the penalties.
"""

import logging
import math
from typing import NamedTuple

import torch
from torch import Tensor

from models.batch import TrainingBatch
from models.forecaster import CausalForecaster
from models.heads import QuantileDecoder
from models.highway import Highway, HighwayInputs
from models.training import normalised_targets
from pipeline.train.anchor_mix import fit_mix
from pipeline.train.datamodule import History, slice_batch
from pipeline.train.least_absolute import RENEWALS, Moments, renewed_weights, stacked, weighted_moments

logger = logging.getLogger(__name__)

FLOPS = 2e12  # of all fits together: half a minute of one core
MOST_ROWS, FEWEST_ROWS = 20_000, 2_000  # origins of the regression; neighbouring ones say much the same
HELD_OUT_ROWS = 5_000
CHOOSING_STEPS = 16
PENALTY_STEP = 10**0.5
FIRST_PENALTY, PENALTIES = -2, range(-8, 4)  # powers of the step: 0.1, and 1e-4 to 32 times the mean square of a standardised regressor
SLICE = 4_096  # origins cut out of the history at once


class _Origins(NamedTuple):
    """What the decoder reads at some origins, and what came true."""

    inputs: HighwayInputs
    anchors: tuple[Tensor, ...]
    """(N, 1) or (N, H) each, in the normalised units of each origin, as are the targets."""
    target_NH: Tensor
    observed_NH: Tensor


class _Sample(NamedTuple):
    """Origins with what the highway reads there and what it should have added."""

    inputs: HighwayInputs
    wanted_NH: Tensor
    """Targets less the mix of anchors, in the normalised units of each origin; 0 where not observed."""
    observed_NH: Tensor


class _Choice(NamedTuple):
    """A way to fit: how the anchors are mixed, and how much each block of regressors is held back, in powers of the step."""

    share_HA: Tensor
    while_renewing: dict[str, int]
    penalties: dict[str, int]
    error: float
    """Sum of the absolute errors held out."""


def fit_highway(forecaster: CausalForecaster, history: History, validation: TrainingBatch) -> None:
    """Fit the highway, in place, to what the anchors leave of the targets, and let the quantiles start at its errors.

    Args:
        forecaster: untrained.
        history: of the training period.
        validation: origins after it, which choose the penalties.
    """
    decoder, highway = forecaster.decoder, forecaster.decoder.highway
    origins, held_out = _origins_of_history(forecaster, history), _origins(forecaster, _thinned(validation))
    best_HA = fit_mix(origins.anchors, origins.target_NH, origins.observed_NH)
    equal_HA = torch.full_like(best_HA, 1 / best_HA.shape[1])
    chosen = min((_choose(decoder, origins, held_out, share_HA) for share_HA in (equal_HA, best_HA)), key=lambda choice: choice.error)
    decoder.start_mix(chosen.share_HA)
    train = _sample(decoder, origins)
    strong_F, penalty_F = _diagonal(highway, chosen.while_renewing), _diagonal(highway, chosen.penalties)
    levels_Q = torch.tensor(forecaster.config.quantile_levels, dtype=forecaster.dtype)
    quantiles = []
    for row in range(highway.horizon):
        x_NF, wanted_N, observed_N = highway.regressors(train.inputs, row + 1), train.wanted_NH[:, row], train.observed_NH[:, row]
        weight_F = _solve(_moments(x_NF, wanted_N, observed_N, strong_F, RENEWALS), penalty_F).to(forecaster.dtype)
        highway.weight_HF.data[row] = weight_F
        quantiles.append(torch.where(observed_N, wanted_N - x_NF @ weight_F, torch.nan).nanquantile(levels_Q))
    decoder.start_spread(torch.stack(quantiles, dim=1))
    told = " ".join(f"{name}={PENALTY_STEP**power:.2g}" for name, power in chosen.penalties.items() if highway.blocks[name])
    mix = "equal" if chosen.share_HA is equal_HA else "fitted"
    logger.info("fitted the highway rows=%d anchors=%s penalties: %s", len(train.wanted_NH), mix, told)


def _origins_of_history(forecaster: CausalForecaster, history: History) -> _Origins:
    """Return as many origins as the fits can afford, spread over all ticks of all series, one at random out of each stretch.

    At random, for every n-th tick may always be the same hour of the day.
    """
    num_regressors = forecaster.decoder.highway.weight_HF.shape[1]
    affordable = int(FLOPS / (2 * (RENEWALS + 1) * num_regressors**2 * forecaster.config.horizon))
    ticks_B = (history.length_B - history.first_B - 1).clamp(min=0)  # the last has no target
    end_B = ticks_B.cumsum(0)
    num_ticks = int(end_B[-1])
    num_rows = min(num_ticks, MOST_ROWS, max(FEWEST_ROWS, affordable))
    within_N = torch.rand(num_rows, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    chosen_N = ((torch.arange(num_rows) + within_N) * (num_ticks / num_rows)).long()
    column_N = torch.searchsorted(end_B, chosen_N, right=True)
    row_N = history.first_B[column_N] + chosen_N - (end_B - ticks_B)[column_N]
    first_O = torch.zeros(1, dtype=torch.int64)
    parts = [
        _origins(forecaster, slice_batch(history, forecaster.config, rows, columns, 1, first_O))
        for rows, columns in zip(torch.split(row_N, SLICE), torch.split(column_N, SLICE), strict=True)
    ]
    inputs, anchors, target, observed = zip(*parts, strict=True)
    joined = HighwayInputs(*(torch.cat(part) for part in zip(*inputs, strict=True)))
    return _Origins(joined, tuple(torch.cat(part) for part in zip(*anchors, strict=True)), torch.cat(target), torch.cat(observed))


def _origins(forecaster: CausalForecaster, batch: TrainingBatch) -> _Origins:
    with torch.no_grad():
        anchors, inputs = forecaster.without_state(batch.sequence, batch.origins_O)
    target_OBH, observed_OBH = normalised_targets(batch, forecaster.dtype)
    return _Origins(inputs, anchors, target_OBH.flatten(0, 1), observed_OBH.flatten(0, 1))


def _sample(decoder: QuantileDecoder, origins: _Origins) -> _Sample:
    """Leave the mix of anchors out of the targets, as the silent stack mixes them."""
    silent_ND = origins.target_NH.new_zeros((len(origins.target_NH), decoder.anchor_gate.in_features))
    with torch.no_grad():
        left_NH = origins.target_NH - decoder.mix(silent_ND, origins.anchors)
    return _Sample(origins.inputs, torch.where(origins.observed_NH, left_NH, 0.0), origins.observed_NH)


def _thinned(batch: TrainingBatch) -> TrainingBatch:
    """Keep as many origins as choose well enough, at random for the same reason."""
    num_origins, num_series = batch.observed_OBH.shape[:2]
    kept_O = torch.randperm(num_origins, generator=torch.Generator().manual_seed(0))[: -(-HELD_OUT_ROWS // num_series)].sort().values
    return batch._replace(origins_O=batch.origins_O[kept_O], target_OBH=batch.target_OBH[kept_O], observed_OBH=batch.observed_OBH[kept_O])


def _moments(x_NF: Tensor, wanted_N: Tensor, observed_N: Tensor, penalty_F: Tensor, renewals: int) -> Moments:
    """Return the moments of one step after its weights were renewed so often."""
    moments = weighted_moments(x_NF, wanted_N, observed_N.to(x_NF.dtype))
    for _ in range(renewals):
        error_N = wanted_N - x_NF @ _solve(moments, penalty_F).to(x_NF.dtype)
        moments = weighted_moments(x_NF, wanted_N, renewed_weights(error_N, observed_N))
    return moments


def _diagonal(highway: Highway, penalties: dict[str, int]) -> Tensor:
    """Return the penalty of every regressor (F,)."""
    return torch.cat([torch.full((width,), PENALTY_STEP ** penalties[name], dtype=torch.float64) for name, width in highway.blocks.items()])


def _solve(moments: Moments, penalty_F: Tensor) -> Tensor:
    """Return the weights (..., F), float64; 0 where the moments are no numbers to work with."""
    factor_FF, failed = torch.linalg.cholesky_ex(moments.gram_FF + torch.diag(penalty_F))
    weight_F = torch.cholesky_solve(moments.moment_F.unsqueeze(-1), factor_FF).squeeze(-1)
    return torch.where((failed == 0).unsqueeze(-1), weight_F, 0.0).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def _choose(decoder: QuantileDecoder, origins: _Origins, held_out_origins: _Origins, share_HA: Tensor) -> _Choice:
    """Return the penalties of least squares and of least absolute errors that are best held out, for a mix of anchors.

    Only some of the steps choose. The first penalties are the stronger ones, and errors must come from them when weights are renewed:
    what is fitted closely would weigh ever more otherwise.
    """
    decoder.start_mix(share_HA)
    highway, train, held_out = decoder.highway, _sample(decoder, origins), _sample(decoder, held_out_origins)
    rows = torch.linspace(0, highway.horizon - 1, min(CHOOSING_STEPS, highway.horizon)).round().long().tolist()
    chosen, error = [dict.fromkeys(highway.blocks, FIRST_PENALTY)], math.inf
    for renewals in (0, RENEWALS):
        penalty_F = _diagonal(highway, chosen[-1])
        parts = [
            _moments(highway.regressors(train.inputs, row + 1), train.wanted_NH[:, row], train.observed_NH[:, row], penalty_F, renewals)
            for row in rows
        ]
        moments = stacked(parts)
        penalties, error = _descend(highway, moments, held_out, rows, chosen[-1])
        chosen.append(penalties)
    return _Choice(share_HA, chosen[1], chosen[2], error)


def _descend(highway: Highway, moments: Moments, held_out: _Sample, rows: list[int], start: dict[str, int]) -> tuple[dict[str, int], float]:
    """Move one penalty after the other, a step at a time, until no step leaves less error held out; return them and that error."""
    x_GNF = torch.stack([highway.regressors(held_out.inputs, row + 1) for row in rows])
    wanted_GN, observed_GN = held_out.wanted_NH.T[rows], held_out.observed_NH.T[rows]
    known: dict[tuple[int, ...], float] = {}

    def error(penalties: dict[str, int]) -> float:
        key = tuple(penalties.values())
        if key not in known:
            weight_GF = _solve(moments, _diagonal(highway, penalties)).to(x_GNF.dtype)
            left_GN = wanted_GN - torch.bmm(x_GNF, weight_GF.unsqueeze(-1)).squeeze(-1)
            known[key] = float((left_GN.abs() * observed_GN).sum())
        return known[key]

    best, moved = start, True
    while moved:
        moved = False
        for name in (name for name, width in highway.blocks.items() if width):
            nearby = [{**best, name: penalty} for penalty in (best[name] - 1, best[name] + 1) if penalty in PENALTIES]
            better = min(nearby, key=error)
            if error(better) < error(best):
                best, moved = better, True
    return best, error(best)
