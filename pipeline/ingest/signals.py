"""The clean signals of a simulated fleet: a site's weather, and what each device measures under it, before anything goes wrong.

Called by `pipeline.ingest.simulate`; `truth` is for whoever wants to compare with what really was.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import Self

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.ingest.fleet import METRICS, FleetSpec
from pipeline.schemas import UTC_US

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Signals:
    """The clean readings of a fleet and what happened in the signals themselves.

    Attributes:
        values: devices x metrics x ticks, float64, at the sensors' resolution.
        changes: fault, device, metric, tick, detail: the level shifts and counter resets.
    """

    values: Floats
    changes: pl.DataFrame


CHANGES = pl.Schema({"fault": pl.String, "device": pl.Int64, "metric": pl.String, "tick": pl.Int64, "detail": pl.String})


@dataclass(frozen=True)
class _Calendar:
    """The ticks in hours: since the start, of the day, and of the working week."""

    interval: float
    elapsed: Floats
    hour: Floats
    day: Ints  # since the start
    weekday: Ints  # Monday is 0
    day_of_year: Floats

    @classmethod
    def of(cls, spec: FleetSpec) -> Self:
        interval = spec.interval_us / 3.6e9
        elapsed = np.arange(spec.num_ticks, dtype=np.float64) * interval
        since_epoch = spec.start_us / 3.6e9 + elapsed
        days = (since_epoch // 24).astype(np.int64)
        return cls(interval, elapsed, since_epoch % 24, days - days[0], (days + 3) % 7, (since_epoch / 24) % 365.2425)


def site_weather(spec: FleetSpec) -> Floats:
    """Return the site's outdoor temperature in degC for each tick: the season, the sun, and fronts that last days (AR(1) in hours)."""
    calendar = _Calendar.of(spec)
    rng = np.random.default_rng(np.random.SeedSequence(spec.seed, spawn_key=(0,)))
    shocks = rng.normal(0.0, 0.5, spec.days * 24 + 2)
    persistence = 0.985  # a front keeps half its strength for two days
    shocks[0] /= np.sqrt(1 - persistence**2)  # start in the stationary distribution
    fronts = np.fromiter(accumulate(shocks, lambda level, shock: persistence * level + shock), float, len(shocks))
    season = 9.0 - 10.0 * np.cos(2 * np.pi * (calendar.day_of_year - 20) / 365.25)
    sun = 3.5 * np.cos(2 * np.pi * (calendar.hour - 15) / 24)
    weather: Floats = season + sun + np.interp(calendar.elapsed, np.arange(len(fronts)), fronts)
    return weather


def simulate_signals(spec: FleetSpec) -> Signals:
    """Return what every device of the fleet measures, before anything goes wrong on the way."""
    calendar, weather = _Calendar.of(spec), site_weather(spec)
    values = np.empty((spec.num_devices, len(spec.metrics), spec.num_ticks))
    changes: list[tuple[str, int, str, int, str]] = []
    for device in range(spec.num_devices):
        signal, shift, *_ = spec.streams(device)
        levels, resets = _draw_changes(spec, np.random.default_rng(shift))
        measured = _measure(calendar, weather, levels, resets, np.random.default_rng(signal))
        values[device] = [np.round(measured[name], METRICS[name].decimals) for name in spec.metrics]
        changes += [(fault, device, name, tick, detail) for fault, name, tick, detail in _describe(spec, levels, resets)]
    return Signals(values, pl.DataFrame(changes, schema=CHANGES, orient="row"))


def truth(spec: FleetSpec) -> pl.DataFrame:
    """Return the clean readings as a frame: device_id, metric, ts, value, unit; one row for each series and tick."""
    values = simulate_signals(spec).values
    device, metric, tick = (index.ravel() for index in np.indices(values.shape))
    names = pl.Series([spec.device_id(number) for number in range(spec.num_devices)])
    return pl.DataFrame(
        {
            "device_id": names.gather(device),
            "metric": pl.Series(spec.metrics).gather(metric),
            "ts": pl.Series(spec.start_us + tick * spec.interval_us).cast(UTC_US),
            "value": values.ravel(),
            "unit": pl.Series([METRICS[name].unit for name in spec.metrics]).gather(metric),
        }
    )


