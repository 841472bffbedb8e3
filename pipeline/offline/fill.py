"""Fill the gaps of closed history for reports: fit a `GapFiller` to the history itself, then read every gap from both sides.

What comes out says in `knowledge_time` what it has read, and `pipeline.prepare.sequences.to_panel`, where every way to a
forecast begins, refuses values that know of later times than their own. Called by users and by `pipeline.offline.report`.

Letters as in `pipeline.offline.gaps`.
"""

import logging
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from models.gap_filling import GapFiller, GapWindow, fill_loss, go_dark
from models.offline import minimise
from pipeline.errors import DataError
from pipeline.offline.gaps import Gaps, Stretches, find_gaps, gap_windows
from pipeline.prepare.covariates import PanelCovariates
from pipeline.prepare.join_covariates import values_beside
from pipeline.prepare.sequences import Panel, to_panel
from pipeline.schemas import EPOCH, MICROSECOND, UTC_US
from pipeline.store.identity import device_and_metric

logger = logging.getLogger(__name__)

DAY = timedelta(days=1)
LONGEST_SEASON = 288  # ticks: a day of five minutes; finer grids are filled from neighbours alone
SHORTEST_REACH = 48  # ticks
FEW_GAPS = 8  # fewer say little of how long gaps are
VALIDATION_GAPS = 256
DARK_SHARE = 0.3  # of the gaps to learn from, in which the companions are missing too
FILL_TOGETHER = 256  # gaps filled at once
REPORT_COLUMNS = {"series_id": pl.String, "ts": UTC_US, "value": pl.Float64, "observed": pl.Boolean, "knowledge_time": UTC_US}


@dataclass(frozen=True, kw_only=True)
class FillSettings:
    """How gaps are filled; counts are ticks.

    Attributes:
        reach: ticks read on each side of a gap; None for a day, or 48 ticks where that is more.
        longest_gap: longer gaps stay open, ticks.
        hidden_size: width of each direction of the LSTM.
        num_steps: training batches.
        batch_size: gaps of a batch.
        validation_fraction: of the time, at its end, whose gaps choose the weights and train none.
        companions: metrics of the same device that are read along, inside the gaps too if they were measured there; not filled themselves.
        seed: decides everything that is random.
    """

    reach: int | None = None
    longest_gap: int = 168
    hidden_size: int = 48
    num_steps: int = 1000
    batch_size: int = 32
    validation_fraction: float = 0.15
    companions: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class FittedFiller:
    """A filler and what it has read.

    Attributes:
        filler: in evaluation mode.
        reach: ticks it reads on each side of a gap.
        longest_gap: longer gaps it leaves open.
        fitted_until: event time of the last value that its weights have read.
        improvement: 1 − its error over that of linear interpolation, on the gaps that chose the weights; 0 where a line is as good.
    """

    filler: GapFiller
    reach: int
    longest_gap: int
    fitted_until: datetime
    improvement: float


def fill_history(observations: pl.DataFrame, grids: pl.DataFrame, settings: FillSettings | None = None) -> pl.DataFrame:
    """Fill the gaps of closed history with what a bidirectional LSTM fitted to that very history makes of both their sides.

    >>> hours = pl.datetime_range(datetime(2026, 1, 1), datetime(2026, 1, 9), "1h", time_zone="UTC", eager=True)
    >>> waves = pl.DataFrame({"series_id": "pump/flow", "ts": hours}).with_columns(value=pl.col("ts").dt.hour().cast(float).sin())
    >>> gap = waves.with_columns(value=pl.when(~pl.col("ts").is_between(hours[100], hours[103])).then("value"))
    >>> grids = pl.DataFrame({"series_id": ["pump/flow"], "sample_interval_us": [3_600_000_000], "grid_offset_us": [0]})
    >>> report = fill_history(gap, grids, FillSettings(num_steps=5))
    >>> report.filter(~pl.col("observed")).select("ts", "knowledge_time").row(0)[1].isoformat()
    '2026-01-09T00:00:00+00:00'

    Args:
        observations: series_id, ts, value (null in a gap), one row for each series and tick, any order.
        grids: series_id, sample_interval_us, grid_offset_us, as the catalog has them.
        settings: how; None for the defaults.

    Returns:
        One row for each series and tick: series_id, ts, value, observed, knowledge_time, which is `ts` for readings and, for
        what was filled in, the event time of the last value that the fit or the filling has read. Gaps that are longer than
        `longest_gap`, and those that no reading closes, stay null.

    Raises:
        DataError: when the series do not share one grid spacing, or there is no stretch to learn from.
    """
    settings = settings or FillSettings()
    panel = panel_with_companions(observations, grids, settings.companions)
    return fill_panel(fit_filler(panel, settings), panel)


