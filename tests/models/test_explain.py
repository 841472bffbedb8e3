"""Integrated gradients add up to the difference they explain, blame only what had a part in it, and say what is theirs."""

import pytest
import torch
from torch import Tensor

from models.batch import Sequence
from models.explain import Window, integrated_gradients
from models.forecaster import CausalForecaster
from tests.models.conftest import COVARIATES, Ticks, random_covariates, random_forecaster, random_ticks

NUM_TICKS, FIRST = 80, 30


def window_of(forecaster: CausalForecaster, *, with_covariates: bool = False) -> Window:
    """Return the last ticks of one series with a fifth of its readings missing, and the state before them."""
    ticks = Ticks(*(part[:, :1] for part in random_ticks(NUM_TICKS)))
    values_TB = torch.where(ticks.observed_TB, ticks.values_TB, torch.nan)
    before = slice(0, FIRST)
    known = random_covariates(NUM_TICKS, 1) if with_covariates else None
    early = known._replace(**_rows(known, 0, FIRST)) if known is not None else None
    with torch.no_grad():
        _, state = forecaster.advance(
            forecaster.initial_state(1), values_TB[before], ticks.observed_TB[before], ticks.time_TB[before], covariates=early
        )
    late = known._replace(**_rows(known, FIRST, NUM_TICKS)) if known is not None else None
    return Window(state, values_TB[FIRST:, 0], ticks.time_TB[FIRST:, 0], late)


def _rows(known, first, last):
    horizon = 6
    rows = {"past_TBP": last, "past_observed_TBP": last, "future_SBU": last + horizon, "future_observed_SBU": last + horizon}
    return {name: getattr(known, name)[first:end] for name, end in rows.items()}


@pytest.mark.parametrize("step", [1, 6])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_attributions_add_up_to_the_forecast_less_that_of_the_baseline(cell: str, step: int) -> None:
    """Completeness. Shown to fail by a sum with equal weights over the nodes."""
    forecaster = random_forecaster(cell=cell)
    found = integrated_gradients(forecaster, window_of(forecaster), step)
    difference = found.forecast - found.baseline_forecast
    assert abs(difference) > 0.1
    assert abs(found.unexplained) < 1e-3 * abs(difference)


def test_covariates_are_in_the_sum() -> None:
    """Shown to fail by leaving the known-future covariates at their values along the path."""
    forecaster = random_forecaster(COVARIATES)
    found = integrated_gradients(forecaster, window_of(forecaster, with_covariates=True), 3)
    assert found.past_TP.shape == (NUM_TICKS - FIRST, 2)
    assert (found.future_SU.abs().sum(0) > 0).all()
    assert abs(found.unexplained) < 1e-3 * abs(found.forecast - found.baseline_forecast)


def test_the_forecast_is_the_one_of_advance_and_gaps_get_nothing() -> None:
    """Shown to fail by taking the last node of the path for its end."""
    forecaster = random_forecaster()
    window = window_of(forecaster)
    found = integrated_gradients(forecaster, window, 2)
    values_TB, observed_TB = window.values_T.unsqueeze(1), ~window.values_T.isnan().unsqueeze(1)
    with torch.no_grad():
        quantiles_1BHQ, _ = forecaster.advance(window.state, values_TB, observed_TB, window.time_T.unsqueeze(1))
    assert found.forecast == pytest.approx(float(quantiles_1BHQ[0, 0, 1, 4]), abs=1e-12)
    assert (found.target_T[window.values_T.isnan()] == 0).all()
    assert (found.target_T[~window.values_T.isnan()] != 0).all()


class LastValue(CausalForecaster):
    """Forecasts the last reading, whatever it has learned."""

    def decode(self, sequence: Sequence, top_TBD: Tensor, origins_O: Tensor) -> Tensor:
        """Return the last reading for every step and level."""
        last_OB11 = sequence.history_RTB[origins_O + self.config.history_length][..., None, None]
        return last_OB11.expand(-1, -1, self.config.horizon, len(self.config.quantile_levels))


def test_a_forecaster_of_the_last_value_blames_the_last_reading_alone() -> None:
    """Shown to fail by shifting the attributions by one tick."""
    forecaster = LastValue(random_forecaster().config).double().eval()
    window = window_of(forecaster)
    window = window._replace(values_T=window.values_T.nan_to_num(100.0))
    found = integrated_gradients(forecaster, window, 1)
    assert found.target_T[-1].item() == pytest.approx(found.forecast - found.level, rel=1e-12)
    assert found.forecast == pytest.approx(window.values_T[-1].item())
    assert (found.target_T[:-1] == 0).all()


def test_what_cannot_be_explained_is_refused() -> None:
    forecaster = random_forecaster()
    window = window_of(forecaster)
    with pytest.raises(ValueError, match="a step of 1 to 6; got 7"):
        integrated_gradients(forecaster, window, 7)
    with pytest.raises(ValueError, match=r"float64; got torch.float32"):
        integrated_gradients(forecaster.float(), window, 1)
