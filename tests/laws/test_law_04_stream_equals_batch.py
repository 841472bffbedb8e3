"""Law 4: stepping with the carried state equals one call over the sequence, and a restart equals no restart."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.forecast.state import StreamState
from tests.laws.stepping import advance, assert_same_state
from tests.models.conftest import random_forecaster, random_ticks


@pytest.mark.parametrize(
    "network", [{"wiring": "residual"}, {"wiring": "plain", "cell": "gru", "num_layers": 3, "input_skips": True}], ids=str
)
def test_one_tick_at_a_time_equals_one_pass(network: dict[str, object]) -> None:
    """Shown to fail by dropping the cell state between ticks, and by a lag ring one tick too short."""
    forecaster, ticks = random_forecaster(**network), random_ticks()
    in_one_pass, after_pass = advance(forecaster, forecaster.initial_state(3), ticks)
    state, stepped = forecaster.initial_state(3), []
    for tick in range(len(ticks.values_TB)):
        quantiles, state = advance(forecaster, state, ticks.part(slice(tick, tick + 1)))
        stepped.append(quantiles)
    np.testing.assert_allclose(np.concatenate(stepped), in_one_pass, rtol=0, atol=1e-10)
    assert_same_state(state, after_pass)


def test_restart_from_a_snapshot_equals_no_restart(tmp_path: Path) -> None:
    """Shown to fail by leaving the normaliser's count out of the snapshot."""
    forecaster, ticks = random_forecaster(), random_ticks()
    whole, after_whole = advance(forecaster, forecaster.initial_state(3), ticks)
    _, half_way = advance(forecaster, forecaster.initial_state(3), ticks.part(slice(41)))
    StreamState("1", ("a", "b", "c"), np.array([40, 40, 40]), half_way).snapshot(tmp_path / "state.safetensors")
    resumed = StreamState.resume(tmp_path / "state.safetensors")
    rest, after_rest = advance(forecaster, resumed.carried, ticks.part(slice(41, None)))
    np.testing.assert_allclose(rest, whole[41:], rtol=0, atol=1e-10)
    assert_same_state(after_rest, after_whole)


def test_single_precision_agrees_within_its_rounding() -> None:
    """Shown to fail by dropping the cell state between ticks."""
    forecaster, ticks = random_forecaster().float(), random_ticks()
    ticks = ticks._replace(values_TB=ticks.values_TB + 1e7)
    whole, _ = advance(forecaster, forecaster.initial_state(3), ticks, every_tick=False)
    state = forecaster.initial_state(3)
    for tick in range(len(ticks.values_TB)):
        last, state = advance(forecaster, state, ticks.part(slice(tick, tick + 1)))
    np.testing.assert_allclose(last, whole, rtol=0, atol=1e-2)
