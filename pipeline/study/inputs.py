"""What a study works on, and the name by which it is known again: the same for the same question.

Called by `pipeline.study.tune` and `pipeline.study.depth`. Borders that are placed by fraction move with the data, and make another
study of it; borders that are given as instants stay.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self

from pipeline.prepare.sequences import Panel
from pipeline.prepare.splits import Split, split_panel
from pipeline.schemas import Observations
from pipeline.settings import Settings
from pipeline.store.lake import Lake
from pipeline.tracking.provenance import fingerprint
from pipeline.train.train import load_panel

Step = Callable[[int, int, str], None]
"""Told of every training that ends: how many there were, how many there will be, and what goes on."""

NAME_DIGITS = 8


@dataclass(frozen=True)
class StudyInputs:
    """The series of a study and their borders.

    Attributes:
        panel: all series, as the lake has them.
        split: borders of training and validation.
        versions: of the table read.
    """

    panel: Panel
    split: Split
    versions: dict[str, int]

    @classmethod
    def load(cls, settings: Settings, series: tuple[str, ...] | None, train_end: datetime | None, validation_end: datetime | None) -> Self:
        """Read the lake and place the borders, by instant where these are given, else by the settings' fractions.

        Raises:
            DataError: when no series matches, or the borders leave nothing.
        """
        lake = Lake(settings.lake)
        versions = {Observations.name: lake.version(Observations)}
        panel = load_panel(settings, lake, series)
        return cls(panel, split_panel(panel, settings.train, train_end, validation_end), versions)

    def up_to(self, data_end: datetime) -> Self:
        """Return the inputs without what came after an instant."""
        return replace(self, panel=self.panel.truncated(data_end))

    def name(self, kind: str, **asked: object) -> str:
        """Return the name of a study of these inputs: the same for the same question, so that asking again goes on with it."""
        borders = [self.split.train_end.isoformat(), self.split.validation_end.isoformat()]
        return f"{kind}-{fingerprint([sorted(self.panel.series_ids), borders, asked])[:NAME_DIGITS]}"
