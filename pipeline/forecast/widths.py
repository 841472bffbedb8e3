"""Online widths: the quantiles of every series, widened or narrowed by how often what came true fell outside of them.

The calibrated quantile is median + (quantile - median) · exp(θ), so quantiles never cross and the median stays. θ is
kept for each series, each representative lead (1, 2, 4, … and the horizon; those between are interpolated in the logarithm of the
lead) and each side of the median. It is learned from matured forecasts alone: at every tick the value that came in is compared with
the bounds that were issued for it, which the state remembers until then.

    width      tracks the share outside the outermost levels of one lead (a quantile tracker; Angelopoulos et al. 2023, conformal P)
    skew       moves the two sides apart where one of them is missed more often, slowly
    agitation  the same share over all leads, mostly the short ones, which are judged first; it warns the long ones, and fades

What was tried, and the figures behind the constants: docs/decisions.md. Nothing is shared between series, so that forecasts depend
neither on the fleet nor on how it is cut into batches. Called by `pipeline.forecast.calibrate`; NumPy alone.

Letters: O origins (consecutive ticks), B series, H horizon, Q quantile levels, S representative leads, R places.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from pipeline.forecast.maturing import Floats, Ints, Places, SeriesArrays, at_every_step

SPEED = 0.06  # of width, over the root of the lead: 1/h costs less accuracy, but leaves more 30-day windows off by over 5 points
MOST_GAIN = 0.6  # width moves by at most this over the lead: what is corrected is judged a lead later, and faster steps swing
SKEW_SPEED = 0.1  # of width: each tail alone is rarer news than both together, and chasing it costs accuracy
AGITATION_SPEED = 0.12
FADING = 0.01  # of agitation, each tick: it lasts about a hundred ticks
REACH = 0.25  # a lead h feels agitation by h^-REACH
# Logarithms, of each part; a sensor that was stuck for a year must not take a year to recover.
NARROWEST, WIDEST, MOST_SKEWED = -1.2, 3.0, 1.0


@dataclass
class WidthState(SeriesArrays):
    """What is remembered of the widths of B series; the last axis of every array is the series."""

    ticks_B: Ints
    """Ticks calibrated so far, int64."""
    agitation_B: Floats
    """Logarithm of a factor, float64, as are the next two."""
    width_SB: Floats
    skew_SB: Floats
    lower_RB: Floats
    """Issued lower bounds that have not matured, in the metric's unit; NaN where there is none. R as `Places` has it."""
    upper_RB: Floats

    @classmethod
    def fresh(cls, horizon: int, num_series: int) -> Self:
        """Return the state of series of which nothing was forecast: their quantiles stay as they are."""
        places = Places(horizon)
        leads, waiting = (len(places.leads_S1), num_series), (places.num_places, num_series)
        return cls(
            ticks_B=np.zeros(num_series, np.int64),
            agitation_B=np.zeros(num_series),
            width_SB=np.zeros(leads),
            skew_SB=np.zeros(leads),
            lower_RB=np.full(waiting, np.nan),
            upper_RB=np.full(waiting, np.nan),
        )


