"""The laws that need tensors alone: does anything after a tick reach the forecast issued at it?

A forecaster is asked as a function: inputs of every tick in, one forecast for each tick out. Called by `pipeline.verify`,
for the champion and for anybody's `nn.Module`, and by the tests of the laws; imports torch alone.

Ask in float64: there PyTorch's own kernels run and what does not depend on an input has a gradient of exactly 0. Every
change made here is finite: kernels treat NaN in ways of their own. No law passes on a forecaster that nothing moves.

Letters: B series, T ticks, M outputs of one forecast (steps, and quantile levels where there are some). Inputs may have a
further axis of columns, the first of them the target.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import torch
from torch import Tensor

Forecast = Callable[[Tensor], Tensor]
"""Inputs (B, T) or (B, T, columns) to outputs (B, T, ...): tick t holds the forecast issued there; a call changes nothing."""

Verdict = Literal["holds", "broken", "not applicable"]
State = TypeVar("State")

ROUNDING = 1e-9  # of the outputs' spread, or of the largest gradient: float64 kernels of another shape, or a causal FFT, differ by 1e-12
NUM_CULPRITS = 24  # ticks after an origin that are tried one by one to say which one leaks


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What asking for one law showed.

    Attributes:
        law: its number.
        verdict: `not applicable` where it cannot be asked; never a silent pass.
        seen: what was seen, as a clause; for `not applicable` the reason.
        difference: the largest one, in standard deviations of the outputs (law 2: as a share of the largest gradient from the past);
            None where none was measured.
        origin: tick of the forecast that moved.
        tick: whose input moved it.
    """

    law: int
    verdict: Verdict
    seen: str
    difference: float | None = None
    origin: int | None = None
    tick: int | None = None


def worse(served: Finding, in_training: Finding) -> Finding:
    """Return the finding that tells more, of one law in both modes: it must hold when serving and while training."""
    if served.verdict != "broken" and in_training.verdict == "broken":
        return replace(in_training, seen=f"while training, {in_training.seen}; served it does not")
    return served


def outputs(forecast: Forecast, inputs_BT: Tensor) -> Tensor:
    """Return the forecasts as (B, T, M).

    Raises:
        ValueError: where there is not one finite forecast for each series and tick.
    """
    answer = forecast(inputs_BT)
    shape = tuple(inputs_BT.shape[:2])
    if answer.dim() < 3 or tuple(answer.shape[:2]) != shape:
        raise ValueError(
            f"A forecaster requires outputs ({shape[0]}, {shape[1]}, horizon[, levels]) for inputs {tuple(inputs_BT.shape)}: one forecast "
            f"issued at every tick; got {tuple(answer.shape)}. Return the forecast of each tick, not of the last alone."
        )
    if not torch.isfinite(answer).all():
        missing = int((~torch.isfinite(answer)).sum())
        raise ValueError(f"A forecaster requires finite outputs; got {missing} others of {answer.numel()}. Scale its inputs, or mend it.")
    return answer.flatten(2)


def future_perturbation(forecast: Forecast, inputs_BT: Tensor, origins: Sequence[int]) -> Finding:
    """Ask law 1: whatever replaces the inputs after an origin, the forecasts up to it stay as they are.

    Args:
        forecast: the same for the same inputs.
        inputs_BT: finite where they are to be changed.
        origins: ticks before the last.
    """
    with torch.no_grad():
        reference = outputs(forecast, inputs_BT)
        spread = _spread(reference)
        largest = (0.0, 0, 0)
        for origin in origins:
            for changed in _changed_after(inputs_BT, origin):
                moved_T = _moved(outputs(forecast, changed), reference)[: origin + 1] / spread
                largest = max(largest, (float(moved_T.max()), int(moved_T.argmax()), origin + 1))
        if largest[0] > ROUNDING:
            return _perturbed(forecast, inputs_BT, reference, largest)
        first = min(origins)
        before = inputs_BT.clone()
        before[:, : first + 1] = 2 * before[:, : first + 1] + 1
        responds = bool((_moved(outputs(forecast, before), reference)[first] > ROUNDING * spread).item())
    if not responds:
        return Finding(
            law=1, verdict="broken", seen="no input moves any forecast, neither one before its origin nor one after", difference=0.0
        )
    return Finding(law=1, verdict="holds", seen=f"{len(origins)} origins, 3 other futures each", difference=largest[0])


