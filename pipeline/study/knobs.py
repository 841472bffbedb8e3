"""What a search may change: knobs of the training settings, each with the values it may take.

Called by `pipeline.study.tune` and `pipeline.study.depth`. A knob is named as in `tidecast.toml`, below `train`: "network.dropout".
Values are rounded before they are tried, so that what is printed is what was trained with.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, Self

from pipeline.settings import TrainSettings

if TYPE_CHECKING:
    from optuna import Trial

Value = float | str
DIGITS = 4
PRIMES = (2, 3, 5, 7, 11, 13, 17, 19)


class Knob(Protocol):
    """A setting that a search may change."""

    @property
    def name(self) -> str:
        """Dotted, below `train`."""

    def suggest(self, trial: "Trial") -> Value:
        """Let the sampler choose."""

    def at(self, share: float) -> Value:
        """Return the value at a share, 0 to 1, of the way through all that the knob may be."""

    def rounded(self, value: Value) -> Value:
        """Return a value rounded to the digits that are tried."""

    def including(self, value: Value) -> Self:
        """Return the knob, widened where it leaves out a value."""


@dataclass(frozen=True)
class Range:
    """A number between two others, both included.

    Attributes:
        name: of the knob.
        low, high: in the knob's unit.
        log: whether factors count rather than differences.
        whole: whether only integers are meant.
    """

    name: str
    low: float
    high: float
    log: bool = False
    whole: bool = False

    def suggest(self, trial: "Trial") -> Value:
        """Let the sampler choose."""
        if self.whole:
            return trial.suggest_int(self.name, round(self.low), round(self.high), log=self.log)
        return self.rounded(trial.suggest_float(self.name, self.low, self.high, log=self.log))

    def at(self, share: float) -> Value:
        """Return the value at a share of the way from low to high.

        >>> Range("learning_rate", 1e-4, 1e-2, log=True).at(0.5)
        0.001
        """
        low, high = (math.log(bound) if self.log else bound for bound in (self.low, self.high))
        between = low + share * (high - low)
        return self.rounded(math.exp(between) if self.log else between)

    def share_of(self, value: float) -> float:
        """Return how far through the range a value lies: 0 at low, 1 at high."""
        low, high, at = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        return (at - low) / (high - low)

    def including(self, value: Value) -> Self:
        """Return the range, widened where it leaves out a value."""
        return replace(self, low=min(self.low, float(value)), high=max(self.high, float(value)))

    def rounded(self, value: Value) -> Value:
        """Return a value rounded to the digits that are tried."""
        if self.whole:
            return round(float(value))
        return min(max(float(f"{float(value):.{DIGITS}g}"), self.low), self.high)


@dataclass(frozen=True)
class Choice:
    """One of some words."""

    name: str
    options: tuple[str, ...]

    def suggest(self, trial: "Trial") -> Value:
        """Let the sampler choose."""
        chosen: str = trial.suggest_categorical(self.name, self.options)
        return chosen

    def at(self, share: float) -> Value:
        """Return the option at a share of the way through them."""
        return self.options[min(int(share * len(self.options)), len(self.options) - 1)]

    def rounded(self, value: Value) -> Value:
        """Return the value as it is."""
        return value

    def including(self, value: Value) -> Self:
        """Return the choice, with the value as a further option where it is none."""
        return self if value in self.options else replace(self, options=(*self.options, str(value)))


def spread(knobs: Sequence[Knob], num_points: int) -> list[dict[str, Value]]:
    """Return points that cover each knob evenly, however many: a point lies where the earlier ones left room.

    Source: Richtmyer 1951, "The evaluation of definite integrals, and a quasi-Monte-Carlo method": multiples of roots of primes.
    """
    steps = [math.sqrt(prime) for prime in PRIMES[: len(knobs)]]
    return [{knob.name: knob.at((0.5 + n * step) % 1) for knob, step in zip(knobs, steps, strict=True)} for n in range(1, num_points + 1)]


def value_of(settings: TrainSettings, name: str) -> Value:
    """Return what a knob is set to.

    >>> value_of(TrainSettings(), "network.hidden_size")
    64
    """
    found: object = settings
    for part in name.split("."):
        found = getattr(found, part)
    return found if isinstance(found, float | int) else str(found)


def with_knobs(settings: TrainSettings, values: Mapping[str, Value]) -> TrainSettings:
    """Return the settings with some knobs set.

    >>> with_knobs(TrainSettings(), {"network.num_layers": 3}).network.num_layers
    3

    Raises:
        ValueError: for a value that the settings refuse.
    """
    tree = settings.model_dump()
    for name, value in values.items():
        *sections, knob = name.split(".")
        branch = tree
        for section in sections:
            branch = branch[section]
        branch[knob] = value
    return TrainSettings.model_validate(tree)


def to_toml(values: Mapping[str, Value]) -> str:
    """Return knobs as the lines of `tidecast.toml` that set them.

    >>> print(to_toml({"network.wiring": "plain", "learning_rate": 0.002}))
    [train]
    learning_rate = 0.002
    <BLANKLINE>
    [train.network]
    wiring = "plain"
    """
    sections: dict[str, list[str]] = {}
    for name, value in sorted(values.items()):
        *section, knob = ("train", *name.split("."))
        sections.setdefault(".".join(section), []).append(f'{knob} = "{value}"' if isinstance(value, str) else f"{knob} = {value!r}")
    return "\n\n".join("\n".join([f"[{section}]", *lines]) for section, lines in sorted(sections.items()))
