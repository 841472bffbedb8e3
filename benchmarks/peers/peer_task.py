"""The exchange folder as a peer reads it: regular series, where training and validation end, and the origins to forecast.

Runs in the peers' environment: pandas and NumPy, nothing of tidecast. Letters of arrays: O origins, H horizon, Q quantile levels.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

NUM_VALIDATION_WINDOWS = 512  # of all series together: enough to choose an epoch by, few enough to leave the budget to training
LONGEST_CONTEXT = 720  # ticks; the longest look-back of the published ETT results
DAY, WEEK, YEAR = (pd.Timedelta(days=days) for days in (1, 7, 365))


@dataclass(frozen=True)
class PeerSeries:
    """One series on its regular grid, up to its last origin.

    Attributes:
        name: `unique_id`.
        frame: index `ds` (UTC, without a zone, as the libraries want it); `y`, NaN in gaps, and the past covariates.
        num_train: rows up to the end of training.
        num_validation: rows up to the end of validation, those of training included.
        origins: rows that forecasts are asked at, ascending; each may read itself and what is before it.
    """

    name: str
    frame: pd.DataFrame
    num_train: int
    num_validation: int
    origins: Rows

    @property
    def filled(self) -> pd.DataFrame:
        """The frame with gaps filled forward; what is before the first value takes that value, and no origin lies there."""
        return self.frame.ffill().bfill().fillna(0.0)

    @property
    def observed(self) -> NDArray[np.bool_]:
        """Which rows have a target."""
        return np.asarray(self.frame["y"].notna(), dtype=np.bool_)

    def validation_origins(self, count: int, horizon: int) -> Rows:
        """Return up to `count` evenly spaced origins whose whole horizon lies in the validation period."""
        first, last = self.num_train - 1, self.num_validation - horizon - 1
        if last < first:
            return np.array([], dtype=np.int64)
        return np.unique(np.linspace(first, last, min(count, last - first + 1)).astype(np.int64))

    def extended(self, num_rows: int, offset: pd.DateOffset) -> "PeerSeries":
        """Return the series with as many rows without a value put before it as give its training part `num_rows`."""
        missing = max(num_rows - self.num_train, 0)
        if not missing:
            return self
        before = pd.date_range(end=self.frame.index[0] - offset, periods=missing, freq=offset)
        frame = pd.concat([pd.DataFrame(np.nan, before, self.frame.columns), self.frame])
        return PeerSeries(self.name, frame, self.num_train + missing, self.num_validation + missing, self.origins + missing)


@dataclass(frozen=True)
class PeerTask:
    """What every peer is asked: the series, the origins, and the time it may train for.

    Attributes:
        series: those with an origin.
        horizon: steps of a forecast.
        season: ticks.
        frequency: grid spacing in pandas' words, such as `h` or `5min`.
        has_calendar: whether the time of day and of the week mean anything.
        levels: quantile levels, ascending.
        covariates: columns known up to the origin only.
        seconds: CPU time that training may take.
        seed: of the library's random numbers.
        fingerprint: of the task, for the record.
    """

    series: tuple[PeerSeries, ...]
    horizon: int
    season: int
    frequency: str
    has_calendar: bool
    levels: list[float]
    covariates: list[str]
    seconds: float
    seed: int
    fingerprint: str

    @classmethod
    def read(cls, folder: Path) -> "PeerTask":
        """Read what `benchmarks.peers.exchange` wrote."""
        words = json.loads((folder / "task.json").read_text())
        frames = {name: pd.read_parquet(folder / f"{name}.parquet") for name in ("series", "origins", "borders")}
        cutoffs = dict(iter(frames["origins"].groupby("unique_id")["cutoff"]))
        borders = frames["borders"].set_index("unique_id")
        series = []
        for name, frame in frames["series"].groupby("unique_id", sort=True):
            times = pd.DatetimeIndex(frame["ds"])
            origins = np.sort(times.get_indexer(pd.DatetimeIndex(cutoffs[name]))).astype(np.int64)
            assert (origins >= 0).all(), f"{name} has an origin that is no tick of its grid"
            values = frame[["y", *words["covariates"]]].set_index(times.tz_localize(None))
            train, validation = (int(count) for count in borders.loc[name, ["num_train", "num_validation"]])
            series.append(PeerSeries(str(name), values, train, validation, origins))
        kept = ("horizon", "season", "frequency", "has_calendar", "levels", "covariates", "seconds", "seed", "fingerprint")
        return cls(tuple(series), **{key: words[key] for key in kept})

    @property
    def offset(self) -> pd.DateOffset:
        """The grid spacing."""
        return pd.tseries.frequencies.to_offset(self.frequency)

    @property
    def context_length(self) -> int:
        """Ticks of look-back: four horizons, two seasons, or the week of an hourly series, as far as most training parts reach."""
        wanted = max(4 * self.horizon, 2 * self.season, min(7 * self.season, 168))
        usual = int(np.median([one.num_train for one in self.series]))
        return max(min(wanted, max(LONGEST_CONTEXT, self.horizon), usual - self.horizon), self.horizon)

    @property
    def recurrent_context_length(self) -> int:
        """Ticks of look-back for networks that pay for each in time: four horizons or a week of hours, never more than the others."""
        return min(self.context_length, max(4 * self.horizon, 168))

    @property
    def windowed(self) -> tuple[PeerSeries, ...]:
        """The series for models of windows: each long enough for one window of context and horizon in its training part."""
        return tuple(one.extended(self.context_length + self.horizon, self.offset) for one in self.series)

    @property
    def validation_stride(self) -> int:
        """Ticks between validation windows, for a library that takes a stride; coprime to the season, so that all phases occur."""
        windows = sum(max(one.num_validation - one.num_train - self.horizon, 1) for one in self.series)
        stride = -(-windows // NUM_VALIDATION_WINDOWS)
        while math.gcd(stride, self.season) > 1:
            stride += 1
        return stride

    def validation_windows(self, series: tuple[PeerSeries, ...]) -> Iterator[tuple[PeerSeries, int]]:
        """Yield series and origins for early stopping to look at."""
        share = max(NUM_VALIDATION_WINDOWS // len(series), 1)
        for one in series:
            for origin in one.validation_origins(share, self.horizon):
                yield one, int(origin)

    def knows_period(self, period: pd.Timedelta) -> bool:
        """Whether the phase of a period means anything to a model: a tick is at most half of it, and training holds two of it.

        With less than two, it tells each training window which one it is, and every window of the test that it is none of them.
        """
        num_train = max(one.num_train for one in self.series)
        start = self.series[0].frame.index[0]
        return self.has_calendar and 2 * (start + self.offset - start) <= period and start + num_train * self.offset - start >= 2 * period

    @property
    def periods(self) -> list[str]:
        """Names of the periods that `calendar` has columns for."""
        return [name for name, period in {"day": DAY, "week": WEEK, "year": YEAR}.items() if self.knows_period(period)]

    def calendar(self, times: pd.DatetimeIndex) -> pd.DataFrame:
        """Return a sine and a cosine for each of `periods`, known for the future as well."""
        hours = times.hour + times.minute / 60
        turns = {"day": hours / 24, "week": (times.dayofweek + hours / 24) / 7, "year": times.dayofyear / 365.25}
        columns = {f"{f.__name__}_{name}": f(2 * np.pi * turns[name]) for name in self.periods for f in (np.sin, np.cos)}
        return pd.DataFrame(columns, times)


@dataclass(frozen=True)
class PeerResult:
    """What a peer made of a task.

    Attributes:
        quantiles: by series, `(O, H, Q)`, in the order of its origins.
        library: the distribution's name.
        settings: everything that differs from the library's defaults, and the defaults that matter.
        missing: what was done about missing values.
        covariates: what was done with the past covariates and the calendar.
        training_s: CPU seconds on one thread.
        forecasting_s: CPU seconds on one thread.
        cut_off: whether the time ran out.
        how: how training ended, in words.
    """

    quantiles: dict[str, Floats]
    library: str
    settings: dict[str, object]
    missing: str
    covariates: str
    training_s: float
    forecasting_s: float
    cut_off: bool
    how: str

    def to_frame(self, task: PeerTask) -> pd.DataFrame:
        """Return one row for each origin and step: `unique_id, cutoff, ds, q0.1 …`, the quantiles of each in ascending order."""
        return pd.concat([self._rows(task, one) for one in task.series], ignore_index=True)

    def _rows(self, task: PeerTask, one: PeerSeries) -> pd.DataFrame:
        quantiles = self.quantiles[one.name]
        expected = (one.origins.size, task.horizon, len(task.levels))
        assert quantiles.shape == expected, f"{one.name}: got quantiles {quantiles.shape}, not {expected}"
        last = one.frame.index[one.origins[-1]]
        times = one.frame.index.append(pd.date_range(last + task.offset, periods=task.horizon, freq=task.offset))
        cutoff = np.repeat(one.origins, task.horizon)
        step = np.tile(np.arange(1, task.horizon + 1), one.origins.size)
        stamps = {"cutoff": times[cutoff], "ds": times[cutoff + step]}
        columns = {name: column.tz_localize("UTC").as_unit("us") for name, column in stamps.items()}
        ascending = np.sort(quantiles, axis=-1).reshape(-1, len(task.levels))  # crossed quantiles only ever lose by it
        return pd.DataFrame({"unique_id": one.name, **columns, **{f"q{level:g}": ascending[:, q] for q, level in enumerate(task.levels)}})
