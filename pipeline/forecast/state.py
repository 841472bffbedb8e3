"""The carried state of a fleet on disk: one safetensors file, fsynced, then renamed into place.

The catalog points to the newest file; after a crash it is loaded and the observations since are read. Older files serve late readings:
the newest state remembers of each which series have changed behind it. Called by `pipeline.forecast`.
"""

import json
import os
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from models.batch import CarriedState
from models.forecaster import CausalForecaster
from pipeline.errors import StoreError
from pipeline.forecast.calibrate import CalibrationState
from pipeline.store.state_files import make_folder, sync

FORMAT = "5"
UNTOUCHED = np.iinfo(np.int64).max  # no tick has changed
WHOLLY = np.iinfo(np.int64).min  # every tick may have changed


class Rung(NamedTuple):
    """An older snapshot of the same model.

    Attributes:
        name: its file's name.
        frontier: the newest tick of any series in it.
    """

    name: str
    frontier: int


@dataclass
class StreamState:
    """Struct of arrays, one slot for each series.

    Attributes:
        model_version: `LoadedModel.identity` of the model that made the state; to another one it is meaningless.
        series_ids: slot order.
        tick_B: last tick read, int64.
        carried: hidden and cell states, normaliser, lag ring.
        calibration: what online calibration remembers; None where it is off.
        observations_version: Delta version of `observations` that has been read; None for a state of nothing.
        plans_version: Delta version of `plans` that has been read; None where the model reads nothing that is known ahead.
        static_BJ: static covariates that the state was made with; None where the model reads none.
        rungs: snapshots that were written of this state before, oldest first.
        changed_RB: the earliest tick of each series that has changed since each rung was written, `UNTOUCHED` where none has: a rung
            that ends before that tick is still valid for that series.
    """

    model_version: str
    series_ids: tuple[str, ...]
    tick_B: NDArray[np.int64]
    carried: CarriedState
    calibration: CalibrationState | None = None
    observations_version: int | None = None
    plans_version: int | None = None
    static_BJ: NDArray[np.float64] | None = None
    rungs: tuple[Rung, ...] = ()
    changed_RB: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 0), np.int64))

    def __post_init__(self) -> None:
        """Give a state without rungs a column for each series all the same."""
        if not self.rungs:
            self.changed_RB = np.empty((0, len(self.series_ids)), np.int64)

    @classmethod
    def empty(cls, model_version: str, forecaster: CausalForecaster, *, calibrate: bool) -> Self:
        """Return a state that holds no series yet."""
        calibration = CalibrationState.fresh(forecaster.config.horizon, 0) if calibrate else None
        no_ticks: NDArray[np.int64] = np.empty(0, np.int64)
        return cls(model_version, (), no_ticks, forecaster.initial_state(0), calibration)

    def with_series(self, series_ids: list[str], before_tick_B: NDArray[np.int64], forecaster: CausalForecaster) -> Self:
        """Return a state with further series, of which nothing has been read up to `before_tick_B`."""
        unknown_BJ = np.full((len(series_ids), len(forecaster.config.static_covariates)), np.nan)
        uncalibrated = CalibrationState.fresh(forecaster.config.horizon, len(series_ids))
        return replace(
            self,
            series_ids=(*self.series_ids, *series_ids),
            tick_B=np.concatenate([self.tick_B, before_tick_B]),
            carried=CarriedState.concat([self.carried, forecaster.initial_state(len(series_ids))]),
            calibration=None if self.calibration is None else CalibrationState.concat([self.calibration, uncalibrated]),
            static_BJ=None if self.static_BJ is None else np.concatenate([self.static_BJ, unknown_BJ]),
            # A rung cannot know a series that is new; one that has come back has changed wholly.
            changed_RB=np.pad(self.changed_RB, ((0, 0), (0, len(series_ids))), constant_values=WHOLLY),
        )

    def select(self, slots_B: NDArray[np.int64]) -> Self:
        """Return a copy of the state of some of the series."""
        return replace(
            self,
            series_ids=tuple(self.series_ids[slot] for slot in slots_B),
            tick_B=self.tick_B[slots_B],
            carried=self.carried.select(torch.from_numpy(slots_B)),
            calibration=None if self.calibration is None else self.calibration.select(slots_B),
            static_BJ=None if self.static_BJ is None else self.static_BJ[slots_B],
            changed_RB=self.changed_RB[:, slots_B],
        )

    def put(self, slots_B: NDArray[np.int64], other: Self) -> None:
        """Overwrite, in place, what was read of some series with `other`'s, slot by slot; `changed_RB` stays."""
        self.tick_B[slots_B] = other.tick_B
        self.carried.replace(torch.from_numpy(slots_B), other.carried)
        if self.calibration is not None and other.calibration is not None:
            self.calibration.replace(slots_B, other.calibration)

    def slots(self) -> dict[str, int]:
        """Return the slot of each series."""
        return {series: slot for slot, series in enumerate(self.series_ids)}

    def snapshot(self, path: Path) -> None:
        """Write the state so that it survives a power loss: temporary file, fsync, rename, fsync of the folder."""
        make_folder(path.parent)
        tensors = {f.name: getattr(self.carried, f.name).contiguous() for f in fields(CarriedState)}
        remembered = {} if self.calibration is None else self.calibration.arrays()
        tensors |= {name: torch.from_numpy(array).contiguous() for name, array in remembered.items()}
        if self.static_BJ is not None:
            tensors["static_BJ"] = torch.from_numpy(self.static_BJ).contiguous()
        metadata = {
            "format": FORMAT,
            "model_version": self.model_version,
            "series_ids": json.dumps(self.series_ids),
            "observations_version": json.dumps(self.observations_version),
            "plans_version": json.dumps(self.plans_version),
            "rungs": json.dumps(self.rungs),
        }
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        ticks = {"tick_B": torch.from_numpy(self.tick_B), "changed_RB": torch.from_numpy(self.changed_RB).contiguous()}
        save_file({**tensors, **ticks}, temporary, metadata=metadata)
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)

    @classmethod
    def resume(cls, path: Path) -> Self:
        """Read a snapshot.

        Raises:
            StoreError: when the file is missing, damaged or of another format.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise StoreError(
                        f"A snapshot requires format {FORMAT}; got {metadata.get('format')!r} in {path.name}. It will be rebuilt."
                    )
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            carried = CarriedState(**{f.name: tensors[f.name] for f in fields(CarriedState)})
            dotted = {name: tensor.numpy() for name, tensor in tensors.items() if "." in name}
            return cls(
                metadata["model_version"],
                tuple(json.loads(metadata["series_ids"])),
                tensors["tick_B"].numpy(),
                carried,
                CalibrationState.from_arrays(dotted) if dotted else None,
                json.loads(metadata["observations_version"]),
                json.loads(metadata["plans_version"]),
                tensors["static_BJ"].numpy() if "static_BJ" in tensors else None,
                tuple(Rung(*rung) for rung in json.loads(metadata["rungs"])),
                tensors["changed_RB"].numpy(),
            )
        except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
            raise StoreError(
                f"A snapshot requires a whole file; got {error} from {path.name}. It will be rebuilt from observations."
            ) from error
