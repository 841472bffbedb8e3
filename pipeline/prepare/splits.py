"""Where training ends and validation begins: by instant, never by shuffling, with no target across the border.

Called by `pipeline.train`; the borders are stored with the model, so that a backtest knows what the model has seen.
"""

from dataclasses import dataclass
from datetime import datetime

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
