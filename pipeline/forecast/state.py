"""The carried state of a fleet on disk: one safetensors file, fsynced, then renamed into place.

The catalog points to the newest file together with the input version it has consumed; after a crash the pointer's file
is loaded and the observations since are replayed. Called by `pipeline.forecast.rolling`.
"""

import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from models.batch import CarriedState
from models.forecaster import CausalForecaster
from pipeline.errors import StoreError
from pipeline.forecast.calibrate import CalibrationState

FORMAT = "4"


@dataclass
class StreamState:
    """Struct of arrays, one slot for each series.

    Attributes:
        model_version: registry version whose weights made the state; another one's state is meaningless.
        series_ids: slot order.
        tick_B: last tick read, int64.
        carried: hidden and cell states, normaliser, lag ring.
        calibration: what online calibration remembers; None where it is off.
        plans_version: Delta version of `plans` that has been read; None where the model reads nothing that is known ahead.
        static_BJ: static covariates that the state was made with; None where the model reads none.
    """

    model_version: str
    series_ids: tuple[str, ...]
    tick_B: NDArray[np.int64]
    carried: CarriedState
    calibration: CalibrationState | None = None
    plans_version: int | None = None
    static_BJ: NDArray[np.float64] | None = None

    @classmethod
    def empty(cls, model_version: str, forecaster: CausalForecaster, *, calibrate: bool) -> Self:
        """Return a state that holds no series yet."""
        calibration = CalibrationState.fresh(forecaster.config.horizon, 0) if calibrate else None
        return cls(model_version, (), np.empty(0, np.int64), forecaster.initial_state(0), calibration)

    def with_series(self, series_ids: list[str], before_tick_B: NDArray[np.int64], forecaster: CausalForecaster) -> Self:
        """Return a state with further series, of which nothing has been read up to `before_tick_B`."""
        fresh = forecaster.initial_state(len(series_ids))
        uncalibrated = CalibrationState.fresh(forecaster.config.horizon, len(series_ids))
        unknown_BJ = np.full((len(series_ids), len(forecaster.config.static_covariates)), np.nan)
        return type(self)(
            self.model_version,
            (*self.series_ids, *series_ids),
            np.concatenate([self.tick_B, before_tick_B]),
            CarriedState.concat([self.carried, fresh]),
            None if self.calibration is None else CalibrationState.concat([self.calibration, uncalibrated]),
            self.plans_version,
            None if self.static_BJ is None else np.concatenate([self.static_BJ, unknown_BJ]),
        )

    def select(self, slots_B: NDArray[np.int64]) -> Self:
        """Return the state of some of the series."""
        return type(self)(
            self.model_version,
            tuple(self.series_ids[slot] for slot in slots_B),
            self.tick_B[slots_B],
            self.carried.select(torch.from_numpy(slots_B)),
            None if self.calibration is None else self.calibration.select(slots_B),
            self.plans_version,
            None if self.static_BJ is None else self.static_BJ[slots_B],
        )

    def snapshot(self, path: Path) -> None:
        """Write the state so that it survives power loss: temporary file, fsync, rename, fsync of the folder."""
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {f.name: getattr(self.carried, f.name).contiguous() for f in fields(CarriedState)}
        remembered = {} if self.calibration is None else self.calibration.arrays()
        tensors |= {name: torch.from_numpy(array).contiguous() for name, array in remembered.items()}
        if self.static_BJ is not None:
            tensors["static_BJ"] = torch.from_numpy(self.static_BJ).contiguous()
        metadata = {
            "format": FORMAT,
            "model_version": self.model_version,
            "series_ids": json.dumps(self.series_ids),
            "plans_version": json.dumps(self.plans_version),
        }
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        save_file({**tensors, "tick_B": torch.from_numpy(self.tick_B)}, temporary, metadata=metadata)
        _fsync(temporary)
        temporary.replace(path)
        _fsync(path.parent)

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
                json.loads(metadata["plans_version"]),
                tensors["static_BJ"].numpy() if "static_BJ" in tensors else None,
            )
        except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
            raise StoreError(
                f"A snapshot requires a whole file; got {error} from {path.name}. It will be rebuilt from observations."
            ) from error


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
