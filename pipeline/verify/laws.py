"""The laws that can be asked of any forecaster, each with what it means and what to do where it is broken.

Called by `pipeline.verify.verify`, whose report quotes them. The numbers are those of tests/laws.
"""

from typing import NamedTuple


class Law(NamedTuple):
    """One law in words."""

    name: str
    meaning: str
    remedy: str


LAWS: dict[int, Law] = {
    1: Law(
        "future perturbation",
        "Whatever comes after an origin, the forecast issued there stays the same.",
        "Look for layers that read backward, padding on both sides, statistics of the whole window, filters and fills of the full series.",
    ),
    2: Law(
        "gradient",
        "A forecast has no gradient from inputs after its origin, and some from inputs before it.",
        "Follow the gradient from that tick: what mixes ticks (convolution, attention, normalisation, pooling) needs a causal form.",
    ),
    3: Law(
        "prefix",
        "What is forecast at a tick does not depend on how much came after it.",
        "Normalise by what was known at each tick, and count positions from the start, not from the end.",
    ),
    4: Law(
        "stream equals batch",
        "One tick at a time with the carried state gives what one call over the sequence gives, and a restart changes nothing.",
        "Return all that is remembered as the state: hidden and cell states, statistics, lags; keep nothing in the module.",
    ),
    5: Law(
        "no skill on noise",
        "Trained on random walks or shuffled readings, it is no better than the naive forecast, for there is nothing to learn.",
        "Skill there is a leak: see which of the laws 1 to 3 is broken, then look at how windows and targets are cut.",
    ),
    6: Law(
        "crystal ball",
        "A past-only column that equals the target does not help, for it says nothing of the future that the target does not.",
        "Read past-only covariates up to the origin, like the target; only what is known in advance may be read beyond it.",
    ),
    7: Law(
        "batch size",
        "The batch that a series is in changes neither its forecasts nor any metric, and no window is dropped.",
        "Take no statistics over the batch when serving, and never drop the last batch (drop_last=False).",
    ),
    10: Law(
        "split gap",
        "No training target lies after a validation origin.",
        "End training origins a horizon before the border: origin + horizon <= border.",
    ),
}
