"""The highway: one linear regression for each step, whichever blocks it has, of nothing but readings there are and what is known ahead."""

import pytest
import torch
from torch import Tensor

from models.config import ForecasterConfig
from models.forecaster import CausalForecaster
from models.highway import Highway, HighwayInputs, profile_slot
from tests.models.conftest import COVARIATES, random_covariates, random_ticks

HOUR_S, DAY_S, WEEK_S, MONTH_S = 3600, 86_400, 604_800, 2_629_800
CASES = {
    "horizon over a season": {"horizon": 11, "seasons": (7,)},
    "horizon of whole seasons": {"horizon": 14, "seasons": (7, 14)},
    "horizon under a season": {"horizon": 4, "seasons": (7,)},
    "no season": {"horizon": 5, "seasons": ()},
    "season that fits once": {"horizon": 5, "seasons": (12,)},
    "covariates": {"horizon": 11, "seasons": (7,), **COVARIATES},
    "no calendar": {"horizon": 11, "seasons": (7,), "calendar": False},
}


def config(**changes: object) -> ForecasterConfig:
    """Return a configuration whose context is no multiple of its season."""
    return ForecasterConfig(**{"sample_interval_s": HOUR_S, "context_length": 23, **changes})


def random_inputs(highway: Highway, num_origins: int = 20) -> HighwayInputs:
    """Return float64 inputs in the shapes that a highway takes."""
    horizon, widths = highway.horizon, highway.blocks
    return HighwayInputs(
        torch.randn(num_origins, highway.context_length).double(),
        torch.randn(num_origins, widths["levels"]).double(),
        torch.randn(num_origins, widths["measured"]).double(),
        torch.randn(num_origins, horizon, widths["planned"]).double(),
        torch.randint(len(highway.profile_WC), (num_origins, horizon)),
    )


def blocks(highway: Highway, inputs: HighwayInputs, step: int) -> dict[str, Tensor]:
    """Return the regressors of one step by block."""
    parts = highway.regressors(inputs, step).split(list(highway.blocks.values()), dim=-1)
    return dict(zip(highway.blocks, parts, strict=True))


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_regressors_times_weights_are_what_is_added(changes: dict[str, object]) -> None:
    """Shown to fail by a place of (step - 2) in the season, by plans of the first step alone, and by leaving out the last padding."""
    highway = Highway(config(**changes)).double()
    highway.weight_HF.data.normal_()
    inputs = random_inputs(highway)
    by_step = [highway.regressors(inputs, step) @ highway.weight_HF[step - 1] for step in range(1, highway.horizon + 1)]
    torch.testing.assert_close(torch.stack(by_step, dim=-1), highway(inputs), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("horizon", [4, 11, 30])
def test_season_values_lie_whole_seasons_before_the_target(horizon: int) -> None:
    """Shown to fail by counting the seasons from the oldest value of the context, and by a place of (step - 2)."""
    highway = Highway(config(horizon=horizon, seasons=(7,)))
    context_NL = torch.arange(-22.0, 1.0).unsqueeze(0)  # each value says how many ticks after the origin it was read
    inputs = random_inputs(highway, 1)._replace(context_NL=context_NL)
    for step in range(1, horizon + 1):
        (values_M,) = blocks(highway, inputs, step)["season values"].tolist()
        assert values_M == [tick for tick in range(-20, 1) if (step - tick) % 7 == 0]


def test_season_means_and_recent_values_are_those_of_the_context() -> None:
    """Shown to fail by means over the places of a season, and by counting the seasons from the oldest value of the context."""
    highway = Highway(config(horizon=4, seasons=(7,)))
    inputs = random_inputs(highway, 1)._replace(context_NL=torch.arange(-22.0, 1.0).unsqueeze(0))
    found = blocks(highway, inputs, 1)
    assert found["recent"].tolist() == [[-6.0, -5.0, -4.0, -3.0, -2.0, -1.0, 0.0]]
    assert found["season means"].tolist() == [[-17.0, -10.0, -3.0]]


def test_nothing_is_read_of_the_time_before_the_first_reading() -> None:
    """Shown to fail by normalising the empty history before a series as if it were values of 0."""
    forecaster = CausalForecaster(config(horizon=4, seasons=(7,)))
    values_TB, observed_TB, time_TB = random_ticks()
    observed_TB[:60], observed_TB[60] = False, True
    sequence, _ = forecaster.observe(forecaster.initial_state(3), values_TB, observed_TB, time_TB)
    _, inputs = forecaster.without_state(sequence, torch.tensor([72]))  # thirteen ticks old, where the context has 23
    assert (inputs.context_NL[:, :10] == 0).all()
    assert (inputs.context_NL[:, 10:] != 0).all()
    found = blocks(forecaster.decoder.highway, inputs, 2)
    assert (found["season values"] != 0).all(dim=0).tolist() == (found["season means"] != 0).all(dim=0).tolist() == [False, True, True]


def test_regressors_are_free_of_unit_and_level() -> None:
    """Shown to fail by a context of differences to the mean that are not divided by the scale, and by the raw context."""
    forecaster = CausalForecaster(config(horizon=4, seasons=(7,))).double()
    values_TB, observed_TB, time_TB = random_ticks()
    found = []
    for scale, shift in ((1.0, 0.0), (1000.0, -3e4)):
        sequence, _ = forecaster.observe(forecaster.initial_state(3), scale * values_TB + shift, observed_TB, time_TB)
        _, inputs = forecaster.without_state(sequence, torch.tensor([22, 70]))  # the second series is younger than the context at first
        found.append(forecaster.decoder.highway.regressors(inputs, 3))
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-9)


