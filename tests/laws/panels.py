"""Panels made in memory for the laws that train: hourly, starting on a Monday."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from pipeline.prepare.sequences import Panel
from pipeline.schemas import EPOCH
from pipeline.verify.made_up import made_up_panel

START = datetime(2026, 1, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)


def hourly_panel(values_TB: NDArray[np.float64]) -> Panel:
    """Return a panel of hourly series that all start at START."""
    panel = made_up_panel(values_TB, HOUR, first_tick=(START - EPOCH) // HOUR)
    return replace(panel, series_ids=tuple(f"s{b}/value" for b in range(values_TB.shape[1])))


def daily_cycle(num_ticks: int, num_series: int, seed: int = 0) -> NDArray[np.float64]:
    """Return series with a daily cycle and noise (T, B)."""
    rng = np.random.default_rng(seed)
    phase_B, hours_T1 = rng.uniform(0, 24, num_series), np.arange(num_ticks)[:, None]
    cycle_TB: NDArray[np.float64] = 10 + 3 * np.sin(2 * np.pi * (hours_T1 + phase_B) / 24)
    return cycle_TB + rng.normal(0, 0.5, (num_ticks, num_series))
