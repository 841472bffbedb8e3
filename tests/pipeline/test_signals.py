"""Laws of `pipeline.ingest.signals`: the truth of a simulation looks like a building's sensors."""

from datetime import timedelta

import numpy as np
import pytest

from pipeline.ingest.fleet import METRICS, FaultSpec, FleetSpec
from pipeline.ingest.signals import Signals, simulate_signals, site_weather, truth

SPEC = FleetSpec(num_devices=3, days=56, faults=FaultSpec.none())
TEMPERATURE, POWER, ENERGY, HUMIDITY = range(4)


@pytest.fixture(scope="module")
def signals() -> Signals:
    """Eight clean weeks of three devices, hourly."""
    return simulate_signals(SPEC)


def test_temperature_and_power_follow_the_day(signals: Signals) -> None:
    daily = signals.values[:, :2].reshape(3, 2, 56, 24).mean(axis=2)
    assert np.isin(daily[:, TEMPERATURE].argmax(axis=1), range(11, 18)).all()
    assert (daily[:, POWER, 10:12].mean(axis=1) > 1.5 * daily[:, POWER, 1:4].mean(axis=1)).all()


def test_power_drops_at_weekends(signals: Signals) -> None:
    monday_first = np.roll(signals.values[:, POWER].reshape(3, 56, 24).mean(axis=2), 3, axis=1)[:, 7:]  # 2026 starts on a Thursday
    weeks = monday_first.reshape(3, 7, 7)
    assert (weeks[:, :, 5:].mean(axis=2) < 0.8 * weeks[:, :, :5].mean(axis=2)).all()


def test_one_weather_moves_all_devices(signals: Signals) -> None:
    days = np.vstack([site_weather(SPEC), *signals.values[:, TEMPERATURE]]).reshape(4, 56, 24).mean(axis=2)
    assert np.corrcoef(days).min() > 0.5


def test_energy_counts_power(signals: Signals) -> None:
    increments = np.diff(signals.values[:, ENERGY], axis=1)
    assert (increments > 0).all()
    assert np.allclose(increments, signals.values[:, POWER, 1:], atol=0.002)


def test_a_reset_counter_starts_again_near_zero() -> None:
    spec = FleetSpec(num_devices=3, days=56, faults=FaultSpec.only("counter_reset", rate=0.01))
    signals = simulate_signals(spec)
    device, tick = np.nonzero(np.diff(signals.values[:, ENERGY], axis=1, prepend=0.0) < 0)
    assert list(zip(device, tick, strict=True)) == signals.changes.select("device", "tick").rows()
    assert len(tick) > 5
    assert signals.values[device, ENERGY, tick].max() < 50


def test_a_level_shift_is_the_only_difference_to_the_clean_signal(signals: Signals) -> None:
    shifted = simulate_signals(FleetSpec(num_devices=3, days=56, faults=FaultSpec.only("level_shift", rate=0.005)))
    steps = np.diff(shifted.values[:, TEMPERATURE] - signals.values[:, TEMPERATURE], axis=1, prepend=0.0)
    found = [(int(device), int(tick)) for device, tick in np.argwhere(np.abs(steps) > 0.02)]
    named = shifted.changes.filter(metric="temperature").select("device", "tick").rows()
    assert found == named
    assert len(named) > 3


def test_more_devices_leave_the_others_as_they_were(signals: Signals) -> None:
    more = simulate_signals(FleetSpec(num_devices=5, days=56, faults=FaultSpec.none()))
    assert np.array_equal(more.values[:3], signals.values)
    assert not np.array_equal(more.values[3], more.values[4])


def test_a_choice_of_metrics_does_not_change_them(signals: Signals) -> None:
    chosen = simulate_signals(FleetSpec(num_devices=3, days=56, faults=FaultSpec.none(), metrics=("humidity", "energy")))
    assert np.array_equal(chosen.values, signals.values[:, [HUMIDITY, ENERGY]])


@pytest.mark.parametrize("interval", [timedelta(seconds=30), timedelta(minutes=7), timedelta(days=1)])
def test_any_interval_gives_finite_plausible_values(interval: timedelta) -> None:
    frame = truth(FleetSpec(num_devices=1, days=1, sample_interval=interval, faults=FaultSpec.none()))
    assert len(frame) == 4 * (timedelta(days=1) // interval)
    assert frame["value"].is_finite().all()
    assert (frame.filter(metric="humidity")["value"].is_between(0, 100)).all()
    assert frame["unit"].unique(maintain_order=True).to_list() == [metric.unit for metric in METRICS.values()]
