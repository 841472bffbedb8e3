"""A short training of a stranger's module on made-up series: what laws 5 and 6 need to see whether it learns what it cannot know.

Called by `pipeline.verify.module`. The module is a copy; nothing is kept.

Letters: B series, T ticks read, H steps, S = T + H ticks, C covariates, Q quantile levels.
"""

import copy
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.losses import pinball
from pipeline.verify.skill import Trial

NUM_STEPS, BATCH, LEARNING_RATE = 300, 32, 1e-2  # an LSTM of 16 learns a daily cycle in 100 steps
NUM_HELD_OUT = 64
PERIOD = 24  # ticks of the cycle that a control is to learn


class Series(NamedTuple):
    """Made-up series."""

    values_BS: Tensor
    covariates_BSC: Tensor
    naive_BS: Tensor
    """The naive forecast issued at each tick, one value for every later one; without knowledge of the future none is better."""


Draw = Callable[[int, int, int], Series]
"""Makes so many series, ticks and covariates, anew at each call."""


def draw_walks(num_series: int, num_ticks: int, num_covariates: int) -> Series:
    """Return walks of unit variance at their middle; nothing is better than the last value."""
    values_BS = torch.randn(num_series, num_ticks).cumsum(1) * (2 / num_ticks) ** 0.5
    return Series(values_BS, torch.randn(num_series, num_ticks, num_covariates), values_BS)


def draw_shuffled(num_series: int, num_ticks: int, num_covariates: int) -> Series:
    """Return readings without any order; nothing is better than their median, 0."""
    values_BS = torch.randn(num_series, num_ticks)
    return Series(values_BS, torch.randn(num_series, num_ticks, num_covariates), torch.zeros_like(values_BS))


def draw_cycles(num_series: int, num_ticks: int, num_covariates: int) -> Series:
    """Return daily cycles with noise, which can be learned; the naive forecast is the last value."""
    phase_B1 = torch.rand(num_series, 1) * PERIOD
    values_BS = torch.sin(2 * torch.pi * (torch.arange(num_ticks) + phase_B1) / PERIOD) + 0.2 * torch.randn(num_series, num_ticks)
    return Series(values_BS, torch.randn(num_series, num_ticks, num_covariates), values_BS)


def draw_with_target(num_series: int, num_ticks: int, num_covariates: int) -> Series:
    """Return shuffled readings whose first covariate is the target itself, tick by tick."""
    series = draw_shuffled(num_series, num_ticks, num_covariates)
    series.covariates_BSC[..., 0] = series.values_BS
    return series


def draw_with_next(num_series: int, num_ticks: int, num_covariates: int) -> Series:
    """Return shuffled readings whose first covariate at a tick is the next reading, known there: reading it must help."""
    series = draw_shuffled(num_series, num_ticks, num_covariates)
    series.covariates_BSC[:, :-1, 0] = series.values_BS[:, 1:]
    return series


class Shape(NamedTuple):
    """What a module takes and gives."""

    num_ticks: int
    horizon: int
    num_covariates: int
    """0 for a module that takes none."""


def trials(name: str, module: nn.Module, draw: Draw, shape: Shape, *, max_seconds: float) -> list[Trial]:
    """Train a copy of a module, and score it on series it has not seen: the first step alone, and all steps.

    Args:
        name: of what is drawn.
        module: takes values (B, T), and covariates (B, T, C) where there are some, to (B, T, H[, Q]); its `quantile_levels`
            say which they are, else they are taken to be k / (Q + 1).
        draw: makes the series.
        shape: of what it takes and gives.
        max_seconds: for the training; it ends after `NUM_STEPS` steps too.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trained = _trained(module, draw, shape, max_seconds)
        with torch.no_grad():
            series = draw(NUM_HELD_OUT, shape.num_ticks + shape.horizon, shape.num_covariates)
            answer_BTHQ = _answer(trained, series, shape).detach()  # a view of a parameter keeps its gradient even so
    target_BTH, levels = _targets(series.values_BS, shape), _levels(trained, answer_BTHQ)
    median = min(range(len(levels)), key=lambda q: abs(levels[q] - 0.5))
    scored = slice(shape.num_ticks // 4, None)  # a state that has just begun has nothing to say
    ours_BTH = (target_BTH - answer_BTHQ[..., median]).abs()[:, scored].double().numpy()
    naive_BTH = (target_BTH - series.naive_BS[:, : shape.num_ticks, None]).abs()[:, scored].double().numpy()
    # A kernel that reaches one tick ahead is lost in the mean of 96 steps, so the first is judged on its own.
    parts = (("step 1", slice(0, 1)), ("all steps", slice(None)))
    return [Trial.of(f"{name}, {lead}", ours_BTH[..., part].mean((1, 2)), naive_BTH[..., part].mean((1, 2))) for lead, part in parts]


def _trained(module: nn.Module, draw: Draw, shape: Shape, max_seconds: float) -> nn.Module:
    """Return a trained copy of a module, in evaluation mode."""
    trained = copy.deepcopy(module).float().train()
    optimiser = torch.optim.Adam(trained.parameters(), lr=LEARNING_RATE)
    started = time.perf_counter()
    for _ in range(NUM_STEPS):
        series = draw(BATCH, shape.num_ticks + shape.horizon, shape.num_covariates)
        optimiser.zero_grad()
        loss = _loss(_answer(trained, series, shape), _targets(series.values_BS, shape), trained)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimiser.step()
        if time.perf_counter() - started > max_seconds:
            break
    return trained.eval()


def _answer(module: nn.Module, series: Series, shape: Shape) -> Tensor:
    """Return the module's forecasts (B, T, H, Q), Q = 1 where it gives but one value."""
    covariates = (series.covariates_BSC[:, : shape.num_ticks],) if shape.num_covariates else ()
    answer: Tensor = module(series.values_BS[:, : shape.num_ticks], *covariates)
    return answer.unsqueeze(-1) if answer.dim() == 3 else answer


def _targets(values_BS: Tensor, shape: Shape) -> Tensor:
    """Return what came true after each tick (B, T, H)."""
    return values_BS[:, 1:].unfold(1, shape.horizon, 1)[:, : shape.num_ticks]


def _levels(module: nn.Module, answer_BTHQ: Tensor) -> tuple[float, ...]:
    num_levels = answer_BTHQ.shape[-1]
    levels = getattr(module, "quantile_levels", None)
    return tuple((q + 1) / (num_levels + 1) for q in range(num_levels)) if levels is None else tuple(float(level) for level in levels)


def _loss(answer_BTHQ: Tensor, target_BTH: Tensor, module: nn.Module) -> Tensor:
    levels_Q = torch.tensor(_levels(module, answer_BTHQ))
    return pinball(answer_BTHQ, target_BTH, torch.ones_like(target_BTH, dtype=torch.bool), levels_Q)
