"""What a saved model is and what it was made from: the JSON beside the weights.

Called by `pipeline.train`, which fills it in, and `pipeline.tracking.saved_model`, which saves and reads it.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from math import isfinite, nan
from typing import Any, Self

from models.config import ForecasterConfig
from pipeline.tracking.provenance import SourceRevision, fingerprint

INSTANTS = ("train_end", "validation_end", "data_end", "created_at")


@dataclass(frozen=True)
class TrainedSeries:
    """The series a model was fitted on, without listing a million of them.

    Attributes:
        count: of the series.
        first: the first few ids in order.
        sha256: of all ids, sorted.
    """

    count: int
    first: tuple[str, ...]
    sha256: str

    @classmethod
    def of(cls, series_ids: Iterable[str]) -> Self:
        """Summarise series ids; their order does not count."""
        ordered = sorted(series_ids)
        return cls(len(ordered), tuple(ordered[:5]), fingerprint(ordered))


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a model is and what it was made from; saved beside the weights.

    Attributes:
        config: of the forecaster.
        series: it was fitted on.
        series_patterns: that choose the series it serves; None for every series.
        train_end: last instant whose observations the weights were fitted on.
        validation_end: last instant that early stopping looked at.
        data_end: last instant there was; what lies between the two is the test period.
        observations_version: Delta version of the table that was read.
        source: revision of the code.
        metrics: validation and test scores by name; NaN where there was nothing to score.
        created_at: when training ended.
        tidecast_version: of the distribution.
        seed: of the training.
        settings: all of them, as JSON, passwords masked.
    """

    config: ForecasterConfig
    series: TrainedSeries
    series_patterns: tuple[str, ...] | None
    train_end: datetime
    validation_end: datetime
    data_end: datetime
    observations_version: int
    source: SourceRevision
    metrics: dict[str, float]
    created_at: datetime
    tidecast_version: str
    seed: int
    settings: dict[str, object]

    def __post_init__(self) -> None:
        """Refuse instants without a time zone.

        Raises:
            ValueError: naming the field.
        """
        naive = [name for name in INSTANTS if getattr(self, name).utcoffset() is None]
        if naive:
            raise ValueError(f"A model card requires instants with a time zone; got naive {', '.join(naive)}. Give them UTC.")

    def to_dict(self) -> dict[str, object]:
        """Return a JSON-ready form, as `from_dict` reads it."""
        record = asdict(self) | {name: getattr(self, name).isoformat() for name in INSTANTS}
        record["metrics"] = {name: value if isfinite(value) else None for name, value in self.metrics.items()}
        return record

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Rebuild a card from its JSON form.

        Raises:
            KeyError, TypeError, ValueError: when a field is missing, unknown or of the wrong form.
        """
        patterns, series = data["series_patterns"], data["series"]
        return cls(
            **data
            | {name: datetime.fromisoformat(data[name]) for name in INSTANTS}
            | {
                "config": ForecasterConfig.from_dict(data["config"]),
                "series": TrainedSeries(**{**series, "first": tuple(series["first"])}),
                "series_patterns": None if patterns is None else tuple(patterns),
                "source": SourceRevision(**data["source"]),
                "metrics": {name: nan if value is None else float(value) for name, value in data["metrics"].items()},
            }
        )
