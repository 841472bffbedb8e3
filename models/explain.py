"""What moved a forecast: integrated gradients of its median with respect to every reading it rests on.

The path goes from a baseline, on which every reading is the level of the series, to the readings as they were; what each
contributes adds up to the forecast less the forecast of the baseline (completeness). Source: Sundararajan, Taly and Yan 2017,
"Axiomatic Attribution for Deep Networks". Called by `pipeline.evaluate.explain`; imports torch alone.

Letters: T ticks, P past and U known-future covariates, S = T + horizon, N points on the path, B = N, H horizon, Q levels.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from models.batch import CarriedState, Covariates
from models.forecaster import CausalForecaster

NUM_POINTS = 64


class Window(NamedTuple):
    """The ticks of one series that are to be explained, the last of them the origin; NaN is not known."""

    state: CarriedState
    """After the tick before the first, of one series."""
    values_T: Tensor
    """(T,) float64."""
    time_T: Tensor
    """(T,) int64: labels, seconds since the epoch."""
    covariates: Covariates | None
    """Of one series, where the forecaster has some."""


class Attribution(NamedTuple):
    """What each input contributed to the median of one step, in the metric's unit; 0 where nothing was known."""

    forecast: float
    level: float
    """The running mean at the origin: what every reading is on the baseline."""
    baseline_forecast: float
    """What the calendar, the attributes of the series and the memory of earlier ticks make of the level."""
    target_T: Tensor
    past_TP: Tensor
    future_SU: Tensor

    @property
    def unexplained(self) -> float:
        """What the contributions lack to the forecast: the error of the sum along the path."""
        parts = (self.target_T, self.past_TP, self.future_SU)
        return self.forecast - self.baseline_forecast - sum(float(part.sum()) for part in parts)


def integrated_gradients(forecaster: CausalForecaster, window: Window, step: int) -> Attribution:
    """Attribute the median of one step to the readings of a window.

    Args:
        forecaster: in float64 and evaluation mode; its weights are left alone.
        window: of one series.
        step: 1 … horizon.

    Raises:
        ValueError: when the step is none of the forecaster's, or it is not in float64.
    """
    if not 1 <= step <= forecaster.config.horizon:
        raise ValueError(f"An explanation requires a step of 1 to {forecaster.config.horizon}; got {step}. Choose one of them.")
    if forecaster.dtype != torch.float64:
        raise ValueError(f"An explanation requires a forecaster in float64; got {forecaster.dtype}. Call .double() on a copy.")
    inputs = _inputs(window)
    level = _level(forecaster, window)
    baselines = (torch.full_like(inputs[0], level), *(part.nanmean(dim=0, keepdim=True).expand_as(part) for part in inputs[1:]))
    nodes_N, weights_N = _gauss_legendre(NUM_POINTS)
    share_N = torch.cat([nodes_N, torch.tensor([0.0, 1.0], dtype=torch.float64)])  # the two ends, for the difference they make
    path = [
        (base.unsqueeze(1) + share_N.view(1, -1, 1) * (part - base).unsqueeze(1)).requires_grad_()
        for part, base in zip(inputs, baselines, strict=True)
    ]
    median_N = _medians(forecaster, window, path, step)
    slopes = torch.autograd.grad(median_N[:NUM_POINTS].sum(), path, allow_unused=True, materialize_grads=True)
    target_T1, past_TP, future_SU = (
        ((part - base) * torch.einsum("tnc,n->tc", slope[:, :NUM_POINTS], weights_N)).nan_to_num()
        for part, base, slope in zip(inputs, baselines, slopes, strict=True)
    )
    baseline_forecast, forecast = median_N[NUM_POINTS:].tolist()
    return Attribution(forecast, level, baseline_forecast, target_T1[:, 0], past_TP, future_SU)


def _inputs(window: Window) -> tuple[Tensor, Tensor, Tensor]:
    """Return the target (T, 1), past (T, P) and known-future covariates (S, U), NaN where not known."""
    values_T1 = window.values_T.unsqueeze(1)
    if window.covariates is None:
        return values_T1, values_T1[:, :0], values_T1[:, :0]
    known = window.covariates
    past_TP = torch.where(known.past_observed_TBP, known.past_TBP, torch.nan)[:, 0]
    return values_T1, past_TP, torch.where(known.future_observed_SBU, known.future_SBU, torch.nan)[:, 0]


def _level(forecaster: CausalForecaster, window: Window) -> float:
    """Return the slowest running mean at the origin."""
    values_T1 = window.values_T.unsqueeze(1)
    with torch.no_grad():
        sequence, _ = forecaster.observe(window.state, values_T1, ~values_T1.isnan(), window.time_T.unsqueeze(1), window.covariates)
    return float(sequence.mean_KTB[0, -1, 0])


def _medians(forecaster: CausalForecaster, window: Window, path: list[Tensor], step: int) -> Tensor:
    """Return the median of a step at every point of the path (N,), all of them series of one batch."""
    values_TN1, past_TNP, future_SNU = path
    num_points = values_TN1.shape[1]
    values_TN = values_TN1[..., 0]
    covariates = None
    if window.covariates is not None:
        static_NJ = window.covariates.static_BJ.expand(num_points, -1)
        covariates = Covariates.of(past_TNP, future_SNU, static_NJ)
    quantiles_1NHQ, _ = forecaster.advance(
        window.state.select(torch.zeros(num_points, dtype=torch.int64)),
        values_TN,
        ~values_TN.isnan(),
        window.time_T.unsqueeze(1).expand_as(values_TN),
        covariates=covariates,
    )
    return quantiles_1NHQ[0, :, step - 1, forecaster.config.quantile_levels.index(0.5)]


def _gauss_legendre(num_points: int) -> tuple[Tensor, Tensor]:
    """Return nodes and weights on [0, 1], float64. Source: Golub and Welsch 1969, from the eigenvalues of the Jacobi matrix."""
    order = torch.arange(1, num_points, dtype=torch.float64)
    off_diagonal = order / (4 * order.square() - 1).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(off_diagonal, 1) + torch.diag(off_diagonal, -1))
    return (nodes + 1) / 2, vectors[0].square()
