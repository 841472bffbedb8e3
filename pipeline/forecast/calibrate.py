"""Online calibration: each forecast is hedged and its width set by what has matured of those before it, and kept above a floor at zero.

Called by `pipeline.forecast.engine` and by benchmarks; what it remembers is part of a series' state.

Letters: O origins (consecutive ticks), B series, H horizon, Q quantile levels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from pipeline.forecast.floor import Floor, FloorState
from pipeline.forecast.hedge import Hedge, HedgeState
from pipeline.forecast.maturing import Floats, Ints
from pipeline.forecast.widths import OnlineWidths, WidthState


@dataclass
class CalibrationState:
    """What calibration remembers of B series."""

    hedge: HedgeState
    widths: WidthState
    floor: FloorState

    @classmethod
    def fresh(cls, horizon: int, num_series: int) -> Self:
        """Return the state of series of which nothing was forecast: their quantiles stay as they are."""
        return cls(HedgeState.fresh(horizon, num_series), WidthState.fresh(horizon, num_series), FloorState.fresh(num_series))

    def select(self, columns_B: Ints) -> Self:
        """Return a copy of the state of some of the series."""
        return type(self)(self.hedge.select(columns_B), self.widths.select(columns_B), self.floor.select(columns_B))

    def replace(self, columns_B: Ints, other: Self) -> None:
        """Overwrite, in place, the state of some of the series with `other`'s."""
        self.hedge.replace(columns_B, other.hedge)
        self.widths.replace(columns_B, other.widths)
        self.floor.replace(columns_B, other.floor)

    @classmethod
    def concat(cls, states: Sequence[Self]) -> Self:
        """Join the states of several groups of series."""
        return cls(
            HedgeState.concat([s.hedge for s in states]),
            WidthState.concat([s.widths for s in states]),
            FloorState.concat([s.floor for s in states]),
        )

    def arrays(self) -> dict[str, Floats | Ints]:
        """Return every array by its name, such as `hedge.last_B`."""
        return self.hedge.arrays("hedge.") | self.widths.arrays("widths.") | self.floor.arrays("floor.")

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Floats | Ints]) -> Self:
        """Return the state that `arrays` came from; other arrays may be among them.

        Raises:
            KeyError: where one is missing.
        """
        return cls(
            HedgeState.from_arrays("hedge.", arrays), WidthState.from_arrays("widths.", arrays), FloorState.from_arrays("floor.", arrays)
        )


class OnlineCalibration:
    """Calibrates forecasts tick by tick; all at once and one by one give the same."""

    def __init__(self, horizon: int, quantile_levels: Sequence[float], state: CalibrationState) -> None:
        self.state = state
        self._hedge = Hedge(horizon, quantile_levels, state=state.hedge)
        self._widths = OnlineWidths(horizon, quantile_levels, state=state.widths)
        self._floor = Floor(state.floor)

    def advance(self, quantiles_OBHQ: Floats, actual_OB: Floats, issued_O: Ints | None = None) -> Floats:
        """Learn from the value of each tick, then calibrate the forecast of that tick; arguments as for `OnlineWidths.advance`."""
        calibrated_OBHQ = self._widths.advance(self._hedge.advance(quantiles_OBHQ, actual_OB), actual_OB, issued_O)
        return self._floor.advance(calibrated_OBHQ, actual_OB, issued_O)
