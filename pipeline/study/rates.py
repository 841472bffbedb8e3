"""The range of learning rates that each cell searches for its own, and whether the best one lies inside it.

Called by `pipeline.study.depth` and `pipeline.study.comparison`.
"""

from dataclasses import replace

from pipeline.study.knobs import Range
from pipeline.study.search import Search

RATE = "learning_rate"
HALF_RANGE = 10**1.25  # factor to either side of the settings' own rate: 2.5 decades in all
EXTENSION = 10.0  # a decade more, on the side where the best rate lies
BORDER = 0.1  # of the range on a log scale: a best rate that close to its end may lie beyond it


def rate_range(centre: float) -> Range:
    """Return the range around a learning rate, its ends rounded as the rates that are tried."""
    whole = Range(RATE, 0.0, 1.0)
    return Range(RATE, float(whole.rounded(centre / HALF_RANGE)), float(whole.rounded(centre * HALF_RANGE)), log=True)


def rate_of(search: Search) -> Range:
    """Return the range of rates that a search draws from."""
    return next(knob for knob in search.knobs if isinstance(knob, Range) and knob.name == RATE)


def border_side(rate: Range, best: float) -> int:
    """Return at which end of its range a best rate lies: −1 at the low one, 1 at the high one, 0 where it is well inside.

    >>> [border_side(Range("learning_rate", 1e-4, 1e-2, log=True), best) for best in (1.2e-4, 1e-3, 9e-3)]
    [-1, 0, 1]
    """
    share = rate.share_of(best)
    return int(share > 1 - BORDER) - int(share < BORDER)


def widened(rate: Range, side: int) -> tuple[Range, Range]:
    """Return the range with a decade more on one side, and that decade."""
    if side < 0:
        return replace(rate, low=rate.low / EXTENSION), replace(rate, low=rate.low / EXTENSION, high=rate.low)
    return replace(rate, high=rate.high * EXTENSION), replace(rate, low=rate.high, high=rate.high * EXTENSION)
