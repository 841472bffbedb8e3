"""The highway before the stack: a ridge regression for each step, fitted in closed form, in seconds.

Gradients would take a hundred epochs to get there, and the stack would over-fit meanwhile. The absolute error is minimised by least
squares whose weights are renewed (Schlossmacher 1973, "An Iterative Technique for Absolute Deviations Curve Fitting"), since the
highway adds to a median. How much each block of regressors is held back is chosen on the validation period, block by block.
Called by `pipeline.train.fit`.

Letters as in `models.highway`; N origins of any series and tick, G steps that choose the penalties.
"""

import logging
from typing import NamedTuple

import torch
from torch import Tensor

from models.batch import TrainingBatch
from models.forecaster import CausalForecaster
from models.highway import Highway, HighwayInputs
from models.training import normalised_targets
from pipeline.train.datamodule import History, slice_batch

logger = logging.getLogger(__name__)

RENEWALS = 3  # of the weights, each after a least-squares fit
FLOPS = 2e12  # of all fits together: half a minute of one core
MOST_ROWS, FEWEST_ROWS = 20_000, 2_000  # origins of the regression; neighbouring ones say much the same
HELD_OUT_ROWS = 5_000
CHOOSING_STEPS = 16
SMALLEST_ERROR = 0.1  # of the step's median error: below it, every error weighs alike
PENALTY_STEP = 10**0.5
FIRST_PENALTY, PENALTIES = -2, range(-8, 4)  # powers of the step: 0.1, and 1e-4 to 32 times the mean square of a standardised regressor
SLICE = 4_096  # origins cut out of the history at once


class _Sample(NamedTuple):
    """Origins with what the highway reads there and what it should have added."""

    inputs: HighwayInputs
    wanted_NH: Tensor
    """Targets less the mix of anchors, in the normalised units of each origin; 0 where not observed."""
    observed_NH: Tensor


class _Moments(NamedTuple):
    """What least squares needs of one step, or, with another axis in front, of several."""

    gram_FF: Tensor
    """Weighted means of regressor times regressor, float64."""
    moment_F: Tensor
    """Weighted means of regressor times what is wanted."""


def fit_highway(forecaster: CausalForecaster, history: History, validation: TrainingBatch) -> None:
    """Fit the highway, in place, to what the anchors leave of the targets, and let the quantiles start at its errors.

    Args:
        forecaster: untrained.
        history: of the training period.
        validation: origins after it, which choose the penalties.
    """
    highway = forecaster.decoder.highway
    train = _sample_history(forecaster, history)
    while_renewing, penalties = _choose(highway, train, _sample(forecaster, _thinned(validation)))
    strong_F, penalty_F = _diagonal(highway, while_renewing), _diagonal(highway, penalties)
    levels_Q = torch.tensor(forecaster.config.quantile_levels, dtype=forecaster.dtype)
    quantiles = []
    for row in range(highway.horizon):
        x_NF, wanted_N, observed_N = highway.regressors(train.inputs, row + 1), train.wanted_NH[:, row], train.observed_NH[:, row]
        weight_F = _solve(_moments(x_NF, wanted_N, observed_N, strong_F, RENEWALS), penalty_F).to(forecaster.dtype)
        highway.weight_HF.data[row] = weight_F
        quantiles.append(torch.where(observed_N, wanted_N - x_NF @ weight_F, torch.nan).nanquantile(levels_Q))
    forecaster.decoder.start_spread(torch.stack(quantiles, dim=1))
    chosen = " ".join(f"{name}={PENALTY_STEP**power:.2g}" for name, power in penalties.items() if highway.blocks[name])
    logger.info("fitted the highway rows=%d penalties: %s", len(train.wanted_NH), chosen)


def _sample_history(forecaster: CausalForecaster, history: History) -> _Sample:
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
        _sample(forecaster, slice_batch(history, forecaster.config, rows, columns, 1, first_O))
        for rows, columns in zip(torch.split(row_N, SLICE), torch.split(column_N, SLICE), strict=True)
    ]
    inputs, wanted, observed = zip(*parts, strict=True)
    return _Sample(HighwayInputs(*(torch.cat(part) for part in zip(*inputs, strict=True))), torch.cat(wanted), torch.cat(observed))


