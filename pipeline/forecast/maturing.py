"""Where what was issued waits until it comes true: a few representative leads, each with a ring of places.

Called by `pipeline.forecast.hedge` and `pipeline.forecast.widths`; NumPy alone.

Letters: B series, S representative leads, R places of all leads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

MOST_REMEMBERED = 16  # places of each lead; longer leads remember every other tick, or fewer


def representative_leads(horizon: int) -> Ints:
    """Return 1, 2, 4, … below the horizon, and the horizon (S,)."""
    return np.array([*(2**power for power in range((horizon - 1).bit_length())), horizon], dtype=np.int64)


def at_every_step(horizon: int) -> Floats:
    """Return the weights (S, H) that interpolate from the leads to every step, linearly in the logarithm of the lead."""
    leads_S, steps_H = representative_leads(horizon), np.arange(1, horizon + 1)
    return np.stack([np.interp(np.log(steps_H), np.log(leads_S), one_S) for one_S in np.eye(len(leads_S))])


class Places:
    """The places of each representative lead.

    A lead of h ticks needs h places. Longer ones than `MOST_REMEMBERED` are issued and judged at every `stride`-th tick only:
    neighbouring errors repeat each other. Strides are odd: every hour of the day has its turn.
    """

    def __init__(self, horizon: int) -> None:
        self.leads_S1 = representative_leads(horizon)[:, None]
        strides_S1 = -(-self.leads_S1 // MOST_REMEMBERED)
        self.strides_S1 = strides_S1 + (strides_S1 % 2 == 0)
        self.sizes_S1 = -(-self.leads_S1 // self.strides_S1)
        self.starts_S1 = np.cumsum(self.sizes_S1, axis=0) - self.sizes_S1
        self.num_places = int(self.sizes_S1.sum())

    def at(self, ticks_SB: Ints) -> tuple[Ints, Flags]:
        """Return the place of what is issued at each tick (S, B), and whether anything is issued at it."""
        return self.starts_S1 + ticks_SB // self.strides_S1 % self.sizes_S1, ticks_SB % self.strides_S1 == 0

    def due(self, ticks_B: Ints) -> tuple[Ints, Flags]:
        """Return the place of what comes true at these ticks (S, B), and whether anything does."""
        return self.at(ticks_B - self.leads_S1)


@dataclass
class SeriesArrays:
    """Arrays whose last axis is the series: what is remembered of a fleet."""

    def select(self, columns_B: Ints) -> Self:
        """Return a copy of what is remembered of some of the series."""
        return type(self)(**{f.name: getattr(self, f.name)[..., columns_B] for f in fields(self)})

    def replace(self, columns_B: Ints, other: Self) -> None:
        """Overwrite, in place, what is remembered of some of the series with `other`'s."""
        for f in fields(self):
            getattr(self, f.name)[..., columns_B] = getattr(other, f.name)

    @classmethod
    def concat(cls, states: Sequence[Self]) -> Self:
        """Join what is remembered of several groups of series."""
        return cls(**{f.name: np.concatenate([getattr(state, f.name) for state in states], axis=-1) for f in fields(cls)})

    def arrays(self, prefix: str) -> dict[str, Floats | Ints]:
        """Return every array by its name, with a prefix."""
        return {prefix + f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_arrays(cls, prefix: str, arrays: Mapping[str, Floats | Ints]) -> Self:
        """Return the object that `arrays` came from; other arrays may be among them.

        Raises:
            KeyError: where one is missing.
        """
        return cls(**{f.name: arrays[prefix + f.name] for f in fields(cls)})
