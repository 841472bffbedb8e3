"""Panels made in memory, for laws that go through training or scoring. Called by the other modules of `pipeline.verify`.

Letters: T ticks, B series, P past, U known-future and J static covariates, S = T + horizon.
"""

from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from models.config import ForecasterConfig
from pipeline.prepare.covariates import CovariateNames, PanelCovariates
from pipeline.prepare.sequences import Panel

START_TICK = 490_000  # hourly: in November 2025


def made_up_panel(
    values_TB: NDArray[np.float64], interval: timedelta, covariates: PanelCovariates | None = None, *, first_tick: int = START_TICK
) -> Panel:
    """Return series that all start at the same tick; NaN is not observed."""
    num_ticks, num_series = values_TB.shape
    return Panel(
        series_ids=tuple(f"made-up-{b}/value" for b in range(num_series)),
        interval=interval,
        offset_us_B=np.zeros(num_series, np.int64),
        first_tick_B=np.full(num_series, first_tick, np.int64),
        length_B=np.full(num_series, num_ticks, np.int64),
        values_TB=values_TB,
        covariates=covariates,
    )


def noise_covariates(config: ForecasterConfig, num_ticks: int, num_series: int) -> PanelCovariates | None:
    """Return covariates of the configuration that say nothing; None where it names none."""
    if not config.has_covariates:
        return None
    rng, names = np.random.default_rng(7), CovariateNames(*config.covariate_names)
    return PanelCovariates(
        names,
        past_TBP=rng.normal(size=(num_ticks, num_series, len(names.past))),
        future_SBU=rng.normal(size=(num_ticks + config.horizon, num_series, len(names.future))),
        static_BJ=rng.normal(size=(num_series, len(names.static))),
    )
