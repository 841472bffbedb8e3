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

NUM_PASSES = 4  # of least squares
FLOPS = 4e11  # of all passes together: ten seconds of one core
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

    def every(self, stride: int) -> "_Sample":
        """Return each stride-th origin."""
        index = torch.arange(0, len(self.wanted_NH), stride)
        return _Sample(self.inputs.select(index), self.wanted_NH[index], self.observed_NH[index])


def fit_highway(forecaster: CausalForecaster, history: History, validation: TrainingBatch) -> None:
    """Fit the highway, in place, to what the anchors leave of the targets, and let the quantiles start at its errors.

    Args:
        forecaster: untrained.
        history: of the training period.
        validation: origins after it, which choose the penalties.
    """
    highway = forecaster.decoder.highway
    train, held_out = _sample_history(forecaster, history), _sample(forecaster, validation)
    held_out = held_out.every(-(-len(held_out.wanted_NH) // HELD_OUT_ROWS))
    weight_NH = train.observed_NH.to(forecaster.dtype)
    penalties = dict.fromkeys(highway.blocks, FIRST_PENALTY)
    for number in range(NUM_PASSES):
        gram_HFF, moment_HF = _moments(highway, train, weight_NH)
        if number in (0, NUM_PASSES - 1):
            penalties = _choose(highway, gram_HFF, moment_HF, held_out, penalties)
        highway.weight_HF.data.copy_(_solve(gram_HFF, moment_HF, _diagonal(highway, penalties)))
        with torch.no_grad():
            error_NH = train.wanted_NH - highway(train.inputs)
        seen_NH = torch.where(train.observed_NH, error_NH, torch.nan)
        floor_H = (SMALLEST_ERROR * seen_NH.abs().nanmedian(dim=0).values).nan_to_num(nan=1.0).clamp(min=1e-6)
        weight_NH = train.observed_NH / torch.maximum(error_NH.abs(), floor_H)
    levels_Q = torch.tensor(forecaster.config.quantile_levels, dtype=seen_NH.dtype)
    forecaster.decoder.start_spread(seen_NH.nanquantile(levels_Q, dim=0))
    chosen = " ".join(f"{name}={PENALTY_STEP**power:.2g}" for name, power in penalties.items() if highway.blocks[name])
    logger.info("fitted the highway rows=%d penalties: %s", len(weight_NH), chosen)


def _sample_history(forecaster: CausalForecaster, history: History) -> _Sample:
    """Return origins spread evenly over all ticks of all series, as many as the passes can afford."""
    num_regressors = forecaster.decoder.highway.weight_HF.shape[1]
    affordable = FLOPS / (2 * NUM_PASSES * num_regressors**2 * forecaster.config.horizon)
    ticks_B = (history.length_B - history.first_B - 1).clamp(min=0)  # the last has no target
    end_B = ticks_B.cumsum(0)
    stride = max(1, -(-int(end_B[-1]) // int(min(MOST_ROWS, max(FEWEST_ROWS, affordable)))))
    chosen_N = torch.arange(stride // 2 if stride <= int(end_B[-1]) else 0, int(end_B[-1]), stride)
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


def _moments(highway: Highway, sample: _Sample, weight_NH: Tensor) -> tuple[Tensor, Tensor]:
    """Return weighted means of regressor times regressor (H, F, F) and times what is wanted (H, F), float64."""
    share_NH = weight_NH / weight_NH.sum(dim=0).clamp(min=1e-9)
    grams, moments = [], []
    for step in range(1, highway.horizon + 1):
        x_NF = highway.regressors(sample.inputs, step)
        weighted_FN = (x_NF * share_NH[:, step - 1 : step]).T
        grams.append((weighted_FN @ x_NF).double())
        moments.append((weighted_FN @ sample.wanted_NH[:, step - 1]).double())
    return torch.stack(grams), torch.stack(moments)


def _diagonal(highway: Highway, penalties: dict[str, int]) -> Tensor:
    """Return the penalty of every regressor (F,)."""
    return torch.cat([torch.full((width,), PENALTY_STEP ** penalties[name], dtype=torch.float64) for name, width in highway.blocks.items()])


def _solve(gram_HFF: Tensor, moment_HF: Tensor, penalty_F: Tensor) -> Tensor:
    """Return the weights (H, F); 0 for a step whose moments are not finite."""
    factor_HFF, _ = torch.linalg.cholesky_ex(gram_HFF + torch.diag(penalty_F))
    return torch.cholesky_solve(moment_HF.unsqueeze(-1), factor_HFF).squeeze(-1).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def _choose(highway: Highway, gram_HFF: Tensor, moment_HF: Tensor, held_out: _Sample, start: dict[str, int]) -> dict[str, int]:
    """Return the penalties, as powers of their step, with the least error held out: one block after the other, until none moves."""
    row_G = torch.linspace(0, highway.horizon - 1, min(CHOOSING_STEPS, highway.horizon)).round().long()
    gram_GFF, moment_GF = gram_HFF[row_G], moment_HF[row_G]
    x_GNF = torch.stack([highway.regressors(held_out.inputs, int(row) + 1) for row in row_G])
    wanted_GN, observed_GN = held_out.wanted_NH.T[row_G], held_out.observed_NH.T[row_G]
    known: dict[tuple[int, ...], float] = {}

    def error(penalties: dict[str, int]) -> float:
        key = tuple(penalties.values())
        if key not in known:
            weight_GF = _solve(gram_GFF, moment_GF, _diagonal(highway, penalties)).to(x_GNF.dtype)
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
