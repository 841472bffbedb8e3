"""Gaps of a panel: found, or cut out of observed stretches to train and to compare on, and the windows around them.

Called by `pipeline.offline.fill` and `benchmarks.gap_filling`. A window shows `reach` ticks on each side of its gap and
nothing beyond, so what fills a gap has read a known stretch of time.

Letters: T ticks, B series of a panel, G gaps, N ticks at which a gap may begin, K tries.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from models.gap_filling import GapWindow
from pipeline.prepare.sequences import Panel

TRIES = 32  # beginnings drawn for a cut: a long one fits at few of them


@dataclass(frozen=True)
class Gaps:
    """Where G gaps are; the ticks before and after each are observed.

    Attributes:
        column_G: series.
        start_G: first row that is missing.
        length_G: ticks that are missing.
    """

    column_G: NDArray[np.int64]
    start_G: NDArray[np.int64]
    length_G: NDArray[np.int64]

    def select(self, chosen: NDArray[np.bool_] | NDArray[np.int64] | slice) -> Self:
        """Return some of the gaps."""
        return type(self)(self.column_G[chosen], self.start_G[chosen], self.length_G[chosen])


def find_gaps(panel: Panel) -> Gaps:
    """Return the closed gaps of a panel, by series and time; what is missing at either end of a series is none."""
    columns, starts, lengths = [], [], []
    for column in range(len(panel.series_ids)):
        observed_rows = np.flatnonzero(panel.observed_TB[:, column])
        steps = np.diff(observed_rows)
        is_gap = steps > 1
        columns.append(np.full(int(is_gap.sum()), column))
        starts.append(observed_rows[:-1][is_gap] + 1)
        lengths.append(steps[is_gap] - 1)
    return Gaps(np.concatenate(columns), np.concatenate(starts), np.concatenate(lengths))


class Stretches:
    """The observed stretches of a panel, out of which gaps are cut: what is hidden there is known, so it can be compared with."""

    def __init__(self, panel: Panel, first_row_B: NDArray[np.int64] | None = None) -> None:
        """Look where a cut may begin: at an observed tick after an observed tick.

        Args:
            panel: the series.
            first_row_B: no cut begins before that row of its series; None for anywhere.
        """
        observed_TB = panel.observed_TB
        rows_T1 = np.arange(len(observed_TB))[:, None]
        may_TB = observed_TB & (rows_T1 >= (0 if first_row_B is None else first_row_B))
        may_TB[1:] &= observed_TB[:-1]
        may_TB[:1] = False
        self._row_N, self._column_N = np.nonzero(may_TB)
        next_missing_TB = np.where(observed_TB, len(observed_TB), rows_T1)
        next_missing_TB = np.minimum.accumulate(next_missing_TB[::-1], axis=0)[::-1]
        self._run_N = (next_missing_TB - rows_T1)[self._row_N, self._column_N]

    @property
    def longest(self) -> int:
        """Ticks of the longest gap that can be cut; 0 where there is none."""
        return int(self._run_N.max(initial=1)) - 1

    def cut(self, lengths_G: NDArray[np.int64], rng: np.random.Generator) -> Gaps:
        """Draw where gaps of the given lengths begin; those that fit at none of `TRIES` beginnings are left out."""
        if not self.longest:
            return Gaps(self._column_N[:0], self._row_N[:0], lengths_G[:0])
        drawn_GK = rng.integers(0, len(self._row_N), size=(len(lengths_G), TRIES))
        fits_GK = self._run_N[drawn_GK] > lengths_G[:, None]  # the tick after the cut is observed too
        some = fits_GK.any(axis=1)
        drawn_G = drawn_GK[some, fits_GK[some].argmax(axis=1)]
        return Gaps(self._column_N[drawn_G], self._row_N[drawn_G], lengths_G[some])


def gap_windows(panel: Panel, gaps: Gaps, reach: int) -> GapWindow:
    """Return a window for each gap: `reach` ticks before it, the gap, `reach` ticks after it; shorter gaps end earlier.

    Args:
        panel: the series.
        gaps: at least one.
        reach: ticks seen on each side.
    """
    num_ticks = 2 * reach + int(gaps.length_G.max())
    step_T1 = np.arange(num_ticks)[:, None]
    row_TG = gaps.start_G - reach + step_T1
    gap_TG = (step_T1 >= reach) & (step_T1 < reach + gaps.length_G)
    there_TG = (row_TG >= 0) & (row_TG < panel.length_B[gaps.column_G]) & (step_T1 < 2 * reach + gaps.length_G)
    safe_TG = np.clip(row_TG, 0, panel.values_TB.shape[0] - 1)
    values_TG = panel.values_TB[safe_TG, gaps.column_G]
    seen_TG = there_TG & ~gap_TG & ~np.isnan(values_TG)
    companions_TGP = np.empty((*row_TG.shape, 0)) if panel.covariates is None else panel.covariates.past_TBP[safe_TG, gaps.column_G]
    return GapWindow(
        values_TB=torch.from_numpy(np.nan_to_num(values_TG)),
        seen_TB=torch.from_numpy(seen_TG),
        gap_TB=torch.from_numpy(gap_TG),
        time_TB=torch.from_numpy(panel.labels_us(row_TG, gaps.column_G) // 1_000_000),
        companions_TBP=torch.from_numpy(np.where(there_TG[..., None], companions_TGP, np.nan)),
    )