def test_slots_and_plans_are_those_of_the_targets() -> None:
    """Shown to fail by reading both at the origin, and by the slots of the ticks before the targets."""
    forecaster = CausalForecaster(config(horizon=6, seasons=(7,), **COVARIATES))
    ticks, covariates = random_ticks(), random_covariates()
    sequence, _ = forecaster.observe(forecaster.initial_state(3), *ticks, covariates)
    _, inputs = forecaster.without_state(sequence, torch.tensor([40, 79]))
    for origin, inputs_H in ((40, 0), (79, 3)):  # of the first series
        target_H = origin + torch.arange(1, 7)
        time_H = ticks.time_TB[0, 0] + HOUR_S * target_H
        assert torch.equal(inputs.slot_NH[inputs_H], profile_slot(time_H, forecaster.config))
        assert sequence.covariates is not None
        assert torch.equal(inputs.planned_NHU[inputs_H], sequence.covariates.future_SBF[target_H, 0].float())
        assert torch.equal(inputs.measured_NV[inputs_H], sequence.covariates.past_TBF[origin, 0].float())


def test_the_profile_has_one_value_for_each_hour_of_the_week() -> None:
    """Shown to fail by a period of a week and an hour, and by slots of two hours."""
    highway = Highway(config(seasons=(24,)))
    time_T = 1_700_000_000 + HOUR_S * torch.arange(3 * 168)
    profile_TC = highway.profile_WC[profile_slot(time_T, config())]
    assert torch.equal(profile_TC[:336], profile_TC[168:])
    assert len(profile_TC.unique(dim=0)) == 168


@pytest.mark.parametrize(
    ("interval_s", "num_slots"),
    [(60, 336), (300, 336), (420, 336), (HOUR_S, 168), (DAY_S, 7), (WEEK_S, 52), (MONTH_S, 12)],
)
def test_every_instant_lies_in_a_slot_of_the_profile(interval_s: int, num_slots: int) -> None:
    """Shown to fail by slots that are counted from 1, and by slots as fine as the grid."""
    grid = config(sample_interval_s=interval_s)
    slot_T = profile_slot(1_700_000_000 + interval_s * torch.arange(-30_000, 30_000), grid)
    assert slot_T.unique().tolist() == list(range(num_slots))
    assert Highway(grid).profile_WC.shape[0] == num_slots


@pytest.mark.parametrize("changes", [{"calendar": False}, {"sample_interval_s": 200 * DAY_S}])
def test_ticks_without_a_calendar_have_no_profile(changes: dict[str, object]) -> None:
    """Shown to fail by not asking for `calendar`, and by taking a year for a profile of any grid below it."""
    highway = Highway(config(**changes))
    assert highway.blocks["profile"] == 0
    assert profile_slot(torch.arange(0, 10**9, 10**6), config(**changes)).unique().tolist() == [0]


def test_a_new_highway_adds_nothing() -> None:
    """Shown to fail by weights that start at random."""
    highway = Highway(config(horizon=11, seasons=(7,))).double()
    assert (highway(random_inputs(highway)) == 0).all()
