"""The cells of the study of depth: each a stack of one depth and wiring, whose width gives all cells the same number of parameters.

Called by `pipeline.study.plan`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from models.config import ForecasterConfig
from models.forecaster import CausalForecaster
from pipeline.study.knobs import Value

Wiring = Literal["plain", "residual"]
DEPTHS = (1, 2, 3, 4, 6)
WIRINGS: tuple[Wiring, ...] = ("plain", "residual")
REFERENCE_DEPTH = 2


@dataclass(frozen=True)
class Cell:
    """One architecture of the study."""

    depth: int
    wiring: Wiring
    hidden_size: int
    num_parameters: int

    @property
    def name(self) -> str:
        """As files and runs call it: `plain-3`."""
        return f"{self.wiring}-{self.depth}"

    @property
    def knobs(self) -> dict[str, Value]:
        """The settings that make this cell."""
        return {"network.num_layers": self.depth, "network.wiring": self.wiring, "network.hidden_size": self.hidden_size}


def matched_cells(config: ForecasterConfig, depths: Sequence[int] = DEPTHS) -> list[Cell]:
    """Return depths in both wirings, each as near as can be to the parameters of depth 2 at the configured width and wiring."""
    target = num_parameters(_with(config, REFERENCE_DEPTH, config.network.wiring, config.network.hidden_size))
    return [_matched(config, depth, wiring, target) for wiring in WIRINGS for depth in depths]


def num_parameters(config: ForecasterConfig) -> int:
    """Return the parameters of a forecaster, decoder included."""
    return sum(parameter.numel() for parameter in CausalForecaster(config).parameters())


def _matched(config: ForecasterConfig, depth: int, wiring: Wiring, target: int) -> Cell:
    """Find the width by halving: parameters grow with it."""
    low, high = 1, 8 * config.network.hidden_size  # one layer is never so wide
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if num_parameters(_with(config, depth, wiring, middle)) <= target else (low, middle)
    counts = {width: num_parameters(_with(config, depth, wiring, width)) for width in (low, high)}
    width = min(counts, key=lambda width: abs(counts[width] - target))
    return Cell(depth, wiring, width, counts[width])


def _with(config: ForecasterConfig, depth: int, wiring: Wiring, width: int) -> ForecasterConfig:
    return replace(config, network=replace(config.network, num_layers=depth, wiring=wiring, hidden_size=width))
