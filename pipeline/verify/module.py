"""The laws, asked of anybody's `nn.Module`: how it is found, what it must offer, and what each law makes of it.

What is required is `forward(values)`: readings (batch, time) in, forecasts (batch, time, horizon) or (batch, time, horizon,
levels) out, one issued at every tick from what came up to it. What a module may offer besides, and which law asks for it:

    forward(values, covariates)               past-only columns (batch, time, num_covariates): laws 1 to 3 and 6
    num_covariates                            how many of them; 1 where it does not say
    quantile_levels                           of its outputs; k / (levels + 1) where it does not say
    step(values, state)                       one tick: (batch,) and the state, None at first, to (batch, horizon[, levels])
                                              and the state after: law 4
    training_origins(num_ticks, train_end)    the ticks whose forecasts are trained on, where `train_end` is the last tick
                                              whose reading may be a target: law 10

Called by `pipeline.verify.verify`. Running a module runs its code: it is the user's own.

Letters: B series, T ticks, C columns, the target first.
"""

import copy
import importlib
import importlib.util
import inspect
import math
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from models.causality import Finding, Forecast, stream_equals_batch
from pipeline.errors import ModelError
from pipeline.verify.short_training import Draw, Shape, draw_cycles, draw_shuffled, draw_walks, draw_with_next, draw_with_target, trials
from pipeline.verify.skill import Trial, judge
from pipeline.verify.tensors import NUM_SERIES, findings_of_tensors

NUM_TICKS = 96
# Whatever a stranger's code raises: an assertion, a class of its own, or an exit, whose code 0 would read as "all laws hold".
FAULTS = (Exception, SystemExit)


def find_module(subject: str) -> nn.Module:
    """Import a module from `package.module:name` or `file.py:name`; the name is one, or makes one without arguments.

    Raises:
        ModelError: when it is not there, cannot be made, or is something else.
    """
    source, _, name = subject.rpartition(":")
    try:
        found: object = getattr(_imported(source), name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = found if isinstance(found, nn.Module) or not callable(found) else found()
    except FAULTS as error:
        raise ModelError(
            f"tidecast verify requires MODULE as package.module:name or file.py:name, made without arguments; got {subject!r}: "
            f"{_told(error)}. Name an nn.Module, its class, or a function that returns one."
        ) from error
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"tidecast verify requires an nn.Module, its class, or a function that returns one; got {subject!r}, "
            f"a {type(module).__name__}. Wrap it in an nn.Module."
        )
    return module


def _imported(source: str) -> ModuleType:
    if not source.endswith(".py"):
        sys.path.insert(0, str(Path.cwd()))
        return importlib.import_module(source)
    sys.path.insert(0, str(Path(source).resolve().parent))  # for what lies beside it
    spec = importlib.util.spec_from_file_location(f"verified_{Path(source).stem}", source)
    if spec is None or spec.loader is None:
        raise ImportError(f"{source} is no Python file")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded  # dataclasses look their module up
    spec.loader.exec_module(loaded)
    return loaded


def _told(error: BaseException) -> str:
    """Return what an exception says and where it was raised, in one line."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"


class ForeignModule:
    """Anybody's module: inputs (B, T), or (B, T, C) with its covariates behind the target; faults of its code become sentences."""

    def __init__(self, module: nn.Module) -> None:
        takes = inspect.signature(module.forward).parameters
        with _reproducible("a copy of it, and its num_covariates"):
            self.module = copy.deepcopy(module).double()
            self.num_covariates = int(getattr(module, "num_covariates", 1)) if "covariates" in takes else 0

    def inputs(self) -> Tensor:
        """Return made-up readings (B, T), with made-up covariates (B, T, C) behind them where the module takes some."""
        generator = torch.Generator().manual_seed(0)
        values_BT = torch.randn(NUM_SERIES, NUM_TICKS, generator=generator, dtype=torch.float64).cumsum(1) / math.sqrt(NUM_TICKS)
        if not self.num_covariates:
            return values_BT
        covariates_BTC = torch.randn(NUM_SERIES, NUM_TICKS, self.num_covariates, generator=generator, dtype=torch.float64)
        return torch.cat([values_BT.unsqueeze(-1), covariates_BTC], dim=-1)

    def forecast(self, *, training: bool = False) -> Forecast:
        """Return the module as a function, served or as it is while training (where batch statistics are those of the window)."""

        def asked(inputs_BT: Tensor) -> Tensor:
            module = copy.deepcopy(self.module).train(training)
            arguments = (inputs_BT[..., 0], inputs_BT[..., 1:]) if self.num_covariates else (inputs_BT,)
            with _reproducible(f"forward of {tuple(inputs_BT.shape)}"):
                return _floats(module(*arguments))

        return asked

    def stream(self, inputs_BT: Tensor) -> Finding:
        """Ask law 4, where the module has a `step`."""
        if self.num_covariates:
            return _not_asked(4, "a module with covariates is not stepped")
        step = getattr(copy.deepcopy(self.module).eval(), "step", None)
        if not callable(step):
            return _not_asked(4, "it has no step(values, state) that carries a state")

        def stepped(values_B: Tensor, state: object | None) -> tuple[Tensor, object]:
            with _reproducible("step"):
                answer_BHQ, after = step(values_B, state)
                return _floats(answer_BHQ), after

        return stream_equals_batch(self.forecast(), stepped, inputs_BT)