def panel_with_companions(observations: pl.DataFrame, grids: pl.DataFrame, companions: tuple[str, ...]) -> Panel:
    """Arrange the series that are no companions as a panel, each with what its device measured beside it at the same ticks.

    Raises:
        DataError: when the series do not share one grid spacing, or every series is a companion.
    """
    if not companions:
        return to_panel(observations, grids)
    _device_id, metric = device_and_metric("series_id")
    panel = to_panel(observations.filter(~metric.is_in(companions)), grids.filter(~metric.is_in(companions)))
    devices = [series_id.rpartition("/")[0] for series_id in panel.series_ids]
    past_TBP = values_beside(panel, devices, companions, observations, len(panel.values_TB))
    return replace(panel, covariates=PanelCovariates.of_past(companions, past_TBP))


def fit_filler(panel: Panel, settings: FillSettings, lengths: NDArray[np.int64] | None = None) -> FittedFiller:
    """Train a filler by hiding observed stretches of a panel, as long as its real gaps are.

    Args:
        panel: the history to learn from; a filler is as good for another panel of the same kind.
        settings: how.
        lengths: of the gaps to learn; None for those of the panel, or, where it has few, 1 to 48 ticks, short ones more often.

    Raises:
        DataError: when there is no stretch to learn from.
    """
    rng = np.random.default_rng(settings.seed)
    filler = _new_filler(panel, settings)
    reach = settings.reach or max(filler.season or 0, SHORTEST_REACH)
    lengths = _lengths(panel, settings, lengths)
    border_B = ((1 - settings.validation_fraction) * panel.length_B).astype(np.int64)
    past = panel.first_rows(border_B)
    stretches, held_out = Stretches(past), Stretches(panel, border_B)
    if min(stretches.longest, held_out.longest) < lengths.min():
        raise DataError(
            f"Gap filling requires observed stretches of more than {lengths.min() + 1} ticks, before and within the last "
            f"{settings.validation_fraction:.0%} of the history; got {stretches.longest} and {held_out.longest}. Give it more history."
        )
    lengths = lengths[lengths <= stretches.longest]

    def examples(source: Panel, cuts: Gaps) -> GapWindow:
        return go_dark(gap_windows(source, cuts, reach), torch.from_numpy(rng.random(len(cuts.start_G)) < DARK_SHARE))

    validation = examples(panel, _cut_some(held_out, lengths, VALIDATION_GAPS, rng))

    def draw_loss() -> torch.Tensor:
        return fill_loss(filler, examples(past, _cut_some(stretches, lengths, settings.batch_size, rng)))

    def validate() -> float:
        with torch.no_grad():
            return float(fill_loss(filler, validation))

    line = validate()  # an untrained filler interpolates
    best = minimise(filler, draw_loss, num_steps=settings.num_steps, validate=validate)
    logger.info("fitted a gap filler validation_mae=%.4f of_a_line=%.4f", best, line)
    return FittedFiller(filler, reach, settings.longest_gap, panel.end, 1 - best / line if line > 0 else 0.0)