def _changed_after(inputs_BT: Tensor, origin: int) -> list[Tensor]:
    """Return the inputs with other futures: scaled and shifted, with noise added, in reverse order."""
    past, future = inputs_BT[:, : origin + 1], inputs_BT[:, origin + 1 :]
    noise = torch.randn(future.shape, generator=torch.Generator().manual_seed(origin), dtype=future.dtype)
    return [torch.cat([past, other], dim=1) for other in (10 * future - 7, future + 3 * _spread(inputs_BT) * noise, future.flip(1))]


def _perturbed(forecast: Forecast, inputs_BT: Tensor, reference: Tensor, largest: tuple[float, int, int]) -> Finding:
    """Say which tick reaches back, by changing one after the other; where none does alone, say which stretch does."""
    difference, origin, first = largest
    spread, num_ticks = _spread(reference), inputs_BT.shape[1]
    culprit = (0.0, origin, first)
    for tick in sorted({*range(first, min(first + NUM_CULPRITS, num_ticks)), num_ticks - 1}):
        changed = inputs_BT.clone()
        changed[:, tick] += 3 * _spread(inputs_BT)
        moved_T = _moved(outputs(forecast, changed), reference)[:tick] / spread
        culprit = max(culprit, (float(moved_T.max()), int(moved_T.argmax()), tick))
    if culprit[0] > ROUNDING:
        _, origin, first = culprit
        seen = f"other inputs at tick {first} alone moved the forecast issued at tick {origin}, before it"
    else:
        seen = f"other inputs from tick {first} on moved the forecast issued at tick {origin}"
    return Finding(law=1, verdict="broken", seen=seen, difference=difference, origin=origin, tick=first)


def gradient(forecast: Forecast, inputs_BT: Tensor, origins: Sequence[int]) -> Finding:
    """Ask law 2: the gradient of a forecast with respect to inputs after its origin is 0, and before it is not.

    Source: the test that no gradient flows from the future, as in FBK's pangolinn (`CausalTestCase`); in float64 the native
    kernels give exact zeros.

    Args:
        forecast: differentiable.
        inputs_BT: of every tick.
        origins: ticks before the last.
    """
    worst, reach = (0.0, 0, 0), 0
    for origin in origins:
        asked = inputs_BT.detach().clone().requires_grad_()
        answer = outputs(forecast, asked)[:, origin]
        if not answer.requires_grad:
            return Finding(law=2, verdict="not applicable", seen="no gradient reaches the outputs (detached, or computed without autograd)")
        weights = torch.rand(answer.shape, generator=torch.Generator().manual_seed(0), dtype=answer.dtype) + 0.5
        (slope,) = torch.autograd.grad((answer * weights).sum(), asked, allow_unused=True, materialize_grads=True)
        slope_T = slope.abs().transpose(0, 1).flatten(1).amax(1)
        past = float(slope_T[: origin + 1].max())
        if past == 0.0:
            return Finding(law=2, verdict="broken", seen=f"the forecast at tick {origin} depends on no input up to it", origin=origin)
        future_T = slope_T[origin + 1 :] / past
        worst = max(worst, (float(future_T.max()), origin, origin + 1 + int(future_T.argmax())))
        reach = max(reach, origin - int((slope_T[: origin + 1] > 0).nonzero()[0]))
    share, origin, tick = worst
    if share > ROUNDING:
        seen = f"the forecast at tick {origin} has a gradient from the input at tick {tick}, {share:.2g} of the largest from its past"
        return Finding(law=2, verdict="broken", seen=seen, difference=share, origin=origin, tick=tick)
    return Finding(law=2, verdict="holds", seen=f"0 from the future; not 0 from up to {reach} ticks back", difference=share)


def prefix(forecast: Forecast, inputs_BT: Tensor, lengths: Sequence[int]) -> Finding:
    """Ask law 3: the forecasts of a prefix are the prefix of the forecasts, f(x[:j]) == f(x)[:j].

    Args:
        forecast: for inputs of any length.
        inputs_BT: of every tick.
        lengths: of the prefixes.
    """
    with torch.no_grad():
        reference = outputs(forecast, inputs_BT)
        largest = (0.0, 0, 0)
        for length in lengths:
            moved_T = _moved(outputs(forecast, inputs_BT[:, :length]), reference[:, :length]) / _spread(reference)
            largest = max(largest, (float(moved_T.max()), int(moved_T.argmax()), length))
    difference, origin, length = largest
    if difference > ROUNDING:
        seen = f"the forecast at tick {origin} changed when the sequence ended at tick {length - 1}"
        return Finding(law=3, verdict="broken", seen=seen, difference=difference, origin=origin, tick=length)
    return Finding(law=3, verdict="holds", seen=f"prefixes of {', '.join(map(str, lengths))} ticks", difference=difference)


