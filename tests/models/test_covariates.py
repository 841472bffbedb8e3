"""What covariates are to the network: free of unit and level, bounded, told apart from what is not known."""

import json

import pytest
import torch

from models.batch import Covariates
from models.config import ForecasterConfig
from models.covariates import encode, initial_statistics
from models.forecaster import CausalForecaster
from tests.models.conftest import COVARIATES, random_covariates, random_forecaster, random_ticks

CONFIG = ForecasterConfig(sample_interval_s=3600, horizon=6, **COVARIATES)
FRESH = initial_statistics(CONFIG, torch.zeros(3, dtype=torch.int64))


def with_plan(plan_S: torch.Tensor) -> Covariates:
    """Return covariates of one series of which only the plan is known."""
    num_ticks = len(plan_S) - CONFIG.horizon
    nothing = torch.full((num_ticks, 1, 2), torch.nan, dtype=torch.float64)
    return Covariates.of(nothing, plan_S.double().reshape(-1, 1, 1), torch.zeros(1, 1, dtype=torch.float64))


def plan_inputs(plan_S: torch.Tensor) -> torch.Tensor:
    """Return value and mask (S, 2) of a plan as the network reads it."""
    inputs, _ = encode(with_plan(plan_S), initial_statistics(CONFIG, torch.zeros(1, dtype=torch.int64)), CONFIG)
    return inputs.future_SBF[:, 0]


def test_without_covariates_the_weights_are_those_there_were() -> None:
    """Shown to fail by keeping the buffers of static covariates whatever their number."""
    forecaster = random_forecaster()
    weights = {name: tensor.shape for name, tensor in forecaster.state_dict().items()}
    assert not any("static" in name for name in weights)
    assert weights["stack.embed.weight"] == (8, 4 + 1 + 2 + 12)
    assert weights["decoder.calendar_basis.0.weight"] == (32, 12)


def test_a_configuration_without_covariates_loads_from_before_there_were_any() -> None:
    saved = json.loads(json.dumps(ForecasterConfig(sample_interval_s=60).to_dict()))
    old = {name: value for name, value in saved.items() if not name.endswith("_covariates")}
    assert ForecasterConfig.from_dict(old) == ForecasterConfig.from_dict(saved) == ForecasterConfig(sample_interval_s=60)


def test_a_configuration_with_covariates_survives_json() -> None:
    assert ForecasterConfig.from_dict(json.loads(json.dumps(CONFIG.to_dict()))) == CONFIG


def test_a_covariate_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="named once"):
        ForecasterConfig(sample_interval_s=60, past_covariates=("a", "a"))


def test_covariates_have_neither_unit_nor_level() -> None:
    """Shown to fail by giving the network the change of a covariate undivided."""
    celsius = random_covariates()
    fahrenheit = celsius._replace(past_TBP=celsius.past_TBP * 1.8 + 32, future_SBU=celsius.future_SBU * 1.8 + 32)
    (one, _), (other, _) = encode(celsius, FRESH, CONFIG), encode(fahrenheit, FRESH, CONFIG)
    torch.testing.assert_close(one.past_TBF[5:], other.past_TBF[5:], rtol=0, atol=1e-6)
    torch.testing.assert_close(one.future_SBF[5:], other.future_SBF[5:], rtol=0, atol=1e-6)


def test_what_is_behind_the_mask_is_not_read() -> None:
    """Shown to fail by taking values in place of the filled ones."""
    covariates = random_covariates()
    garbage = torch.where(covariates.past_observed_TBP, covariates.past_TBP, 1e9)
    (one, _), (other, _) = encode(covariates, FRESH, CONFIG), encode(covariates._replace(past_TBP=garbage), FRESH, CONFIG)
    assert torch.equal(one.past_TBF, other.past_TBF)
    assert one.past_TBF.isfinite().all()


def test_the_first_flag_after_months_of_none_counts_and_does_not_shout() -> None:
    """Shown to fail by taking the statistics of the tick before: the first 1 is 28 then, the asinh of 1e12."""
    flag_S = torch.zeros(3000)
    flag_S[2500:2510] = 1
    value_S, mask_S = plan_inputs(flag_S).unbind(-1)
    assert (mask_S == 1).all()
    assert (value_S[2500:2510] > 1).all()
    assert (value_S.abs() < 4).all()
    assert (value_S[2520:] <= 0).all()


def test_a_flag_of_every_day_keeps_its_two_values_apart() -> None:
    flag_S = (torch.arange(2000) % 24 >= 16).double()
    value_S = plan_inputs(flag_S)[:, 0]
    assert value_S[500:][flag_S[500:] == 1].min() > value_S[500:][flag_S[500:] == 0].max() + 1


def test_a_plan_that_is_not_known_is_zero_with_a_mask_of_zero() -> None:
    plan_S = torch.linspace(0, 1, 40)
    plan_S[10:20] = torch.nan
    assert (plan_inputs(plan_S)[10:20] == 0).all()


def test_static_covariates_are_standardised_by_the_series_trained_on() -> None:
    """Shown to fail by leaving the buffers at 0 and 1; the unknown one counts as the mean."""
    forecaster = random_forecaster(COVARIATES)
    forecaster.standardise_static(torch.tensor([[10.0], [30.0], [torch.nan]]))
    sequence, _ = forecaster.observe(forecaster.initial_state(3), *random_ticks(), random_covariates())
    area_B = forecaster.features(sequence)[0, :, -1]
    torch.testing.assert_close(area_B, torch.tensor([10.0, 1.5, 0.0], dtype=torch.float64).asinh())  # (120 - 20) / 10, (35 - 20) / 10


@pytest.mark.parametrize(
    "given",
    [None, random_covariates()._replace(static_BJ=torch.zeros(3, 2)), random_covariates(horizon=5)],
    ids=["none", "one too many", "a plan that is too short"],
)
def test_covariates_other_than_the_configured_are_refused(given: Covariates | None) -> None:
    forecaster = random_forecaster(COVARIATES)
    with pytest.raises(ValueError, match=r"requires .* covariates"):
        forecaster.advance(forecaster.initial_state(3), *random_ticks(), covariates=given)


def test_a_forecaster_that_reads_none_refuses_some() -> None:
    forecaster: CausalForecaster = random_forecaster()
    with pytest.raises(ValueError, match="requires no covariates; got some"):
        forecaster.advance(forecaster.initial_state(3), *random_ticks(), covariates=random_covariates())
