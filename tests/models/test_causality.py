"""The laws of tensors find each leak that is there, in the mode it is there, and none in a causal module."""

import copy

import pytest
import torch
from torch import Tensor, nn

from models.causality import Forecast, batch_independence, future_perturbation, gradient, outputs, prefix, stream_equals_batch, worse
from tests import leaks
from tests.leaks import HORIZON

NUM_SERIES, NUM_TICKS = 5, 40
ORIGINS = (10, 20, NUM_TICKS - 2)


def module_of(kind: type[nn.Module]) -> nn.Module:
    """Return a module with fixed random weights."""
    torch.manual_seed(0)
    return kind().double()


def forecast_of(module: nn.Module, *, training: bool = False) -> Forecast:
    """Return the module as a function that remembers nothing."""

    def forecast(inputs_BT: Tensor) -> Tensor:
        fresh = copy.deepcopy(module).train(training)
        return fresh(inputs_BT) if inputs_BT.dim() == 2 else fresh(inputs_BT[..., 0], inputs_BT[..., 1:])

    return forecast


def inputs_of(module: nn.Module) -> Tensor:
    """Return walks, beside a covariate where the module takes some."""
    generator = torch.Generator().manual_seed(1)
    columns = 1 + getattr(module, "num_covariates", 0)
    walks_BTC = torch.randn(NUM_SERIES, NUM_TICKS, columns, generator=generator, dtype=torch.float64).cumsum(1)
    return walks_BTC if columns > 1 else walks_BTC[..., 0]


def broken(kind: type[nn.Module], *, training: bool = False) -> set[int]:
    """Return which of the laws 1, 2, 3 and 7 a module breaks."""
    module = module_of(kind)
    forecast, inputs_BT = forecast_of(module, training=training), inputs_of(module)
    findings = [law(forecast, inputs_BT, ORIGINS) for law in (future_perturbation, gradient, prefix)]
    findings.append(batch_independence(forecast, inputs_BT, (1, 2)))
    return {finding.law for finding in findings if finding.verdict == "broken"}


@pytest.mark.parametrize(
    ("kind", "laws"),
    [
        (leaks.Bidirectional, {1, 2, 3}),
        (leaks.CentredConvolution, {1, 2, 3}),
        (leaks.WindowNormalisation, {1, 2, 3}),
        (leaks.TargetAmongCovariates, {1, 2, 3}),
        (leaks.CountsFromTheEnd, {3}),
        (leaks.MixesSeries, {7}),
        (leaks.Constant, {1, 2}),
    ],
)
def test_each_leak_breaks_the_laws_it_should(kind: type[nn.Module], laws: set[int]) -> None:
    """Shown to fail by taking each law's `_moved` from the ticks after the origin, and by returning `holds` on zero gradients."""
    assert broken(kind) == laws


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", [leaks.Causal, leaks.PastCovariates])
def test_a_causal_module_breaks_none(kind: type[nn.Module], training: bool) -> None:
    """Shown to fail by including the tick after the origin in what law 1 compares."""
    assert broken(kind, training=training) == set()


def test_batch_normalisation_over_time_leaks_while_training_alone() -> None:
    """Shown to fail by asking in evaluation mode whatever the mode."""
    assert broken(leaks.BatchNormOverTime) == set()
    assert broken(leaks.BatchNormOverTime, training=True) == {1, 2, 3, 7}


def test_the_worse_of_both_modes_is_told() -> None:
    """Shown to fail by returning the served finding always."""
    module = module_of(leaks.BatchNormOverTime)
    inputs_BT = inputs_of(module)
    modes = [gradient(forecast_of(module, training=training), inputs_BT, ORIGINS) for training in (False, True)]
    assert worse(*modes).verdict == "broken"
    assert worse(*modes).seen.startswith("while training")
    assert worse(modes[0], modes[0]).verdict == "holds"


@pytest.mark.parametrize("ahead", [1, 3])
def test_the_tick_that_leaks_is_named(ahead: int) -> None:
    """Shown to fail by leaving out the search in `_perturbed`."""

    def forecast(inputs_BT: Tensor) -> Tensor:
        return (inputs_BT + torch.cat([inputs_BT[:, ahead:], inputs_BT[:, -ahead:]], dim=1)).unsqueeze(-1)

    for law in (future_perturbation, gradient):
        finding = law(forecast, inputs_of(nn.Identity()), (10, 20))
        assert (finding.verdict, finding.tick - finding.origin) == ("broken", ahead)
        assert f"tick {finding.tick}" in finding.seen


def test_stepping_equals_one_call() -> None:
    """Shown to fail by stepping with no state at all."""
    module = module_of(leaks.Causal)
    assert stream_equals_batch(forecast_of(module), module.step, inputs_of(module)).verdict == "holds"


def test_a_state_that_is_dropped_or_hidden_is_found() -> None:
    """Shown to fail by resuming from the state after the last tick, and by leaving out the comparison with one call."""
    forgetful, hidden = module_of(leaks.Causal), module_of(leaks.HiddenState)
    dropped = stream_equals_batch(forecast_of(forgetful), lambda values_B, _: forgetful.step(values_B, None), inputs_of(forgetful))
    assert (dropped.verdict, dropped.origin) == ("broken", 1)
    kept_back = stream_equals_batch(forecast_of(hidden), hidden.step, inputs_of(hidden))
    assert (kept_back.verdict, kept_back.tick) == ("broken", NUM_TICKS // 2)


def test_outputs_without_a_gradient_cannot_be_asked_for_one() -> None:
    """Shown to fail by treating a missing gradient as a gradient of 0."""
    forecast = forecast_of(module_of(leaks.Causal))
    finding = gradient(lambda inputs_BT: forecast(inputs_BT).detach(), inputs_of(nn.Identity()), ORIGINS)
    assert finding.verdict == "not applicable"
    assert "no gradient" in finding.seen


def test_outputs_of_another_form_are_refused() -> None:
    inputs_BT = inputs_of(nn.Identity())
    assert outputs(forecast_of(module_of(leaks.Causal)), inputs_BT).shape == (NUM_SERIES, NUM_TICKS, HORIZON)
    with pytest.raises(ValueError, match=r"one forecast issued at every tick; got \(5, 4\)"):
        outputs(forecast_of(module_of(leaks.LastTickOnly)), inputs_BT)
    with pytest.raises(ValueError, match=r"finite outputs; got 800 others of 800"):
        outputs(lambda asked_BT: asked_BT.unsqueeze(-1).expand(-1, -1, HORIZON) * torch.nan, inputs_BT)