def stream_equals_batch(forecast: Forecast, step: Callable[[Tensor, State | None], tuple[Tensor, State]], inputs_BT: Tensor) -> Finding:
    """Ask law 4: one tick at a time with the carried state gives what one call gives, and a restart changes nothing.

    The restart goes on from a copy of the state that was taken half way.

    Args:
        forecast: over the whole sequence.
        step: inputs of one tick (B,) and the state before it, None at the start, to outputs (B, ...) and the state after.
        inputs_BT: of every tick.
    """
    with torch.no_grad():
        reference = outputs(forecast, inputs_BT)
        stepped, kept = _steps(step, inputs_BT, None, 0)
        half = inputs_BT.shape[1] // 2
        resumed, _ = _steps(step, inputs_BT, kept, half)
    spread = _spread(reference)
    streamed_T = _moved(stepped, reference) / spread
    restarted_T = _moved(resumed, stepped[:, half:]) / spread
    largest = float(streamed_T.max())
    if largest > ROUNDING:
        origin = int((streamed_T > ROUNDING).nonzero()[0])
        seen = f"the stepped forecast differs from the one of a single call, first at tick {origin}"
        return Finding(law=4, verdict="broken", seen=seen, difference=largest, origin=origin)
    if float(restarted_T.max()) > ROUNDING:
        origin = half + int((restarted_T > ROUNDING).nonzero()[0])
        seen = (
            f"the forecast after a restart at tick {half} differs, first at tick {origin}: the returned state is not all that is remembered"
        )
        return Finding(law=4, verdict="broken", seen=seen, difference=float(restarted_T.max()), origin=origin, tick=half)
    return Finding(law=4, verdict="holds", seen=f"{len(streamed_T)} steps and a restart", difference=largest)


def _steps(
    step: Callable[[Tensor, State | None], tuple[Tensor, State]], inputs_BT: Tensor, state: State | None, start: int
) -> tuple[Tensor, State | None]:
    """Step to the end; return the outputs (B, T - start, M) and a copy of the state before the middle tick."""
    answers, middle = [], state
    for tick in range(start, inputs_BT.shape[1]):
        if tick == inputs_BT.shape[1] // 2:
            middle = copy.deepcopy(state)
        answer, state = step(inputs_BT[:, tick], state)
        answers.append(answer.flatten(1))
    return torch.stack(answers, dim=1), middle


def batch_independence(forecast: Forecast, inputs_BT: Tensor, sizes: Sequence[int]) -> Finding:
    """Ask law 7, where it is about forecasts: whatever batch a series is in, it gets the same ones, and each tick gets one.

    Args:
        forecast: for any number of series.
        inputs_BT: of more series than any of the sizes.
        sizes: of batches; the last batch is smaller where the series do not divide.
    """
    with torch.no_grad():
        reference = outputs(forecast, inputs_BT)
        largest = (0.0, 0, 0)
        for size in sizes:
            batched = torch.cat([outputs(forecast, part) for part in torch.split(inputs_BT, size)])
            moved_T = _moved(batched, reference) / _spread(reference)
            largest = max(largest, (float(moved_T.max()), size, int(moved_T.argmax())))
    difference, size, origin = largest
    if difference > ROUNDING:
        seen = f"in batches of {size} series the forecast at tick {origin} differs from that in one batch of {len(inputs_BT)}"
        return Finding(law=7, verdict="broken", seen=seen, difference=difference, origin=origin)
    seen = f"batches of {', '.join(map(str, sizes))} and {len(inputs_BT)} series; {reference[..., 0].numel()} ticks, none dropped"
    return Finding(law=7, verdict="holds", seen=seen, difference=difference)


def _moved(changed: Tensor, reference: Tensor) -> Tensor:
    """Return the largest absolute difference at each tick (T,)."""
    return (changed - reference).abs().amax(dim=(0, 2))


def _spread(values: Tensor) -> float:
    """Return the standard deviation of the known values, 1 where there is none."""
    known = values[torch.isfinite(values)]
    deviation = float(known.std()) if known.numel() > 1 else 0.0
    return deviation if deviation > 0 else 1.0