def _sample(forecaster: CausalForecaster, batch: TrainingBatch) -> _Sample:
    with torch.no_grad():
        mixed_NH, inputs = forecaster.without_state(batch.sequence, batch.origins_O)
    target_OBH, observed_OBH = normalised_targets(batch, forecaster.dtype)
    observed_NH = observed_OBH.flatten(0, 1)
    return _Sample(inputs, torch.where(observed_NH, target_OBH.flatten(0, 1) - mixed_NH, 0.0), observed_NH)


def _thinned(batch: TrainingBatch) -> TrainingBatch:
    """Keep as many origins as choose well enough, at random for the same reason."""
    num_origins, num_series = batch.observed_OBH.shape[:2]
    kept_O = torch.randperm(num_origins, generator=torch.Generator().manual_seed(0))[: -(-HELD_OUT_ROWS // num_series)].sort().values
    return batch._replace(origins_O=batch.origins_O[kept_O], target_OBH=batch.target_OBH[kept_O], observed_OBH=batch.observed_OBH[kept_O])


def _moments(x_NF: Tensor, wanted_N: Tensor, observed_N: Tensor, penalty_F: Tensor, renewals: int) -> _Moments:
    """Return the moments of one step after its weights were renewed so often: each by the errors that the last ones left."""
    weight_N = observed_N.to(x_NF.dtype)
    while True:
        weighted_FN = (x_NF * (weight_N / weight_N.sum().clamp(min=1e-9)).unsqueeze(1)).T
        moments = _Moments((weighted_FN @ x_NF).double(), (weighted_FN @ wanted_N).double())
        if not renewals:
            return moments
        renewals -= 1
        error_N = (wanted_N - x_NF @ _solve(moments, penalty_F).to(x_NF.dtype)).abs()
        smallest = (SMALLEST_ERROR * error_N[observed_N].nanmedian()).nan_to_num(nan=1.0).clamp(min=1e-6)
        weight_N = observed_N / torch.maximum(error_N, smallest)


def _diagonal(highway: Highway, penalties: dict[str, int]) -> Tensor:
    """Return the penalty of every regressor (F,)."""
    return torch.cat([torch.full((width,), PENALTY_STEP ** penalties[name], dtype=torch.float64) for name, width in highway.blocks.items()])


def _solve(moments: _Moments, penalty_F: Tensor) -> Tensor:
    """Return the weights (..., F), float64; 0 where the moments are no numbers to work with."""
    factor_FF, failed = torch.linalg.cholesky_ex(moments.gram_FF + torch.diag(penalty_F))
    weight_F = torch.cholesky_solve(moments.moment_F.unsqueeze(-1), factor_FF).squeeze(-1)
    return torch.where((failed == 0).unsqueeze(-1), weight_F, 0.0).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def _choose(highway: Highway, train: _Sample, held_out: _Sample) -> tuple[dict[str, int], dict[str, int]]:
    """Return the penalties of least squares and of least absolute errors: powers of their step for each block, the best held out.

    Only some of the steps choose. The first are the stronger ones, and errors must come from them when weights are renewed: what is
    fitted closely would weigh ever more otherwise.
    """
    rows = torch.linspace(0, highway.horizon - 1, min(CHOOSING_STEPS, highway.horizon)).round().long().tolist()
    chosen = [dict.fromkeys(highway.blocks, FIRST_PENALTY)]
    for renewals in (0, RENEWALS):
        penalty_F = _diagonal(highway, chosen[-1])
        parts = [
            _moments(highway.regressors(train.inputs, row + 1), train.wanted_NH[:, row], train.observed_NH[:, row], penalty_F, renewals)
            for row in rows
        ]
        moments = _Moments(*(torch.stack(part) for part in zip(*parts, strict=True)))
        chosen.append(_descend(highway, moments, held_out, rows, chosen[-1]))
    return chosen[1], chosen[2]


def _descend(highway: Highway, moments: _Moments, held_out: _Sample, rows: list[int], start: dict[str, int]) -> dict[str, int]:
    """Move one penalty after the other, a step at a time, until no step leaves less error held out."""
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
    return best
