"""The covariates of a panel: what is known of its series beside their target, row by row on the panel's own ticks.

A `pipeline.prepare.sequences.Panel` holds them, `pipeline.prepare.join_covariates` fills them from the lake, and the stream engine and
training cut them into the tensors of `models.batch.Covariates`.

Letters: T ticks, B series, P past, U known-future and J static covariates, S ticks of which a plan is known.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray

from models.batch import Covariates
from pipeline.errors import DataError

Floats = NDArray[np.float64]


class CovariateNames(NamedTuple):
    """What a forecaster reads beside the target, in the order of the columns.

    Attributes:
        past: measured when the target is; metrics of the same device.
        future: known a whole horizon ahead; metrics of the same device's plans.
        static: attributes of the device; `kind=pump` is 1 for the devices whose `kind` is `pump`, else 0.
    """

    past: tuple[str, ...] = ()
    future: tuple[str, ...] = ()
    static: tuple[str, ...] = ()

    @property
    def metrics(self) -> frozenset[str]:
        """Metrics that are inputs, and so no targets."""
        return frozenset(self.past + self.future)

    @property
    def attributes(self) -> tuple[str, ...]:
        """Attributes of devices that the static columns are made of."""
        return tuple(dict.fromkeys(column.partition("=")[0] for column in self.static))


@dataclass(frozen=True)
class PanelCovariates:
    """Covariates of B series; row t is the panel's tick t, and NaN stands for unknown.

    Attributes:
        names: what the columns are.
        past_TBP: float64, as they were known when the tick closed.
        future_SBU: float64; row s was known a horizon before tick s. It extends past the panel's last tick as far as plans do.
        static_BJ: float64.
    """

    names: CovariateNames
    past_TBP: Floats
    future_SBU: Floats
    static_BJ: Floats

    def __post_init__(self) -> None:
        """Refuse arrays that do not have a column for each name.

        Raises:
            DataError: naming the shapes.
        """
        widths = tuple(array.shape[-1] for array in (self.past_TBP, self.future_SBU, self.static_BJ))
        counts = {self.past_TBP.shape[1], self.future_SBU.shape[1], self.static_BJ.shape[0]}
        if widths != tuple(map(len, self.names)) or len(counts) > 1:
            raise DataError(
                f"Covariates require a column for each of {tuple(self.names)} and one number of series; got arrays of "
                f"{self.past_TBP.shape}, {self.future_SBU.shape} and {self.static_BJ.shape}. Mend the arrays."
            )

    @classmethod
    def of_past(cls, names: Sequence[str], past_TBP: Floats) -> Self:
        """Return covariates that are all measured when the target is."""
        num_ticks, num_series, _ = past_TBP.shape
        return cls(CovariateNames(past=tuple(names)), past_TBP, np.empty((num_ticks, num_series, 0)), np.empty((num_series, 0)))

    def columns(self, columns_B: NDArray[np.int64] | list[int]) -> Self:
        """Return the covariates of some of the series."""
        return replace(
            self,
            past_TBP=self.past_TBP[:, columns_B],
            future_SBU=self.future_SBU[:, columns_B],
            static_BJ=self.static_BJ[columns_B],
        )

    def first_rows(self, rows_B: NDArray[np.int64]) -> Self:
        """Return the covariates of the first `rows_B` ticks of each series; plans end there too, as no target lies beyond."""

        def cut(array: Floats) -> Floats:
            kept = array[: rows_B.max(initial=0)]
            return np.where((np.arange(len(kept))[:, None] < rows_B)[..., None], kept, np.nan)

        return replace(self, past_TBP=cut(self.past_TBP), future_SBU=cut(self.future_SBU))

    def window(self, first: int, last: int, horizon: int) -> tuple[Floats, Floats, Floats]:
        """Return past (T, B, P), known-future (T + horizon, B, U) and static (B, J) values of the rows from `first` to before `last`.

        Rows that are not there, before the first or after the last, are NaN.
        """
        return _rows(self.past_TBP, first, last), _rows(self.future_SBU, first, last + horizon), self.static_BJ


def tensors(covariates: PanelCovariates | None, first: int, last: int, horizon: int) -> Covariates | None:
    """Return the rows of `PanelCovariates.window` as the forecaster takes them; None where there are no covariates."""
    if covariates is None:
        return None
    return Covariates.of(*map(torch.from_numpy, covariates.window(first, last, horizon)))


def require_names(covariates: PanelCovariates | None, wanted: tuple[tuple[str, ...], ...]) -> None:
    """Refuse other covariates than a forecaster was made for.

    Raises:
        DataError: naming both.
    """
    got = CovariateNames() if covariates is None else covariates.names
    if got != CovariateNames(*wanted):
        raise DataError(
            f"This forecaster requires the past, known-future and static covariates {tuple(wanted)}; got {tuple(got)}. "
            "Give the panel those, or make the configuration from the panel's."
        )


def _rows(array: Floats, first: int, last: int) -> Floats:
    """Return rows `first` to before `last`, NaN where there are none; a view if all exist."""
    if first >= 0 and last <= len(array):
        return array[first:last]
    rows = np.full((last - first, *array.shape[1:]), np.nan)
    start, stop = max(first, 0), min(last, len(array))
    if start < stop:
        rows[start - first : stop - first] = array[start:stop]
    return rows