def _floats(answer: object) -> Tensor:
    """Return an answer that is a tensor of floats.

    Raises:
        TypeError: for anything else, such as the (output, state) of a recurrent layer.
    """
    if isinstance(answer, Tensor) and answer.is_floating_point():
        return answer
    got = f"a tensor of {answer.dtype}" if isinstance(answer, Tensor) else f"a {type(answer).__name__}"
    raise TypeError(f"forecasts are a tensor of floats, not {got}")


@contextmanager
def _reproducible(what: str, dtype: torch.dtype = torch.float64) -> Iterator[None]:
    """Fix the random numbers and the dtype of new tensors while the module's own code runs.

    Raises:
        ModelError: in place of what that code raises, with its words.
    """
    before = torch.get_default_dtype()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            torch.set_default_dtype(dtype)
            yield
    except FAULTS as error:
        raise ModelError(
            f"tidecast verify requires forward(values) for values (batch, time); got, in {what}, {_told(error)}. "
            "Mend the module, or wrap it in one of that form."
        ) from error
    finally:
        torch.set_default_dtype(before)


def findings_of_module(module: nn.Module, *, max_seconds: float) -> list[Finding]:
    """Ask every law of a module.

    Args:
        module: left as it is.
        max_seconds: for the short trainings of the laws 5 and 6 together.

    Raises:
        ModelError: where it does not offer what is required, or its code raises.
    """
    foreign = ForeignModule(module)
    with torch.no_grad():
        twice = [foreign.forecast()(foreign.inputs()).nan_to_num() for _ in range(2)]
    if not torch.equal(*twice):
        raise ModelError(
            "tidecast verify requires the same forecasts for the same readings; got others the second time, with the same random numbers "
            "of PyTorch. Draw them from PyTorch, and keep nothing between calls."
        )
    try:
        findings = findings_of_tensors(foreign)
    except ValueError as error:  # outputs of another form; what the module's own code raises is a ModelError already
        raise ModelError(str(error)) from error
    horizon = int(twice[0].shape[2])
    shape = Shape(NUM_TICKS, horizon, foreign.num_covariates)
    return [*findings, *_skill(module, shape, max_seconds), _split_gap_of_origins(module, horizon)]


def _not_asked(law: int, reason: str) -> Finding:
    return Finding(law=law, verdict="not applicable", seen=reason)


def _skill(module: nn.Module, shape: Shape, max_seconds: float) -> list[Finding]:
    """Ask the laws 5 and 6, which train a copy of the module on made-up series."""
    if not any(parameter.requires_grad for parameter in module.parameters()):
        return [_not_asked(law, "it has no parameters to train") for law in (5, 6)]
    share = max_seconds / (5 if shape.num_covariates else 3)

    def tried(name: str, draw: Draw) -> list[Trial]:
        with _reproducible("a short training", torch.float32):
            return trials(name, module, draw, shape, max_seconds=share)

    without = tried("random walks", draw_walks) + tried("shuffled readings", draw_shuffled)
    null_skill = judge(5, without, tried("daily cycles", draw_cycles)[-1])
    if not shape.num_covariates:
        return [null_skill, _not_asked(6, "its forward takes no covariates")]
    target = tried("a column that is the target", draw_with_target)
    return [null_skill, judge(6, target, tried("a column that is known ahead", draw_with_next)[0])]


def _split_gap_of_origins(module: nn.Module, horizon: int) -> Finding:
    """Ask law 10 of the origins that a module says it trains on."""
    chosen = getattr(module, "training_origins", None)
    if not callable(chosen):
        return _not_asked(10, "it has no training_origins(num_ticks, train_end)")
    num_ticks, train_end = 20 * horizon + 100, 10 * horizon + 50
    with _reproducible("training_origins"):
        origins = sorted(int(origin) for origin in chosen(num_ticks, train_end))
    if not origins:
        return _not_asked(10, "it trains on no origin at all")
    latest = origins[-1] + horizon
    seen = f"the last training origin is tick {origins[-1]}, its last target tick {latest}; validation begins at tick {train_end}"
    return Finding(law=10, verdict="broken" if latest > train_end else "holds", seen=seen, origin=origins[-1], tick=latest)