def fill_panel(fitted: FittedFiller, panel: Panel) -> pl.DataFrame:
    """Fill the gaps of a panel; returns what `fill_history` does."""
    gaps = find_gaps(panel)
    gaps = gaps.select(gaps.length_G <= fitted.longest_gap)
    gaps = gaps.select(np.argsort(gaps.length_G, kind="stable"))
    values_TB, knowledge_TB = panel.values_TB.copy(), panel.labels_us(np.arange(len(panel.values_TB))[:, None])
    fitted_until_us = (fitted.fitted_until - EPOCH) // MICROSECOND
    for first in range(0, len(gaps.start_G), FILL_TOGETHER):
        some = gaps.select(slice(first, first + FILL_TOGETHER))
        window = gap_windows(panel, some, fitted.reach)
        with torch.inference_mode():
            filled_TG = fitted.filler(window).numpy()
        read_TG = (window.seen_TB | ~window.companions_TBP.isnan().all(dim=-1)).numpy()
        last_read_G = (np.arange(len(filled_TG))[:, None] * read_TG).max(axis=0) - fitted.reach + some.start_G
        step_N, gap_N = np.nonzero(window.gap_TB.numpy())
        row_N, column_N = some.start_G[gap_N] - fitted.reach + step_N, some.column_G[gap_N]
        values_TB[row_N, column_N] = filled_TG[step_N, gap_N]
        knowledge_TB[row_N, column_N] = np.maximum(panel.labels_us(last_read_G[gap_N], column_N), fitted_until_us)
    return _report(panel, values_TB, knowledge_TB)


def _new_filler(panel: Panel, settings: FillSettings) -> GapFiller:
    """Return an untrained filler for the series and companions of a panel."""
    season = DAY // panel.interval
    is_season = DAY % panel.interval == timedelta(0) and 2 <= season <= LONGEST_SEASON
    num_companions = 0 if panel.covariates is None else len(panel.covariates.names.past)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return GapFiller(
            panel.interval.total_seconds(),
            season=season if is_season else None,
            num_companions=num_companions,
            hidden_size=settings.hidden_size,
        )


def _cut_some(stretches: Stretches, lengths: NDArray[np.int64], num_gaps: int, rng: np.random.Generator) -> Gaps:
    """Cut gaps of randomly chosen lengths, at least one; the shortest length must fit somewhere."""
    gaps = stretches.cut(rng.choice(lengths, num_gaps), rng)
    while not len(gaps.start_G):
        gaps = stretches.cut(np.repeat(lengths.min(), num_gaps), rng)
    return gaps


def _report(panel: Panel, values_TB: NDArray[np.float64], knowledge_TB: NDArray[np.int64]) -> pl.DataFrame:
    """Return the rows of the ticks that each series has, by series and time."""
    column_N, row_N = np.nonzero(np.arange(len(values_TB)) < panel.length_B[:, None])
    value = pl.Series(values_TB[row_N, column_N]).fill_nan(None)
    frame = pl.DataFrame(
        {
            "series_id": pl.Series(panel.series_ids).gather(column_N),
            "ts": panel.labels_us(row_N, column_N),
            "value": value,
            "observed": panel.observed_TB[row_N, column_N],
            "knowledge_time": knowledge_TB[row_N, column_N],
        }
    )
    known = pl.when(pl.col("value").is_not_null()).then("knowledge_time")  # an open gap knows nothing
    return frame.with_columns(knowledge_time=known).cast(REPORT_COLUMNS)  # type: ignore[arg-type]


def _lengths(panel: Panel, settings: FillSettings, lengths: NDArray[np.int64] | None) -> NDArray[np.int64]:
    lengths = find_gaps(panel).length_G if lengths is None else lengths
    lengths = lengths[lengths <= settings.longest_gap]
    return lengths if len(lengths) >= FEW_GAPS else np.unique(np.geomspace(1, min(48, settings.longest_gap), 16).astype(np.int64))
