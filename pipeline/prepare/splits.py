"""Where training ends and validation begins: by instant, never by shuffling, with no target across the border.

Called by `pipeline.train` and `pipeline.study`; the borders are stored with the model, so that a backtest knows what the model has seen.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from pipeline.clock import require_aware
from pipeline.errors import DataError
from pipeline.prepare.sequences import Panel
from pipeline.settings import TrainSettings


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


def check_borders(who: str, train_end: datetime | None, validation_end: datetime | None) -> None:
    """Refuse borders at which no panel could be split, before a panel is read.

    Args:
        who: the subject of the error's sentence.
        train_end: None where the settings' fractions decide.
        validation_end: the same.

    Raises:
        SettingsError: when one has no time zone.
        DataError: when they are not in order.
    """
    require_aware(who, train_end=train_end, validation_end=validation_end)
    if train_end is not None and validation_end is not None:
        Split(train_end, validation_end)


@dataclass(frozen=True)
class SplitByRows(Split):
    """Separate borders for each series, for a panel whose series end at different instants.

    Attributes:
        train_end, validation_end: the latest border of any series, for messages and records.
        rows: by series id, how many rows train, and how many train or validate.
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


def split_panel(panel: Panel, settings: TrainSettings, train_end: datetime | None = None, validation_end: datetime | None = None) -> Split:
    """Place the borders: at the instants given, else at the settings' fractions of the time that the panel's series cover.

    With `train_end` alone, validation extends to the end of the data, because the border by fraction may lie before `train_end`.

    Raises:
        DataError: when the fractions leave nothing to train on, or the borders are not in order.
    """
    if settings.validation_fraction + settings.test_fraction >= 1:
        raise DataError(
            f"A split requires validation_fraction + test_fraction < 1; got {settings.validation_fraction} + {settings.test_fraction}. "
            "Leave something to train on."
        )
    start, end = panel.start, panel.end
    num_ticks = (end - start) // panel.interval

    def border(fraction: float) -> datetime:
        return start + int(num_ticks * fraction) * panel.interval

    if validation_end is None:
        validation_end = end if train_end is not None else border(1 - settings.test_fraction)
    if train_end is None:
        train_end = border(1 - settings.validation_fraction - settings.test_fraction)
    return Split(train_end, validation_end)