class OnlineWidths:
    """Calibrates forecasts tick by tick; all at once and one by one give the same.

    >>> widths = OnlineWidths(horizon=1, quantile_levels=(0.1, 0.5, 0.9), num_series=1)
    >>> too_narrow = np.tile([-1.0, 0.0, 1.0], (1000, 1, 1, 1))  # holds 68 % of a normal distribution
    >>> came_true = np.random.default_rng(0).normal(size=(1000, 1))
    >>> lower, _, upper = widths.advance(too_narrow, came_true)[:-1, 0, 0].T
    >>> float(np.mean((lower <= came_true[1:, 0]) & (came_true[1:, 0] <= upper)).round(2))
    0.8
    """

    def __init__(self, horizon: int, quantile_levels: Sequence[float], num_series: int = 0, *, state: WidthState | None = None) -> None:
        self.state = WidthState.fresh(horizon, num_series) if state is None else state
        self._median = list(quantile_levels).index(0.5)
        self._outside = quantile_levels[0], 1.0 - quantile_levels[-1]
        self._places = Places(horizon)
        leads_S1 = self._places.leads_S1
        self._speeds_S1 = self._places.strides_S1 * np.minimum(SPEED / np.sqrt(leads_S1), MOST_GAIN / leads_S1)
        self._shares_S1 = self._places.strides_S1 / leads_S1 / (1 / leads_S1).sum()  # neighbouring scores of lead h repeat each other
        self._reach_S1 = leads_S1**-REACH
        self._to_steps_SH = at_every_step(horizon)

    def advance(self, quantiles_OBHQ: Floats, actual_OB: Floats, issued_O: Ints | None = None) -> Floats:
        """Learn from the value of each tick, then calibrate the forecast of that tick.

        Args:
            quantiles_OBHQ: the forecaster's, at consecutive ticks, none left out.
            actual_OB: value of the tick itself, which is step h of the forecast of h ticks ago; NaN where not observed.
            issued_O: ascending rows whose calibrated forecasts are wanted; None for all.

        Returns:
            Calibrated quantiles of these rows (O, B, H, Q).
        """
        rows = range(len(actual_OB)) if issued_O is None else issued_O.tolist()
        places = {row: place for place, row in enumerate(rows)}
        calibrated_OBHQ = np.empty((len(places), *quantiles_OBHQ.shape[1:]))
        with np.errstate(over="ignore", invalid="ignore"):  # a forecast that is not finite stays so, and teaches nothing
            for row, (quantiles_BHQ, actual_B) in enumerate(zip(quantiles_OBHQ, actual_OB, strict=True)):
                self._learn(actual_B)
                width_SB = self.state.width_SB + self._reach_S1 * self.state.agitation_B
                below_SB, above_SB = width_SB - self.state.skew_SB, width_SB + self.state.skew_SB
                self._remember(quantiles_BHQ, below_SB, above_SB)
                if row in places:
                    self._stretch(quantiles_BHQ, below_SB, above_SB, calibrated_OBHQ[places[row]])
        return calibrated_OBHQ

    def _learn(self, actual_B: Floats) -> None:
        """Judge the bounds that were issued for this tick."""
        state = self.state
        places_SB, due_SB = self._places.due(state.ticks_B)
        columns_B = np.arange(len(actual_B))
        lower_SB, upper_SB = state.lower_RB[places_SB, columns_B], state.upper_RB[places_SB, columns_B]
        judged_SB = due_SB & np.isfinite(actual_B) & np.isfinite(lower_SB) & np.isfinite(upper_SB)
        missed_below_SB = np.where(judged_SB, (actual_B < lower_SB) - self._outside[0], 0.0)
        missed_above_SB = np.where(judged_SB, (actual_B > upper_SB) - self._outside[1], 0.0)
        missed_SB = missed_below_SB + missed_above_SB
        state.width_SB = (state.width_SB + self._speeds_S1 * missed_SB).clip(NARROWEST, WIDEST)
        tilt_SB = SKEW_SPEED * self._speeds_S1 * (missed_above_SB - missed_below_SB)
        state.skew_SB = (state.skew_SB + tilt_SB).clip(-MOST_SKEWED, MOST_SKEWED)
        excitement_B = AGITATION_SPEED * (self._shares_S1 * missed_SB).sum(axis=0)
        state.agitation_B = ((1 - FADING) * state.agitation_B + excitement_B).clip(NARROWEST, WIDEST)

    def _remember(self, quantiles_BHQ: Floats, below_SB: Floats, above_SB: Floats) -> None:
        """Keep the outermost bounds issued at this tick until they mature."""
        state, median = self.state, self._median
        at_leads_SBQ = quantiles_BHQ[:, self._places.leads_S1[:, 0] - 1].swapaxes(0, 1)
        median_SB = at_leads_SBQ[..., median]
        places_SB, kept_SB = self._places.at(np.broadcast_to(state.ticks_B, below_SB.shape))
        places, columns = places_SB[kept_SB], np.nonzero(kept_SB)[1]
        lower_SB = median_SB - (median_SB - at_leads_SBQ[..., 0]) * np.exp(below_SB)
        upper_SB = median_SB + (at_leads_SBQ[..., -1] - median_SB) * np.exp(above_SB)
        state.lower_RB[places, columns], state.upper_RB[places, columns] = lower_SB[kept_SB], upper_SB[kept_SB]
        state.ticks_B += 1

    def _stretch(self, quantiles_BHQ: Floats, below_SB: Floats, above_SB: Floats, out_BHQ: Floats) -> None:
        median_BH1 = quantiles_BHQ[..., self._median, None]
        np.subtract(quantiles_BHQ, median_BH1, out=out_BHQ)
        out_BHQ[..., : self._median] *= np.exp(below_SB.T @ self._to_steps_SH)[..., None]
        out_BHQ[..., self._median + 1 :] *= np.exp(above_SB.T @ self._to_steps_SH)[..., None]
        out_BHQ += median_BH1
