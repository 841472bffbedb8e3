"""Where training ends and validation begins: by instant, never by shuffling, with no target across the border.

Called by `pipeline.train`; the borders are stored with the model, so that a backtest knows what the model has seen.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.prepare.sequences import Panel


@dataclass(frozen=True)
class Split:
    """Three periods in time: targets up to `train_end` train, origins from there to `validation_end` choose, the rest is unseen."""

    train_end: datetime
    validation_end: datetime

    def __post_init__(self) -> None:
        """Refuse a validation period that does not exist.

        Raises:
            DataError: when the borders are not in order.
        """
        if self.validation_end <= self.train_end:
            raise DataError(
                f"A split requires train_end before validation_end; got {self.train_end:%Y-%m-%d %H:%M} and "
                f"{self.validation_end:%Y-%m-%d %H:%M}. Leave a validation period between them."
            )

    def train_rows(self, panel: Panel) -> NDArray[np.int64]:
        """Return for each series of a panel how many of its rows train (B,)."""
        return panel.rows_until(self.train_end)

    def validation_rows(self, panel: Panel) -> NDArray[np.int64]:
        """Return for each series of a panel how many of its rows train or choose (B,)."""
        return panel.rows_until(self.validation_end)


@dataclass(frozen=True)
class SplitByRows(Split):
    """Borders of its own for each series, for a panel whose series end at different instants.

    Attributes:
        train_end, validation_end: the latest border of any series, for messages and records.
        rows: by series id, how many rows train, and how many train or choose.
    """

    rows: Mapping[str, tuple[int, int]]

    def train_rows(self, panel: Panel) -> NDArray[np.int64]:
        """Return for each series of a panel how many of its rows train (B,)."""
        return self._rows(panel, 0)

    def validation_rows(self, panel: Panel) -> NDArray[np.int64]:
        """Return for each series of a panel how many of its rows train or choose (B,)."""
        return self._rows(panel, 1)

    def _rows(self, panel: Panel, border: int) -> NDArray[np.int64]:
        rows_B = np.array([self.rows[series][border] for series in panel.series_ids], dtype=np.int64)
        return np.minimum(rows_B, panel.length_B)


def split_by_fraction(panel: Panel, *, validation_fraction: float, test_fraction: float) -> Split:
    """Place the borders at fractions of the time that the panel's series cover, rounded to whole intervals.

    Raises:
        DataError: when the fractions leave nothing to train on.
    """
    if validation_fraction + test_fraction >= 1:
        raise DataError(
            f"A split requires validation_fraction + test_fraction < 1; got {validation_fraction} + {test_fraction}. "
            "Leave something to train on."
        )
    start, end = panel.start, panel.end
    num_ticks = (end - start) // panel.interval

    def border(fraction: float) -> datetime:
        return start + int(num_ticks * fraction) * panel.interval

    return Split(border(1 - validation_fraction - test_fraction), border(1 - test_fraction))