def _draw_changes(spec: FleetSpec, rng: np.random.Generator) -> tuple[dict[str, Floats], Ints]:
    """Draw a device's level in each tick (0 at first) by metric, and the ticks at which its counter is reset.

    Both happen at the first tick of a slot, which no other fault strikes.
    """
    slots = np.arange(1, spec.num_ticks // spec.slot_ticks) * spec.slot_ticks
    levels = {}
    for name, metric in METRICS.items():
        happens = rng.random(len(slots)) < spec.faults.level_shift * spec.slot_ticks
        sizes = rng.choice([-1.0, 1.0]) * metric.typical_shift * rng.uniform(0.6, 1.4, len(slots))
        signs = np.where(np.cumsum(happens) % 2, 1.0, -1.0)  # there and back again, or the level would wander off
        steps = np.zeros(spec.num_ticks)
        steps[slots] = np.where(happens, np.round(sizes * signs, metric.decimals), 0.0)
        levels[name] = np.cumsum(steps)
    return levels, slots[rng.random(len(slots)) < spec.faults.counter_reset * spec.slot_ticks]


def _describe(spec: FleetSpec, levels: dict[str, Floats], resets: Ints) -> list[tuple[str, str, int, str]]:
    """Return fault, metric, tick and detail of a device's changes in the metrics that it reports."""
    found = []
    for name in spec.metrics:
        steps = np.diff(levels[name], prepend=0.0)
        unit = METRICS[name].unit
        found += [("level_shift", name, int(tick), f"by {steps[tick]:+.2f} {unit}") for tick in np.flatnonzero(np.abs(steps) > 1e-9)]
    if "energy" in spec.metrics:
        found += [("counter_reset", "energy", int(tick), "counts from 0 again") for tick in resets]
    return found


def _measure(calendar: _Calendar, weather: Floats, levels: dict[str, Floats], resets: Ints, rng: np.random.Generator) -> dict[str, Floats]:
    """Return one device's signals by metric: a room and the machines in it, in the units of `METRICS`."""
    occupancy = _occupancy(calendar, rng)
    outside = weather - 8.0
    warmth = rng.uniform(0.8, 1.8) * np.cos(2 * np.pi * (calendar.hour - rng.uniform(14, 17)) / 24)
    temperature = rng.uniform(18.5, 22.5) + warmth + rng.uniform(0.8, 2.2) * occupancy + rng.uniform(0.12, 0.3) * outside
    temperature += _wander(calendar, rng, every_h=6, deviation=0.35) + rng.normal(0, 0.12, len(weather)) + levels["temperature"]

    intensity = rng.uniform(5, 12) * rng.normal(1.0, 0.06, calendar.day[-1] + 1)[calendar.day]  # some days are busier
    heating = rng.uniform(0.1, 0.25) * np.maximum(15.0 - weather, 0.0) * (0.4 + 0.6 * occupancy)
    load = rng.uniform(2.5, 4.0) + intensity * occupancy + heating
    power = load * (1 + _wander(calendar, rng, every_h=2, deviation=0.04)) + rng.normal(0, 0.15, len(weather)) + levels["power"]
    power = np.maximum(power, 0.05)

    total = rng.uniform(1e3, 3e4) + np.cumsum(power * calendar.interval)
    at_reset = np.zeros(len(weather))
    at_reset[resets] = total[resets - 1]
    energy = total - np.maximum.accumulate(at_reset)

    humidity = rng.uniform(40, 50) - 1.4 * (temperature - 20.0) + 4.0 * occupancy + 3.0 * np.tanh(outside / 5.0)
    humidity += _wander(calendar, rng, every_h=12, deviation=2.0) + rng.normal(0, 0.5, len(weather)) + levels["humidity"]
    return {"temperature": temperature, "power": power, "energy": energy, "humidity": np.clip(humidity, 12.0, 97.0)}


def _occupancy(calendar: _Calendar, rng: np.random.Generator) -> Floats:
    """Return how much is going on in the building, 0 to 1: a working day with its lunch, a quiet weekend."""
    opens, closes = rng.uniform(6.5, 8.0), rng.uniform(17.0, 19.0)
    day = 1 / (1 + np.exp((opens - calendar.hour) / 0.5)) / (1 + np.exp((calendar.hour - closes) / 0.7))
    lunch = 1 - 0.15 * np.exp(-(((calendar.hour - 12.5) / 0.7) ** 2))
    occupancy: Floats = np.where(calendar.weekday < 5, 1.0, rng.uniform(0.08, 0.25)) * day * lunch
    return occupancy


def _wander(calendar: _Calendar, rng: np.random.Generator, *, every_h: float, deviation: float) -> Floats:
    """Return smooth noise: independent normal values every `every_h` hours, joined by lines."""
    knots = rng.normal(0.0, deviation, int(calendar.elapsed[-1] / every_h) + 2)
    return np.interp(calendar.elapsed, np.arange(len(knots)) * every_h, knots)
