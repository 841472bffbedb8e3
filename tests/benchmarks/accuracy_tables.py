"""Small tables of both protocols, and scores written down once more from their definitions, without any code of ours."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

LEVELS = tuple(round(0.1 * number, 1) for number in range(1, 10))
START = datetime(2024, 1, 1)  # noqa: DTZ001 (stamps of files are naive)
BORDERS = (0, 120, 160, 200)
HOURS = pl.Series("date", [START + timedelta(hours=hour) for hour in range(200)])


def wide_file(folder: Path, *, gaps: bool = True) -> Path:
    """Write 200 hours of two series, one of them with gaps."""
    rng = np.random.default_rng(3)
    daily = np.sin(2 * np.pi * np.arange(200) / 24)
    frame = pl.DataFrame({"date": HOURS, "a": 50 + 10 * daily + rng.normal(size=200), "b": 1e-3 * (daily + rng.normal(size=200))})
    if gaps:
        frame = frame.with_columns(a=pl.when(pl.int_range(pl.len()) % 17 == 3).then(None).otherwise("a"))
    path = folder / "wide.csv"
    frame.write_csv(path)
    return path


def long_file(folder: Path, ds_of: dict[str, list[object]]) -> Path:
    """Write series with the given stamps, in any order of rows; values are noise about a level of each series' own."""
    rng = np.random.default_rng(4)
    frames = [
        pl.DataFrame({"unique_id": name, "ds": [str(ds) for ds in stamps], "y": 10.0**number + rng.normal(size=len(stamps))})
        for number, (name, stamps) in enumerate(ds_of.items())
    ]
    path = folder / "long.csv"
    pl.concat(frames).sample(fraction=1.0, shuffle=True, seed=1).write_csv(path)
    return path


def by_definition(y: NDArray[np.float64], q: NDArray[np.float64], deviation: NDArray[np.float64] | float = 1.0) -> dict[str, float]:
    """Return the pooled scores of points `(N,)` without gaps and quantiles `(N, 9)`."""
    error = (y - q[:, 4]) / deviation
    losses = [2 * np.where(y >= q[:, k], level * (y - q[:, k]), (1 - level) * (q[:, k] - y)).sum() for k, level in enumerate(LEVELS)]
    return {
        "mse": float((error**2).mean()),
        "mae": float(np.abs(error).mean()),
        "wql": float(np.mean(losses) / np.abs(y).sum()),
        "coverage80": float(((q[:, 0] <= y) & (y <= q[:, 8])).mean()),
    }
