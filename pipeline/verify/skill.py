"""Is there skill where there can be none? What laws 5 and 6 measure, with an interval that says how sure it is.

Called by `pipeline.verify.module` and `pipeline.verify.training`, which train, and by the tests of the law.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.causality import Finding

RESAMPLES = 2000
TAIL = 0.001  # on either side: a few trials are judged at once, and a false alarm costs trust
LEAST_SKILL = 0.002  # below it there is nothing to gain from a leak, and the laws 1 to 3 are exact


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How much better than a naive forecast one training came out, on series it had not seen.

    Attributes:
        name: what it was trained on.
        gain: 1 - MAE / MAE of the naive forecast; 0 is no better, 1 is perfect.
        lower, upper: of its 99.8 % bootstrap interval, series drawn with replacement.
    """

    name: str
    gain: float
    lower: float
    upper: float

    @classmethod
    def of(cls, name: str, ours_B: NDArray[np.float64], naive_B: NDArray[np.float64]) -> Self:
        """Compare mean absolute errors of each series.

        Series are what is drawn again: errors of one series at neighbouring origins are alike (the percentile bootstrap of
        Efron 1979, over clusters).
        """
        drawn = np.random.default_rng(0).integers(len(ours_B), size=(RESAMPLES, len(ours_B)))
        gains = 1 - ours_B[drawn].mean(1) / naive_B[drawn].mean(1)
        lower, upper = np.quantile(gains, [TAIL, 1 - TAIL])
        return cls(name=name, gain=float(1 - ours_B.mean() / naive_B.mean()), lower=float(lower), upper=float(upper))

    def __str__(self) -> str:
        return f"{self.gain:+.1%} [{self.lower:+.1%}, {self.upper:+.1%}] on {self.name}"


def judge(law: int, without: list[Trial], control: Trial) -> Finding:
    """Find whether there was skill where there can be none, and whether there was any where there is something to learn.

    Args:
        law: its number.
        without: trials in which the naive forecast cannot be beaten.
        control: a trial in which it can; without skill there the others show nothing.
    """
    leaks = [trial for trial in without if trial.lower > LEAST_SKILL]
    if leaks:
        return Finding(law=law, verdict="broken", seen=f"skill over the naive forecast: {'; '.join(map(str, leaks))}")
    if control.lower <= LEAST_SKILL:
        return Finding(
            law=law, verdict="not applicable", seen=f"too short a training: {control}, where there is something to learn; allow more time"
        )
    best = max(without, key=lambda trial: trial.lower)
    return Finding(law=law, verdict="holds", seen=f"skill at best {best}; control {control}")
