"""What a forecaster loses at each origin of a period that no choice has looked at: the raw material of a comparison.

Called by `pipeline.study.finals`; the period also by `pipeline.study.plan` and `pipeline.study.comparison`.

Letters: S series, O origins, H horizon, Q quantile levels.
"""

import numpy as np
from numpy.typing import NDArray

from models.forecaster import CausalForecaster
from pipeline.errors import DataError
from pipeline.evaluate.scoring import Period, origin_groups, reference, season_of
from pipeline.forecast.engine import StreamEngine
from pipeline.prepare.sequences import Panel
from pipeline.prepare.splits import Split

Floats = NDArray[np.float64]
MAX_OUTPUTS = 100_000_000  # quantiles of one forecaster, 800 MB: takes every n-th origin where there would be more


def held_out(panel: Panel, split: Split, horizon: int, num_levels: int) -> Period:
    """Return the period after validation, with a stride that bounds what a forecaster says over it.

    Raises:
        DataError: when it holds no origin with a whole horizon.
    """
    outputs = max(1, (panel.end - split.validation_end) // panel.interval) * len(panel.series_ids) * horizon * num_levels
    period = Period(start=split.validation_end, end=panel.end, train_end=split.train_end, stride=-(-outputs // MAX_OUTPUTS))
    if next(origin_groups(panel, period, horizon), None) is None:
        raise DataError(
            f"A comparison requires held-out origins with a horizon of {horizon} ticks between {period.start:%Y-%m-%d %H:%M} and "
            f"{period.end:%Y-%m-%d %H:%M}; got none. Raise test_fraction, move --validation-end, or ingest more."
        )
    return period


def origin_losses(forecaster: CausalForecaster, panel: Panel, period: Period) -> Floats:
    """Return the CRPS (S, O) of each series and origin, in standard deviations of the series' training part, before any calibration.

    The mean over steps and levels of twice the pinball loss; NaN where nothing came true, or a series has no such origin. Column o is
    the o-th of the period's instants, for every series alike.

    Args:
        forecaster: to score.
        panel: the series, from their first tick on.
        period: as `held_out` returns it.
    """
    config = forecaster.config
    groups = list(origin_groups(panel, period, config.horizon))
    turns = [(panel.first_tick_B[columns[0]] + rows) // period.stride for columns, rows in groups]
    first = min(int(turn[0]) for turn in turns)
    losses_SO = np.full((len(panel.series_ids), max(int(turn[-1]) for turn in turns) - first + 1), np.nan)
    levels_Q = np.array(config.quantile_levels)
    for (columns_B, rows_O), turn_O in zip(groups, turns, strict=True):
        until = int(rows_O[-1]) + 1
        engine = StreamEngine.fresh(forecaster, len(columns_B), calibrate=False)
        part = panel.columns(columns_B)
        for block in engine.advance(part.values_TB[:until], part.time_TB[:until], rows_O, part.covariates):
            at_O = turn_O[np.searchsorted(rows_O, block.origins_O)] - first
            for b, column in enumerate(columns_B[block.columns_B]):
                actual_OH = panel.values_TB[block.origins_O[:, None] + np.arange(1, config.horizon + 1), column]
                deviation = reference(panel, int(column), period, season_of(config)).deviation
                losses_SO[column, at_O] = crps(actual_OH, block.quantiles_OBHQ[:, b], levels_Q) / deviation
    return losses_SO


def crps(actual_OH: Floats, quantiles_OHQ: Floats, levels_Q: Floats) -> Floats:
    """Return the mean of twice the pinball loss over steps and levels (O,), of the steps that came true; NaN where none did."""
    error_OHQ = actual_OH[..., None] - quantiles_OHQ
    pinball_OH = 2 * np.maximum(levels_Q * error_OHQ, (levels_Q - 1) * error_OHQ).mean(axis=-1)
    count_O = np.isfinite(actual_OH).sum(axis=-1)
    total_O = np.where(np.isfinite(actual_OH), pinball_OH, 0.0).sum(axis=-1)
    crps_O: Floats = np.divide(total_O, count_O, out=np.full(len(total_O), np.nan), where=count_O > 0)
    return crps_O
