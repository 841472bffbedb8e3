"""The forecaster as a whole: free of units, honest about new series, whole on every wiring."""

from dataclasses import fields

import torch

from models.forecaster import CausalForecaster
from tests.models.conftest import Ticks, random_forecaster, random_ticks


def forecast(forecaster: CausalForecaster, ticks: Ticks, scale: float = 1.0, shift: float = 0.0) -> torch.Tensor:
    """Return quantiles at the last tick of scaled and shifted series."""
    values = ticks.values_TB * scale + shift
    with torch.inference_mode():
        quantiles, _ = forecaster.advance(forecaster.initial_state(values.shape[1]), values, ticks.observed_TB, ticks.time_TB)
    return quantiles


def test_forecast_scales_with_the_unit(forecaster: CausalForecaster, ticks: Ticks) -> None:
    torch.testing.assert_close(forecast(forecaster, ticks, scale=1000.0), 1000 * forecast(forecaster, ticks), rtol=1e-9, atol=0)


def test_forecast_moves_with_the_level(ticks: Ticks) -> None:
    forecaster = random_forecaster(num_layers=1)
    moved, still = forecast(forecaster, ticks, shift=50.0), forecast(forecaster, ticks)
    # not exact: while only a few readings are known, the level itself stands in for the unknown scale
    torch.testing.assert_close(moved - 50, still, rtol=0.02, atol=0.5)


def test_a_forecast_needs_one_reading_and_is_then_wide() -> None:
    forecaster = random_forecaster()
    one = Ticks(torch.tensor([[20.0]]).double(), torch.tensor([[True]]), torch.tensor([[1_700_000_000]]))
    quantiles = forecast(forecaster, one)
    assert torch.isfinite(quantiles).all()
    assert (quantiles[..., -1] - quantiles[..., 0]).min() > 0.5


def test_series_do_not_touch_each_other(forecaster: CausalForecaster, ticks: Ticks) -> None:
    alone = Ticks(*(tensor[:, :1] for tensor in ticks))
    torch.testing.assert_close(forecast(forecaster, ticks)[:, :1], forecast(forecaster, alone), rtol=1e-12, atol=1e-9)


def test_every_series_has_its_own_calendar() -> None:
    """Shown to fail by taking the first series' instants for all, and by asking whether any other shares them."""
    forecaster, ticks = random_forecaster(), random_ticks()
    apart = ticks._replace(time_TB=ticks.time_TB + torch.tensor([0, 0, 7200]))
    together = forecast(forecaster, apart)
    alone = [forecast(forecaster, Ticks(*(tensor[:, [series]] for tensor in apart))) for series in range(3)]
    torch.testing.assert_close(together, torch.cat(alone, dim=1), rtol=1e-12, atol=1e-9)
    assert not torch.equal(together[:, 2], forecast(forecaster, ticks)[:, 2])


def test_advancing_leaves_the_state_before_as_it_was(ticks: Ticks) -> None:
    """Shown to fail by shifting the history in place."""
    forecaster = random_forecaster()
    _, state = forecaster.advance(forecaster.initial_state(3), *ticks.part(slice(70)))
    before = state.select(torch.arange(3))
    forecaster.advance(state, *ticks.part(slice(70, 80)))
    assert all(torch.equal(getattr(state, field.name), getattr(before, field.name)) for field in fields(state))


def test_history_is_zero_before_the_first_reading(ticks: Ticks) -> None:
    """Sums over it rest on that. Shown to fail by filling with the value behind the mask."""
    forecaster = random_forecaster()
    sequence, _ = forecaster.observe(forecaster.initial_state(3), *ticks)
    history_TB = sequence.history_RTB[forecaster.config.history_length :]
    assert (history_TB[sequence.age_TB < 0] == 0).all()
    assert (history_TB[sequence.age_TB >= 0] != 0).all()
